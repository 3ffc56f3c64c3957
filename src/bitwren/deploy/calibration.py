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


# results/fit.json, by `python evidence/fit.py`: least squares of relative errors over 38 programs, compiled as
# `bitwren emulate` does (-O2 -fno-expensive-optimizations) and run in QEMU; factors of products from the 12 that need
# any. Cores that cannot divide, and rv32ic, which cannot multiply, call a library, whose time hangs on the numbers.
CALIBRATION: Mapping[str, Calibration] = {
    "cortex-m0": Calibration((1.473, 1.343, 1.644, 4.547, 9.313, 113.049), (1665.434, 3.248)),
    "cortex-m3": Calibration((0.978, 0.902, 1.199, 0.793, 2.035, 0.0), (1220.955, 2.844)),
    "cortex-m4": Calibration((0.983, 0.91, 1.195, 1.087, 1.734, 0.0), (1239.62, 2.843)),
    "cortex-m7": Calibration((0.983, 0.914, 1.195, 1.072, 1.577, 0.0), (1187.739, 2.863)),
    "rv32ic": Calibration((1.025, 0.954, 13.942, 1.726, 67.738, 0.0), (1572.962, 3.178)),
}

# The most that an estimate is off, of a network that only shifts and to which the factors were not fitted: same file.
INSTRUCTIONS_OFF, CODE_OFF = 0.18, 0.30
