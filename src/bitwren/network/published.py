"""The authors' released 1-bit networks: their MATLAB files, read into a folded network and made integer.

What a file holds (github.com/McDonnell-Lab/1-bit-per-weight), in its order: `batch_normalization_*` (4, C): gamma,
beta, mean and variance of the input's batch norm; then in turn a `conv2d*` (1, F, F, C, K) of 0 and 1, and a
`batch_normalization*` (2, K): the mean and variance of what that convolution, or the residual sum, gives. The networks
are wide ResNets with TensorFlow's padding, fixed batch norms and no shifted ReLU; the pixels are raw 0..255.
"""

import math
from pathlib import Path

import numpy as np

from bitwren.errors import ModelError, UsageError
from bitwren.network.folded import Affine, FoldedBlock, FoldedConv, FoldedNetwork, fold_batch_norm
from bitwren.network.graph import Network
from bitwren.network.quantise import Scales, activation_names, quantise, stream_exponent

EPSILON = 1e-5
SIZE = 32  # all of the released networks read 32 x 32 pictures
CODE_REACH = (
    10.0  # standard deviations of a batch norm's output that the codes cover; see results/published-network.json
)
STREAM_REACH = 12.0  # standard deviations of the residual stream that int16 covers
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def read_published(path: str | Path, classes: tuple[str, ...] | None = None) -> FoldedNetwork:
    """Return the network in one of the authors' files.

    classes: names, one for each output; by default CIFAR-10's for ten, else "0", "1", ...
    Raises ModelError naming the file and the layer for anything that is not such a network.
    """
    try:
        from scipy.io import loadmat
    except ImportError:
        raise UsageError("reading MATLAB files needs SciPy: pip install 'bitwren[train]'") from None
    try:
        arrays = {k: v for k, v in loadmat(str(path)).items() if not k.startswith("__")}
    except Exception as error:  # SciPy meets damaged files with almost any exception
        raise ModelError(
            f"{path}: cannot be read as a MATLAB file ({str(error).splitlines()[0] if str(error) else error!r})"
        ) from None
    try:
        return _folded(arrays, classes)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None


def _folded(arrays: dict[str, np.ndarray], classes: tuple[str, ...] | None) -> FoldedNetwork:
    names = list(arrays)
    count = (len(names) - 1) // 2  # convolutions
    if len(names) % 2 == 0 or count < 8 or (count - 2) % 6:
        raise ModelError(f"{len(names)} arrays, expected 1 + 2 (6n + 2): the input's moments, then pairs")
    weights = [_signs(name, arrays[name]) for name in names[1::2]]
    moments = [_moments(name, arrays[name], 2) for name in names[2::2]]
    first = _moments(names[0], arrays[names[0]], 4)
    # moments[i] belongs to what follows convolution i: after the stem and each second convolution of a block that is
    # the residual sum, so norm 1 of a block is that of the convolution before the block.
    for i, (w, m) in enumerate(zip(weights, moments, strict=True)):
        reads = weights[i - 1].shape[0] if i else first.shape[1]
        if w.shape[3] != reads or m.shape[1] != w.shape[0]:
            raise ModelError(
                f"{names[1 + 2 * i]}: {w.shape[3]} channels in, {w.shape[0]} out, expected {reads} in and "
                f"{m.shape[1]} out"
            )
    norms = [fold_batch_norm(m[0], m[1], EPSILON) for m in moments]
    per_stage = (count - 2) // 6
    convs = [
        FoldedConv(w, math.sqrt(2.0 / w[0].size), 1, 2 if i in (1 + 2 * per_stage, 1 + 4 * per_stage) else 1, True)
        for i, w in enumerate(weights)
    ]
    blocks = tuple(
        FoldedBlock(
            norms[i - 1],
            convs[i],
            norms[i],
            convs[i + 1],
            "identity" if convs[i].stride == 1 else "mean-real",
            weights[i].shape[0] - weights[i].shape[3],
        )
        for i in range(1, count - 1, 2)
    )
    for index, block in enumerate(blocks, 1):
        if block.new_channels < 0 or (block.pool == "identity" and block.new_channels):
            raise ModelError(f"block {index}: {block.new_channels} new channels do not fit its stride")
    outputs = weights[-1].shape[0]
    classes = classes or (CIFAR10 if outputs == 10 else tuple(map(str, range(outputs))))
    if len(classes) != outputs:
        raise ModelError(f"{len(classes)} class names, expected {outputs}")
    pixels = fold_batch_norm(first[2], first[3], EPSILON, first[0], first[1])
    return FoldedNetwork(
        first.shape[1], SIZE, SIZE, pixels, None, convs[0], False, blocks, norms[-2], convs[-1], norms[-1], 1.0, classes
    )


def _signs(name: str, array: np.ndarray) -> np.ndarray:
    """Return weights of +1 and -1, int8 (K, F, F, C), from 0 and 1, (1, F, F, C, K)."""
    if array.ndim != 5 or array.shape[0] != 1 or array.shape[1] != array.shape[2] or 0 in array.shape:
        raise ModelError(f"{name}: {array.shape}, expected (1, F, F, C, K)")
    if array.dtype.kind not in "uib" or array.min() < 0 or array.max() > 1:
        raise ModelError(f"{name}: {array.dtype} weights, expected whole numbers 0 and 1")
    return (2 * array[0].astype(np.int8) - 1).transpose(3, 0, 1, 2)


def _moments(name: str, array: np.ndarray, rows: int) -> np.ndarray:
    if array.ndim != 2 or array.shape[0] != rows or array.dtype.kind != "f" or not np.isfinite(array).all():
        raise ModelError(f"{name}: {array.dtype} {array.shape}, expected finite numbers ({rows}, C)")
    if array[-1].min() < 0:
        raise ModelError(f"{name}: variance {array[-1].min()}, expected at least 0")
    return array.astype(np.float64)


def published_scales(network: FoldedNetwork, bits: int = 8) -> Scales:
    """Return scales that need no pictures: a batch norm's output has mean 0 and deviation 1, and the moments of the
    norm that reads the residual stream say how far the stream reaches."""
    steps = dict.fromkeys(activation_names(network), CODE_REACH / (2**bits - 1))
    reading = [block.norm1 for block in network.blocks] + [network.norm]
    names = ["stem"] + [f"block{i}" for i in range(1, len(network.blocks) + 1)]
    exponents = {name: stream_exponent(_reach(norm), 1.0) for name, norm in zip(names, reading, strict=True)}
    return Scales(bits, steps, exponents)


def _reach(norm: Affine) -> float:
    """Return the largest |mean| + STREAM_REACH deviations of what a folded batch norm reads."""
    return float(((np.abs(norm.bias) + STREAM_REACH) / np.abs(norm.gain)).max())


def import_published(path: str | Path, bits: int = 8, classes: tuple[str, ...] | None = None) -> Network:
    """Return the integer network of one of the authors' files. Raises ModelError as read_published does."""
    folded = read_published(path, classes)
    about = {"source": Path(path).name, "published": "McDonnell-Lab/1-bit-per-weight (MIT)", "bits": bits}
    return quantise(folded, published_scales(folded, bits), about)
