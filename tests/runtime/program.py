"""The agreement program of runtime/tests, built for this processor, under sanitizers, and for 64-bit Arm."""

import concurrent.futures
import dataclasses
import functools
import os
import platform
import shutil
import subprocess
from pathlib import Path

import pytest

RUNTIME = Path(__file__).resolve().parents[2] / "runtime"
EXPECTED = tuple(os.environ.get("BITWREN_EXPECT_KERNELS", "").split())  # sets that must run here: .ci/run names them
WARNINGS = ["-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror"]
PROGRAM = ("agree", "apart", "case", "check_primitives", "guard")  # and primitives, once for each kernel set
SETS = {  # by architecture: name, compiler flags
    "x86_64": [
        ("avx512", ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mbmi", "-mbmi2"]),
        ("avx2", ["-mavx2", "-mbmi", "-mbmi2"]),
    ],
    "aarch64": [("neon", [])],
}
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
PACKAGES = {"gcc": "gcc", "aarch64-linux-gnu-gcc": "gcc-aarch64-linux-gnu", "qemu-aarch64": "qemu-user"}


@dataclasses.dataclass(frozen=True)
class Build:
    """How to build the program: compiler, flags, the architecture it is for, what runs it, kernel sets left out."""

    name: str
    compiler: str
    architecture: str
    flags: tuple[str, ...]
    emulator: str | None = None
    without: tuple[str, ...] = ()


HOST = {"AMD64": "x86_64", "arm64": "aarch64"}.get(platform.machine(), platform.machine())
BUILDS = {
    b.name: b
    for b in (
        Build("host", "gcc", HOST, ("-O2", *WARNINGS)),
        # -Og: at -O1 GCC takes half a minute for the portable kernels with both sanitizers. What AVX-512 adds to AVX2
        # moves no memory, and threads share steps in the same way whatever the set.
        Build("sanitized", "gcc", HOST, ("-Og", "-g", *SANITIZERS), without=("avx512",)),
        Build("threads", "gcc", HOST, ("-O1", "-g", "-fsanitize=thread"), without=("avx512", "avx2", "neon")),
        Build("arm", "aarch64-linux-gnu-gcc", "aarch64", ("-O2", "-static", *WARNINGS), "qemu-aarch64"),
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
    return [tool for tool in (build.compiler, build.emulator) if tool and not shutil.which(tool)]


def skip_without(build):
    """Skip where a tool is missing; fail instead where a kernel set that only this build runs is expected."""
    absent = missing(build)
    if not absent:
        return
    message = f"needs {' and '.join(f'{tool} (package {PACKAGES[tool]})' for tool in absent)}"
    if set(EXPECTED) & {"portable", *(name for name, _ in SETS.get(build.architecture, []))}:
        pytest.fail(f"{message}, and BITWREN_EXPECT_KERNELS is {' '.join(EXPECTED)!r}")
    pytest.skip(message)


def compile_program(build, folder):
    """Compile a build into a folder and return the program's path."""
    sets = [one for one in [*SETS.get(build.architecture, []), ("portable", [])] if one[0] not in build.without]
    common = ["-std=c11", "-pthread", *(f"-I{RUNTIME / d}" for d in ("include", "source", "tests")), *build.flags]
    common += [f"-DBITWREN_HAS_{name.upper()}" for name, _ in sets if name != "portable"]
    jobs = [
        (f"primitives_{name}", RUNTIME / "tests/primitives.c", [*flags, f'-DKERNEL_FILE="kernels_{name}.c"'])
        for name, flags in sets
    ]
    files = [file for file in sorted((RUNTIME / "source").glob("*.c")) if not file.name.startswith("kernels_")]
    jobs += [(file.stem, file, []) for file in [*files, *(RUNTIME / "tests" / f"{name}.c" for name in PROGRAM)]]

    def compile_file(job):
        name, source, flags = job
        call([build.compiler, *common, *flags, "-c", str(source), "-o", str(folder / f"{name}.o")])

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        list(pool.map(compile_file, jobs))
    path = folder / "agree"
    call([build.compiler, *common, *(str(folder / f"{name}.o") for name, _, _ in jobs), "-o", str(path), "-lm"])
    return path


def call(command):
    """Run a compiler; show what it says where it fails."""
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stderr}"


@functools.cache
def built(name, folder):
    """Return the program of a build, compiled once for the run; skip where its tools are missing."""
    build = BUILDS[name]
    skip_without(build)
    place = folder / name
    place.mkdir()
    return Program(compile_program(build, place), build.emulator)
