"""The oracle: plain NumPy, one function per kind of node, written to be read beside docs/integer-network.md.

Every value is computed in int64 (a convolution by way of float64, which holds every whole number below 2**53 and so
every partial sum of an int32, in whatever order the library adds), and checked against the range that the graph
promises for its tensor: a value outside is an error here, never a wrap.
"""

import numpy as np

from bitwren.errors import ModelError
from bitwren.network.graph import BINOMIAL, INT16, PIXELS, Add, Conv, Network, Pool, Requantise, Sum


def run_all(network: Network, pixels: np.ndarray) -> dict[str, np.ndarray]:
    """Return every tensor of the network, by name, for pictures: int64 (N, C, H, W); the logits are (N, classes, 1, 1).

    pixels: uint8 (N, channels, height, width). Raises ModelError for another shape or type.
    """
    check_pixels(network, pixels)
    values = {PIXELS: pixels.astype(np.int64)}
    for node in network.nodes:
        match node:
            case Conv():
                result = conv(values[node.input], network.tensors[node.input].zero, node)
            case Requantise():
                result = requantise(values[node.input], node)
            case Add():
                result = np.clip(values[node.inputs[0]] + values[node.inputs[1]], *INT16)
            case Pool():
                result = pool(values[node.input], node)
            case Sum():
                result = values[node.input].sum((2, 3), keepdims=True)
        promised = network.tensors[node.name]
        if result.size and not promised.low <= result.min() <= result.max() <= promised.high:
            raise ModelError(f"{node.name}: {result.min()}..{result.max()}, promised {promised.low}..{promised.high}")
        values[node.name] = result
    return values


def check_pixels(network: Network, pixels: np.ndarray) -> None:
    """Raise ModelError unless these are pictures for the network, uint8 (N, channels, height, width).

    Of the network, only channels, height and width are looked at.
    """
    shape = network.channels, network.height, network.width
    is_array = isinstance(pixels, np.ndarray)
    if not is_array or pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[1:] != shape:
        got = f"{pixels.dtype} {pixels.shape}" if is_array else type(pixels).__name__
        raise ModelError(f"pixels {got}, expected uint8 (N, {', '.join(map(str, shape))})")


def run(network: Network, pixels: np.ndarray) -> np.ndarray:
    """Return the logits, int32 (N, classes), of pictures uint8 (N, channels, height, width)."""
    return run_all(network, pixels)[network.logits][:, :, 0, 0].astype(np.int32)


def _windows(x: np.ndarray, window: int, stride: int) -> np.ndarray:
    """Return every window of padded x (N, C, H, W) as a view (N, C, H', W', window, window)."""
    views = np.lib.stride_tricks.sliding_window_view(x, (window, window), (2, 3))
    return views[:, :, ::stride, ::stride]


def _padded(x: np.ndarray, padding: tuple[int, int, int, int], value: int) -> np.ndarray:
    top, left, bottom, right = padding
    return np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=value)


def conv(x: np.ndarray, zero: np.ndarray, node: Conv) -> np.ndarray:
    """sum over the window and the channels of weight * (code - zero); padding has the code zero, so it adds nothing."""
    centred = _padded(x - zero[:, None, None], node.padding, 0)
    windows = _windows(centred, node.weights.shape[1], node.stride)  # (N, C, H', W', F, F)
    sums = np.tensordot(windows.astype(np.float64), node.weights.astype(np.float64), ((1, 4, 5), (3, 1, 2)))
    return sums.transpose(0, 3, 1, 2).astype(np.int64)


def requantise(x: np.ndarray, node: Requantise) -> np.ndarray:
    """clamp((multiplier * x + offset) >> shift, low, high); >> rounds towards minus infinity."""
    multiplier = node.multiplier.astype(np.int64)[:, None, None]
    offset = node.offset.astype(np.int64)[:, None, None]
    return np.clip((multiplier * x + offset) >> node.shift, node.low, node.high)


def pool(x: np.ndarray, node: Pool) -> np.ndarray:
    """The 3 x 3 window of the node's kind, moved by 2; then zero channels."""
    if node.kind == "max":
        result = _windows(_padded(x, node.padding, INT16[0]), 3, 2).max((4, 5))
    else:
        windows = _windows(_padded(x, node.padding, 0), 3, 2)
        if node.kind == "binomial":
            result = ((windows * BINOMIAL).sum((4, 5)) + 8) >> 4
        else:
            count = 9
            if node.kind == "mean-real":
                count = _windows(_padded(np.ones_like(x[:1, :1]), node.padding, 0), 3, 2).sum((4, 5))
            result = (2 * windows.sum((4, 5)) + count) // (2 * count)  # half up; // rounds towards minus infinity
    return np.pad(result, ((0, 0), (0, node.channels - x.shape[1]), (0, 0), (0, 0)))
