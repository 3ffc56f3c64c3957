"""Instructions counted in another way than the board counts them: from the emulator's log of what it executes.

QEMU executes one instruction at a time here and writes a line about each, which is slow: some 200,000 a second.
"""

import re
import subprocess

from bitwren.deploy.emulate.boot import OPTIONS
from bitwren.deploy.emulate.build import Image
from bitwren.deploy.emulate.tools import find_tool, run_tool
from bitwren.errors import ToolError


def trace(image: Image) -> int:
    """Boot with the pictures that were given last, and return how many instructions of the network's own were executed.

    Functions of libraries are not counted. Raises ToolError where the emulator fails.
    """
    emulator = find_tool(image.machine.emulator)
    version = re.search(r"version (\d+)\.(\d+)", run_tool([emulator, "--version"]))
    newer = version is not None and tuple(map(int, version.groups())) >= (8, 1)
    one_at_a_time = ["-accel", "tcg,one-insn-per-tb=on"] if newer else ["-singlestep"]
    first, last = image.symbols["at_network_start"], image.symbols["at_network_code_end"] - 1
    logged = ["-d", "exec,nochain", "-dfilter", f"{first:#x}..{last:#x}"]
    words = [emulator, *image.machine.options, "-kernel", image.path.name, *OPTIONS, *one_at_a_time, *logged]
    # The log is the emulator's standard error, which needs no name: /dev/stdout is not there, or not it, everywhere.
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    with subprocess.Popen(words, cwd=image.path.parent, bufsize=1 << 20, **streams) as process:
        try:
            # One that is stopped, as the clock asks for its turn, comes again.
            executed = sum((line[:5] == b"Trace") - (line[:7] == b"Stopped") for line in process.stderr)
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        raise ToolError(f"{image.machine.emulator} failed: exit status {process.returncode}")
    return executed
