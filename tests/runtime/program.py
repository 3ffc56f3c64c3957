"""The agreement program of runtime/tests, built for this processor, under sanitizers, and for 64-bit Arm."""

import dataclasses
import functools
import os
import shutil
import subprocess
from pathlib import Path

import pytest

RUNTIME = Path(__file__).resolve().parents[2] / "runtime"
EXPECTED = tuple(os.environ.get("BITWREN_EXPECT_KERNELS", "").split())  # sets that must run here: .ci/run names them
PACKAGES = {
    "cmake": "cmake",
    "gcc": "gcc",
    "aarch64-linux-gnu-gcc": "gcc-aarch64-linux-gnu",
    "qemu-aarch64": "qemu-user",
}


@dataclasses.dataclass(frozen=True)
class Build:
    """How to build the program: the compiler, what CMake is told, what runs the program."""

    name: str
    compiler: str
    options: tuple[str, ...]
    emulator: str | None = None


def with_flags(flags):
    """Return what CMake is told to compile with these flags alone."""
    return "-DCMAKE_BUILD_TYPE=None", f"-DCMAKE_C_FLAGS={flags}"


SANITIZERS = "-fsanitize=address,undefined -fno-sanitize-recover=all"
ARM = ("-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_SYSTEM_PROCESSOR=aarch64", "-DCMAKE_EXE_LINKER_FLAGS=-static")
BUILDS = {
    b.name: b
    for b in (
        Build("host", "gcc", ("-DBITWREN_WERROR=ON",)),  # as it is shipped
        # -Og: at -O1 GCC takes half a minute for the portable kernels with both sanitizers. What AVX-512 adds to AVX2
        # moves no memory, and threads share steps in the same way whatever the set.
        Build("sanitized", "gcc", (*with_flags(f"-Og -g {SANITIZERS}"), "-DBITWREN_WITHOUT=avx512")),
        Build("threads", "gcc", (*with_flags("-O1 -g -fsanitize=thread"), "-DBITWREN_WITHOUT=avx512;avx2;neon")),
        Build("arm", "aarch64-linux-gnu-gcc", (*ARM, *with_flags("-O2"), "-DBITWREN_WERROR=ON"), "qemu-aarch64"),
    )
}


class Program:
    """A built agreement program. sets: the kernel sets that it runs on this machine."""

    def __init__(self, path, emulator):
        self.start = [*([emulator] if emulator else []), str(path)]
        lines = self.run("--list").stdout.splitlines()
        self.built = [line.split()[1].removesuffix(":") for line in lines]
        self.sets = [name for name, line in zip(self.built, lines, strict=True) if line.endswith(": run")]

    def run(self, *arguments):
        """Run it and return the finished process, whatever it says."""
        return subprocess.run([*self.start, *map(str, arguments)], capture_output=True, text=True, timeout=3600)

    def agrees(self, *arguments):
        """Run it, fail where it finds anything or runs a set fewer than it can; return its output."""
        expected = [word for name in self.sets for word in ("--expect", name)]
        done = self.run(*expected, *arguments)
        assert done.returncode == 0 and not done.stderr, f"{done.stdout}\n{done.stderr}"
        return done.stdout


def missing(build):
    """Return the tools that a build needs and this machine lacks."""
    return [tool for tool in ("cmake", build.compiler, build.emulator) if tool and not shutil.which(tool)]


def skip_without(build):
    """Skip where a tool is missing, or fail where kernel sets are expected to run."""
    absent = [f"{tool} (package {PACKAGES[tool]})" for tool in missing(build)]
    if absent:
        (pytest.fail if EXPECTED else pytest.skip)(f"needs {' and '.join(absent)}")


def call(*command):
    """Run a command; show what it says where it fails."""
    done = subprocess.run([*map(str, command)], capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"


@functools.cache
def built(name, folder):
    """Return the program of a build, compiled once for the run; skip where its tools are missing."""
    build = BUILDS[name]
    skip_without(build)
    place = folder / name
    call(
        "cmake",
        "-S",
        RUNTIME,
        "-B",
        place,
        "-DBITWREN_TESTS=ON",
        f"-DCMAKE_C_COMPILER={build.compiler}",
        *build.options,
    )
    call("cmake", "--build", place, "--target", "agree", "--parallel", "2")
    return Program(place / "tests" / "agree", build.emulator)
