"""Pictures for the self-test of a generated program: random bytes that the program makes itself."""

import numpy as np

from bitwren.deploy.generate_c.constants import literal
from bitwren.network.graph import PIXELS, Network
from bitwren.network.reference import run

SEEDS = (1, 2463534242, 88675123)


def selftest(network: Network) -> list[tuple[int, list[str]]]:
    """Return the seed of each picture, and its scores as C writes them."""
    scores = run(network, np.stack([picture(network.tensors[PIXELS].shape, seed) for seed in SEEDS]))
    return [(seed, [literal("int32_t", int(score)) for score in one]) for seed, one in zip(SEEDS, scores, strict=True)]


def picture(shape: tuple[int, int, int], seed: int) -> np.ndarray:
    """Return the picture of a seed, uint8 (C, H, W): the high bytes of xorshift32, pixel after pixel."""
    channels, height, width = shape
    values, x = np.empty(channels * height * width, np.uint8), seed
    for k in range(len(values)):
        x ^= x << 13 & 0xFFFFFFFF
        x ^= x >> 17
        x ^= x << 5 & 0xFFFFFFFF
        values[k] = x >> 24
    return values.reshape(height, width, channels).transpose(2, 0, 1)
