"""Factors of the estimates of `bitwren fit`, by core, and where they come from."""

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Of one core. instructions: for each that `cost.py` counts, of Convolve steps, of Window steps, of all others, and
    for each multiplication. code: bytes for each operator and for each subscript of the generated C.
    """

    instructions: tuple[float, float, float, float]
    code: tuple[float, float]


# results/fit.json, by `python evidence/fit.py`: least squares of relative errors over 34 programs, compiled as
# `bitwren emulate` does (GCC 12.2, -O2 -fno-expensive-optimizations) and run in QEMU. rv32ic multiplies by a library.
CALIBRATION: Mapping[str, Calibration] = {
    "cortex-m0": Calibration((1.456, 1.320, 4.925, 6.4), (3.31, 1.62)),
    "cortex-m3": Calibration((1.456, 1.320, 4.925, 6.4), (3.31, 1.62)),
    "cortex-m4": Calibration((1.456, 1.320, 4.925, 6.4), (3.31, 1.62)),
    "cortex-m7": Calibration((1.456, 1.320, 4.925, 6.4), (3.31, 1.62)),
    "rv32ic": Calibration((1.456, 1.320, 4.925, 6.4), (3.31, 1.62)),
}
