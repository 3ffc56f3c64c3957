"""Generated C on this machine: compiled with the system's compiler, called through ctypes."""

import ctypes
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bitwren.deploy.generate_c.emit import c_files
from bitwren.deploy.generate_c.plan import plan
from bitwren.errors import ModelError, UsageError
from bitwren.network.graph import Network

FLAGS = ("-std=c99", "-O2", "-fPIC", "-shared")


def compiler() -> list[str]:
    """Return the words of the compiler's command: $CC, or the first found. Raises UsageError where there is none."""
    words = shlex.split(os.environ.get("CC", ""))
    if words:
        return words
    for name in ("cc", "gcc", "clang"):
        if shutil.which(name):
            return [name]
    raise UsageError("no C compiler found: install gcc or clang, or set CC")


def compiled(network: Network, optimise: str = "speed") -> Callable[[np.ndarray], np.ndarray]:
    """Return a function of pictures, uint8 (N, C, H, W), to logits, int32 (N, classes), that the generated C computes.

    Raises UsageError where no compiler can be run or there is no plan for the network, ModelError where the compiler
    refuses the program.
    """
    words = compiler()
    try:
        made = plan(network, optimise)
    except ModelError as error:
        raise UsageError(f"no C can be generated for this network: {error}") from None
    with tempfile.TemporaryDirectory(prefix="bitwren-") as folder:
        for name, text in c_files(network, made, "bitwren verify", "verify").items():
            (Path(folder) / name).write_text(text, encoding="utf-8")
        library = Path(folder) / "network.so"
        command = [*words, *FLAGS, "-o", str(library), str(Path(folder) / "network.c")]
        try:
            done = subprocess.run(command, capture_output=True, text=True)
        except OSError as error:
            raise UsageError(f"the C compiler {words[0]} cannot be run: {error.strerror}") from None
        if done.returncode != 0:
            first = next(iter(done.stderr.splitlines()), "no message")
            raise ModelError(f"{words[0]} refuses the generated C: {first}")
        classify = ctypes.CDLL(str(library)).network_classify
    arena = np.empty(made.arena // 4 + 1, np.uint32)

    def run(pixels: np.ndarray) -> np.ndarray:
        scores = np.empty((len(pixels), len(network.classes)), np.int32)
        for picture, row in zip(pixels, scores, strict=True):
            interleaved = np.ascontiguousarray(picture.transpose(1, 2, 0))
            classify(*(ctypes.c_void_p(a.ctypes.data) for a in (arena, interleaved, row)))
        return scores

    return run
