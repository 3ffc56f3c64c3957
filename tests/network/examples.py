"""Integer networks made by hand for tests."""

import math

import numpy as np

from bitwren.network.graph import INT16, INT32, PIXELS, Add, Conv, Network, Pool, Requantise, Sum

REQUANTISE_ENDS = [  # multiplier, offset, shift, low, high
    (1, 0, 47, -32768, 32767),  # all that is left is the sign
    (-1, 0, 47, -32768, 32767),
    (32767, 2**31 - 1, 0, *INT32),  # beyond int32 before the clamp
    (-32767, -(2**31), 0, *INT32),
    (-32767, -(2**31), 1, *INT32),
    (1, 0, 0, 300, 400),  # never reached: constant
    (1, 0, 0, -(2**31), -(2**31)),
    (1, 0, 40, 2**31 - 1, 2**31 - 1),
    (-3, 1, 1, -5, 100),
]


def requantise(name, x, multiplier=1, offset=0, shift=0, low=INT16[0], high=INT16[1], zero=None):
    """Return a requantise; multiplier and offset may be numbers or lists."""
    m, b = np.atleast_1d(multiplier).astype(np.int16), np.atleast_1d(offset).astype(np.int32)
    return Requantise(name, x, m, b, shift, low, high, zero)


def conv(name, x, weights, stride=1, padding=(0, 0, 0, 0), bits=1):
    """Return a conv; weights: (out, F, F, in), or an int: 1x1 weights of one, that many channels to that many."""
    if isinstance(weights, int):
        weights = np.where(np.eye(weights), 1, -1)[:, None, None, :]
    return Conv(name, x, np.asarray(weights).astype(np.int8), bits, stride, padding)


def network(shape, *nodes, zero=0, classes=None, scale=1.0, about=None):
    """Return a network of these nodes. shape: of the pixels. zero: a number or one per channel."""
    zero = np.broadcast_to(np.asarray(zero), shape[:1]).astype(np.int64)
    classes = 1 if classes is None else classes
    names = tuple(f"class {k}" for k in range(classes))
    return Network(*shape, zero, tuple(nodes), names, scale, {} if about is None else about)


def int32_limit(sign=1, over=False):
    """Return a network whose one sum reaches sign * (2**31 - 1) where all pixels are 255; over: could reach 2**31.

    255 * a + 128 * b is 2**31 - 1 for a, b = 8421377, 254, and 2**31 for 8421504, 1: the magnitudes of the weights of a
    channel with zero point 0, and of one with zero point 127.
    """
    side = 258
    weights = np.zeros((1, side, side, 2), np.int8)
    for channel, total in enumerate((8421504, 1) if over else (8421377, 254)):
        flat = np.zeros(side * side, np.int64)
        flat[: total // 127] = 127
        flat[total // 127] = total % 127
        weights[0, :, :, channel] = sign * flat.reshape(side, side)
    return network((2, side, side), conv("conv", PIXELS, weights, bits=8), zero=[0, 127])


def requantise_ends(multiplier, offset, shift, low, high):
    """Return a network with such a requantise of numbers from -128 to 127, and pictures of the ends."""
    nodes = [requantise("a", PIXELS, 1, -128), requantise("r", "a", multiplier, offset, shift, low, high)]
    nodes += [requantise("k", "r", 0), Add("t", ("a", "k")), Pool("p", "t", "max", (1, 1, 1, 1), 1)]
    return network((1, 1, 2), *nodes), np.array([[[[0, 255]]], [[[127, 128]]], [[[129, 1]]]], np.uint8)


def wide_resnet(depth=8, width=1.0, size=32, classes=10, pool="binomial", shift_only=True, seed=0):
    """Return a wide residual network of the papers' shape with random one-bit weights, 8-bit codes."""
    rng, nodes = np.random.default_rng(seed), []

    def append(node):
        nodes.append(node)
        return node.name

    def convolve(name, x, out, window, channels, stride=1):
        weights = rng.choice([-1, 1], (out, window, window, channels))
        return append(conv(name, x, weights, stride, (window // 2,) * 4))

    def scale(name, x, fan_in, codes):
        shift = max(0, round(math.log2(math.sqrt(fan_in))))
        multiplier, shift = (1, shift) if shift_only else (23171, shift + 14)
        zero, low, high = (32, 0, 255) if codes else (None, *INT16)
        offset = (1 << shift >> 1) + ((zero or 0) << shift)
        return append(requantise(name, x, multiplier, offset, shift, low, high, zero))

    channels = [max(1, round(16 * width * 2**k)) for k in range(3)]
    x = scale("stem.stream", convolve("stem", PIXELS, channels[0], 3, 3), 27, codes=False)
    before = channels[0]
    for stage, out in enumerate(channels):
        for block in range((depth - 2) // 6):
            name, stride = f"{stage}.{block}", 2 if stage and not block else 1
            y = convolve(f"{name}.conv1", scale(f"{name}.act1", x, 64, codes=True), out, 3, before, stride)
            y = convolve(f"{name}.conv2", scale(f"{name}.act2", y, 9 * before, codes=True), out, 3, out)
            y = scale(f"{name}.stream", y, out / 4, codes=False)
            if stride == 2:
                x = append(Pool(f"{name}.pool", x, pool, (1, 1, 1, 1), out))
            x, before = append(Add(f"{name}.add", (x, y))), out
    append(Sum("scores", convolve("head", scale("head.act", x, 64, codes=True), classes, 1, before)))
    return network((3, size, size), *nodes, zero=[125, 123, 114], classes=classes, scale=2.0**-12)


def pictures(network, count, seed):
    """Return random pictures, uint8 (count, C, H, W)."""
    shape = network.tensors[PIXELS].shape
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)
