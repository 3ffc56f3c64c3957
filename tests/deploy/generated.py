"""Generated C compiled for this machine and called through ctypes, its arena between guard bytes."""

import ctypes
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np

WARNINGS = ("-std=c99", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-pedantic", "-Werror")
SANITIZED = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
GUARD = 4096  # bytes on each side of the arena


def compilers():
    """Return the C compilers of this machine."""
    return [name for name in ("gcc", "clang") if shutil.which(name)]


def constant(files, name):
    """Return the value of a #define of the header."""
    return int(re.search(rf"#define NETWORK_{name} (\d+)", files["network.h"].decode()).group(1))


def write(files, folder):
    """Write the files of a program into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


class Generated:
    """A program on this machine. fill: what the arena holds before each picture."""

    def __init__(self, files, folder, compiler="gcc", flags=("-O2",)):
        self.files, self.arena_bytes = files, constant(files, "ARENA_BYTES")
        write(files, folder)
        library = folder / f"network-{compiler}{''.join(flags)}.so".replace("=", "").replace(",", "")
        shared = ["-DNETWORK_SELFTEST", "-fPIC", "-shared"]
        command = [compiler, *WARNINGS, *flags, *shared, "-o", library, folder / "network.c"]
        compiled = subprocess.run(command, capture_output=True, text=True)
        assert compiled.returncode == 0, compiled.stderr
        self.library = ctypes.CDLL(str(library))
        self.memory = np.zeros(GUARD + self.arena_bytes + GUARD, np.uint8)
        self.classes = constant(files, "CLASSES")

    def classify(self, picture, fill=0xA5, by_rows=False):
        """Return the scores of a picture, uint8 (C, H, W); fails where a byte outside the arena was written."""
        self.memory[:] = 0x5A
        self.memory[GUARD : GUARD + self.arena_bytes] = fill
        arena = ctypes.c_void_p(self.memory.ctypes.data + GUARD)
        pixels = np.ascontiguousarray(picture.transpose(1, 2, 0))
        scores = np.full(self.classes + 2, 12345, np.int32)
        out = ctypes.c_void_p(scores.ctypes.data + 4)
        if by_rows:
            self.library.network_begin(arena)
            for row in pixels:
                row = row.copy()
                self.library.network_row(arena, ctypes.c_void_p(row.ctypes.data))
            self.library.network_end(arena, out)
        else:
            self.library.network_classify(arena, ctypes.c_void_p(pixels.ctypes.data), out)
        assert scores[0] == scores[-1] == 12345
        assert (self.memory[:GUARD] == 0x5A).all() and (self.memory[GUARD + self.arena_bytes :] == 0x5A).all()
        return scores[1:-1]

    def selftest(self):
        """Return what network_selftest returns."""
        return self.library.network_selftest(ctypes.c_void_p(self.memory.ctypes.data + GUARD))

    def run(self, pictures, **options):
        """Return the scores of pictures, int32 (N, classes)."""
        return np.stack([self.classify(picture, **options) for picture in pictures])


def run_sanitized(files, folder, pictures, compiler="gcc"):
    """Return the scores that a program under AddressSanitizer and UndefinedBehaviorSanitizer gives."""
    write(files, folder)
    program = folder / f"sanitized-{compiler}"
    sources = [Path(__file__).with_name("harness.c"), folder / "network.c"]
    command = [compiler, *WARNINGS, *SANITIZED, "-I", folder, "-o", program, *sources]
    compiled = subprocess.run(command, capture_output=True, text=True)
    assert compiled.returncode == 0, compiled.stderr
    done = subprocess.run([program], input=pictures.transpose(0, 2, 3, 1).tobytes(), capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    return np.frombuffer(done.stdout, np.int32).reshape(len(pictures), -1)
