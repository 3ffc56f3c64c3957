"""A trained float network with everything constant folded away: what conversion to integers starts from.

Both sources give this one form: a run of bitwren (convert.py) and the authors' released networks (published.py).
Real values throughout; every array is NumPy.
"""

import dataclasses

import numpy as np

Padding = tuple[int, int, int, int]  # top, left, bottom, right


@dataclasses.dataclass(frozen=True, eq=False)
class FoldedConv:
    """weights (channels out, F, F, channels in) times scale: int8 of +1 and -1 where bits is 1, else float64."""

    weights: np.ndarray
    scale: float
    bits: int  # 1 or 32
    stride: int
    same: bool  # TensorFlow's padding; else F // 2 on every side

    def padding(self, height: int, width: int) -> Padding:
        """Return the padding for pictures of that size."""
        return window_padding(self.weights.shape[1], self.stride, self.same, height, width)


@dataclasses.dataclass(frozen=True, eq=False)
class Affine:
    """gain * x + bias for each channel, both float64 (C,): a batch norm with its moments folded."""

    gain: np.ndarray
    bias: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Centre:
    """x - mean for each channel, float64 (C,), before a shifted ReLU."""

    mean: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class FoldedBlock:
    """One block. norm1, norm2: batch norm and ReLU; or, for Centre and None, the shifted ReLU with it and without.

    pool: a kind of graph.Pool where the skip path halves the picture, "identity" where it does not, None in a plain
    network. new_channels: zero channels that the skip path appends.
    """

    norm1: Affine | Centre | None
    conv1: FoldedConv
    norm2: Affine | Centre | None
    conv2: FoldedConv
    pool: str | None
    new_channels: int


@dataclasses.dataclass(frozen=True, eq=False)
class FoldedNetwork:
    """The whole network for pictures (channels, height, width).

    pixels: Affine from raw pixels 0..255 to what the stem reads. whole_zero: the pixels' zero points (C,) int where
    that affine is (x - zero) * 2**-k for every channel, so that the stem can read the pixels themselves; else None.
    max_pool: whether a 3 x 3 max pool of stride 2 follows the stem. head_norm: batch norm after the head, or None.
    temperature: divides the logits.
    """

    channels: int
    height: int
    width: int
    pixels: Affine
    whole_zero: np.ndarray | None
    stem: FoldedConv
    max_pool: bool
    blocks: tuple[FoldedBlock, ...]
    norm: Affine | Centre | None
    head: FoldedConv
    head_norm: Affine | None
    temperature: float
    classes: tuple[str, ...]


def fold_batch_norm(mean, variance, epsilon: float, gamma=1.0, beta=0.0) -> Affine:
    """Return the affine of a batch norm with these moments, each (C,)."""
    gain = np.asarray(gamma, np.float64) / np.sqrt(np.asarray(variance, np.float64) + epsilon)
    gain = np.broadcast_to(gain, np.shape(mean)).copy()
    return Affine(gain, np.asarray(beta, np.float64) - gain * np.asarray(mean, np.float64))


def window_padding(window: int, stride: int, same: bool, height: int, width: int) -> Padding:
    """Return the padding of a window: TensorFlow's "same", or window // 2 on every side."""
    if not same:
        return (window // 2,) * 4
    (top, bottom), (left, right) = (_same(size, window, stride) for size in (height, width))
    return top, left, bottom, right


def _same(size: int, window: int, stride: int) -> tuple[int, int]:
    total = max((-(-size // stride) - 1) * stride + window - size, 0)
    return total // 2, total - total // 2
