"""Generated C -> an image that boots: cross compiled, linked for the first machine of the core that it fits."""

import hashlib
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path

from bitwren.deploy.emulate.cores import Core, Machine
from bitwren.deploy.emulate.tools import find_tool, run_tool
from bitwren.errors import ToolError

# -fno-jump-tables: so that the goal of each jump stands in the instruction, for the certificate and the stack's bound.
# -fno-expensive-optimizations: with them, GCC makes a sum and a doubling into a multiply-accumulate (smlabb on
# Cortex-M4 and M7); without, this code is also smaller and no slower, on every core.
FLAGS = ("-O2", "-fno-expensive-optimizations", "-std=c99", "-ffreestanding", "-fno-jump-tables")
FLAGS += ("-ffunction-sections", "-fdata-sections")
_KEPT = tuple(f"-Wl,--undefined=network_{name}" for name in ("begin", "row", "end"))  # to be certified, called or not
_BOARD = ("-O2", "-std=gnu11", "-ffreestanding", "-fno-tree-loop-distribute-patterns")  # else memset calls itself


@dataclass(frozen=True)
class Image:
    """A linked image. flags: the network was compiled with; object_sha256: of the network's object file.

    symbols: address of each symbol. frames: bytes of stack of each of the network's functions, by the compiler's
    report; None where it gives no bound.
    """

    path: Path
    core: Core
    machine: Machine
    compiler: str
    flags: tuple[str, ...]
    object_sha256: str
    symbols: Mapping[str, int]
    frames: Mapping[str, int | None]

    def span(self, start: str, end: str) -> int:
        """Return the bytes between two symbols."""
        return self.symbols[end] - self.symbols[start]


def compiler_version(core: Core) -> str:
    """Return name and version of the core's compiler. Raises ToolError where it is not installed."""
    compiler = find_tool(f"{core.tools}gcc")
    return f"{core.tools}gcc {run_tool([compiler, '-dumpfullversion']).strip()}"


def build(
    core: Core, sources: Mapping[str, bytes], folder: Path, flags: Iterable[str] = (), selftest: bool = False
) -> Image:
    """Compile and link in a folder, which is made. sources: network.h and network.c, by name.

    flags: of the network's compilation, after FLAGS, so that -O3 or -Os replaces what they say.
    selftest: with network_selftest, which the image then calls; its pictures are given to the network row by row.
    Raises ToolError for a compiler that is missing or refuses, or an image that fits no machine of the core.
    """
    compiler = find_tool(f"{core.tools}gcc")
    version = compiler_version(core)
    flags = (*core.flags, *FLAGS, *flags)
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in sources.items():
        (folder / name).write_bytes(content)
    with as_file(files("bitwren.deploy.emulate") / "board") as board:
        shutil.copytree(board, folder, dirs_exist_ok=True)
    defined = ["-DNETWORK_SELFTEST"] if selftest else []
    run_tool([compiler, *flags, *defined, "-fstack-usage", "-c", "network.c", "-o", "network.o"], folder)
    for name in ("main", "memory"):
        run_tool([compiler, *core.flags, *_BOARD, *defined, "-c", f"{name}.c", "-o", f"{name}.o"], folder)
    machine = _link(core, compiler, folder)
    symbols = {}
    for line in run_tool([find_tool(f"{core.tools}nm"), "image.elf"], folder).splitlines():
        address, _, name = line.split(maxsplit=2)
        symbols[name] = int(address, 16)
    content = (folder / "network.o").read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    frames = _read_frames((folder / "network.su").read_text(encoding="utf-8"))
    return Image(folder / "image.elf", core, machine, version, flags, digest, symbols, frames)


def _link(core: Core, compiler: str, folder: Path) -> Machine:
    """Link for the first machine that the image fits, and return it."""
    objects = ["network.o", "main.o", "memory.o", "-lgcc", "-o", "image.elf"]
    for machine in core.machines:
        memory = "".join(
            f"    {name} ({rights}) : ORIGIN = {start:#x}, LENGTH = {size:#x}\n"
            for name, rights, (start, size) in (("FLASH", "rx", machine.flash), ("RAM", "rwx", machine.ram))
        )
        (folder / "memory.ld").write_text(f"MEMORY\n{{\n{memory}}}\n", encoding="utf-8")
        words = ["-nostdlib", "-static", "-Wl,--gc-sections,-Map=image.map", "-Wl,--no-warn-rwx-segments", *_KEPT]
        try:
            run_tool([compiler, *core.flags, *words, "-T", "image.ld", *objects], folder)
        except ToolError as error:
            if "overflowed" not in str(error) or machine is core.machines[-1]:
                raise
        else:
            return machine
    raise AssertionError("a core without machines")


def _read_frames(report: str) -> dict[str, int | None]:
    """Return bytes of stack by function, from lines `file:line:column:function  bytes  static|dynamic[,bounded]`."""
    frames = {}
    for line in report.splitlines():
        place, size, kind = line.split("\t")
        frames[place.rsplit(":", 1)[1]] = None if kind == "dynamic" else int(size)
    return frames
