"""An image in QEMU: pictures in, one record a picture out."""

import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from bitwren.deploy.emulate.build import Image
from bitwren.deploy.emulate.tools import find_tool
from bitwren.errors import ToolError

# Virtual time moves by one nanosecond an instruction, so the board's clock counts instructions.
OPTIONS = ["-icount", "shift=0", "-semihosting-config", "enable=on,target=native"]
OPTIONS += ["-display", "none", "-monitor", "none", "-serial", "none"]
_LOOP = 2  # instructions a turn of the calibration
_HEADER, _RECORD = 10, 4  # words; a record's scores follow
_STALLED = 600  # seconds without a new record after which the image is taken to hang
_STATUSES = {70: "the processor met a fault", 71: "the image cannot open its files", 72: "the image cannot write"}
_DAMAGE = {1: "bytes before the arena were written", 2: "bytes after the arena were written", 4: "the stack overflowed"}


@dataclass(frozen=True)
class Records:
    """What an image measured. instructions: of a picture, float64 (N,). stack: bytes (N,). logits: int32 (N, classes).

    instructions_per_tick: of the board's counter, by calibration. selftest: what network_selftest returned.
    damage: what was written that must not be, as words. arena, declared_stack: bytes, as network.h says.
    """

    instructions: np.ndarray
    stack: np.ndarray
    logits: np.ndarray
    damage: tuple[str, ...]
    instructions_per_tick: Fraction
    selftest: int
    arena: int
    declared_stack: int


def boot(
    image: Image,
    pixels: np.ndarray,
    classes: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Records:
    """Boot once and classify all pictures. pixels: uint8 (N, bytes), in the order of the generated C.

    progress: called with the pictures done and their number.
    Raises ToolError where the emulator is missing, the image fails or hangs, or its records are not as they should be.
    """
    emulator, folder = find_tool(image.machine.emulator), image.path.parent
    (folder / "pictures").write_bytes(np.ascontiguousarray(pixels).tobytes())
    records = folder / "records"
    records.unlink(missing_ok=True)
    _run(
        [emulator, *image.machine.options, "-kernel", image.path.name, *OPTIONS],
        records,
        len(pixels),
        classes,
        progress,
    )
    return _read(records.read_bytes(), pixels, classes)


def _run(words: list[str], records: Path, count: int, classes: int, progress: Callable[[int, int], None]) -> None:
    with subprocess.Popen(
        words,
        cwd=records.parent,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        done, since = 0, time.monotonic()
        try:
            while True:
                try:
                    _, complaint = process.communicate(timeout=0.1)
                    break
                except subprocess.TimeoutExpired:
                    size = records.stat().st_size if records.exists() else 0
                    now = max(0, size // 4 - _HEADER) // (_RECORD + classes)
                    if now > done:
                        done, since = now, time.monotonic()
                        progress(done, count)
                    if time.monotonic() - since > _STALLED:
                        raise ToolError(f"picture {done} has not ended after {_STALLED} seconds") from None
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        lines = complaint.strip().splitlines()
        why = _STATUSES.get(process.returncode) or (lines[0] if lines else f"exit status {process.returncode}")
        raise ToolError(f"{Path(words[0]).name}: after {done} of {count} pictures: {why}")
    progress(count, count)


def _read(content: bytes, pixels: np.ndarray, classes: int) -> Records:
    words = np.frombuffer(content[: len(content) // 4 * 4], "<u4")
    expected = _HEADER + len(pixels) * (_RECORD + classes)
    if len(words) != expected:
        raise ToolError(f"the image wrote {len(words)} words, expected {expected}")
    header = map(int, words[:_HEADER])
    short_turns, short_ticks, long_turns, long_ticks, empty, selftest, arena, stack, pixel_bytes, scores = header
    if (pixel_bytes, scores) != (pixels.shape[1], classes):
        raise ToolError(
            f"network.h says {pixel_bytes} bytes and {scores} classes, expected {pixels.shape[1]} and {classes}"
        )
    if long_ticks <= short_ticks:
        raise ToolError(f"the board's counter stands still: {short_ticks} and {long_ticks} ticks")
    rate = Fraction(_LOOP * (long_turns - short_turns), long_ticks - short_ticks)
    table = words[_HEADER:].reshape(len(pixels), _RECORD + classes)
    ticks = (table[:, 0] + (table[:, 1].astype(np.uint64) << np.uint64(32))).astype(np.int64) - empty
    found = np.bitwise_or.reduce(table[:, 3], initial=np.uint32(0))
    return Records(
        ticks * float(rate) + 1,  # the instruction by which the empty function returned
        table[:, 2].astype(np.int64),
        table[:, _RECORD:].view("<i4").astype(np.int32),
        tuple(text for bit, text in _DAMAGE.items() if found & bit),
        rate,
        selftest,
        arena,
        stack,
    )
