"""The programs that firmware is built, read and booted with: found, named where they are missing, run."""

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from bitwren.deploy.emulate.cores import PACKAGES
from bitwren.errors import ToolError

_TELLING = re.compile(
    r"(?<!collect2: )error:|overflowed|undefined reference|truncated"
)  # of many lines, the one that says why


def find_tool(name: str) -> str:
    """Return the path of a program. Raises ToolError, with the package that brings it, where it is not installed."""
    path = shutil.which(name)
    if path is None:
        raise ToolError(f"{name} is not installed; on Debian or Ubuntu: apt install {PACKAGES[name]}")
    return path


def run_tool(words: Sequence[str], folder: Path | None = None) -> str:
    """Run a program that must succeed, and return what it printed. Raises ToolError with the line that says why not.

    folder: to run it in.
    """
    try:
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True, errors="replace", check=False)
    except OSError as error:
        raise ToolError(f"{words[0]}: cannot be run: {error.strerror}") from None
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        telling = next((line for line in lines if _TELLING.search(line)), lines[0] if lines else "")
        raise ToolError(f"{Path(words[0]).name} failed: {telling.strip() or f'exit status {done.returncode}'}")
    return done.stdout
