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
    "cortex-m0": Calibration((1.448, 1.968, 1.332, 1.625, 5.351, 9.65, 84.864), (1757.484, 3.168)),
    "cortex-m3": Calibration((0.964, 1.503, 0.895, 1.191, 1.252, 1.942, 0.0), (1327.772, 2.723)),
    "cortex-m4": Calibration((0.971, 1.494, 0.904, 1.188, 1.488, 1.643, 0.0), (1342.714, 2.72)),
    "cortex-m7": Calibration((0.969, 1.513, 0.907, 1.186, 1.54, 1.538, 0.0), (1285.089, 2.744)),
    "rv32ic": Calibration((1.019, 1.494, 0.951, 13.921, 1.962, 69.721, 0.0), (1686.289, 3.055)),
}

# The most that an estimate is off, of a network that only shifts and to which the factors were not fitted: same file.
INSTRUCTIONS_OFF, CODE_OFF = 0.26, 0.27
