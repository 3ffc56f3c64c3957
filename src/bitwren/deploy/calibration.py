"""Factors of the estimates of `bitwren fit`, by core, and where they come from."""

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Of one core.

    instructions: for each that `generate_c/cost.py` counts of Convolve, of Convolve whose functions are shared (size),
    of Window, Multiply and all other steps, for each multiplication of a requantise and each division of a pool.
    code: bytes of every network, and for each operator of the generated C.
    """

    instructions: tuple[float, float, float, float, float, float, float]
    code: tuple[float, float]


# results/fit.json, by `python evidence/fit.py`: least squares of relative errors over 57 programs, compiled as
# `bitwren emulate` does (-O2 -fno-expensive-optimizations) and run in QEMU; factors of products from the 18 that need
# any. Cores that cannot divide, and rv32ic, which cannot multiply, call a library, whose time hangs on the numbers.
CALIBRATION: Mapping[str, Calibration] = {
    "cortex-m0": Calibration((1.448, 1.968, 1.332, 1.628, 5.344, 9.614, 86.551), (1749.633, 3.197)),
    "cortex-m3": Calibration((0.964, 1.503, 0.896, 1.191, 1.253, 1.938, 0.0), (1307.936, 2.753)),
    "cortex-m4": Calibration((0.971, 1.494, 0.904, 1.188, 1.489, 1.644, 0.0), (1331.684, 2.745)),
    "cortex-m7": Calibration((0.969, 1.513, 0.907, 1.186, 1.546, 1.538, 0.0), (1274.206, 2.769)),
    "rv32ic": Calibration((1.019, 1.494, 0.951, 13.93, 1.964, 69.709, 0.0), (1663.474, 3.097)),
}

# The most that an estimate is off, of a network that only shifts and to which the factors were not fitted: same file.
INSTRUCTIONS_OFF, CODE_OFF = 0.26, 0.27
