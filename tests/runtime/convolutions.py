"""Convolutions made for the kernels: every size beside a tile's, every window, weights and codes that fill the sums."""

import itertools

import numpy as np
from network.examples import conv, network, requantise
from runtime.cases import pictures_for

from bitwren.network.graph import _CHECKS, INT32, PIXELS, Add, Sum, Tensor, inputs_of

# Vectors hold 16 pixels, one of each block of a grid, and a tile is 1, 2 or 4 vectors high: 1, tile - 1, tile, tile + 1
# and 2 tiles + 1 of each, in pixels.
SIDES = (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33)
CHANNELS = (1, 3, 4, 5, 6, 8, 9, 10, 11, 15, 16, 17, 20, 21, 31, 41)  # groups are of 4 or 5, sets of up to 6 groups
OUTPUTS = (1, 2, 3, 4, 5, 7, 8, 9, 16, 17)
WINDOWS = (1, 2, 3, 3, 3, 5, 7)
CODES = ((0, 255, 0), (0, 255, 32), (0, 511, 0), (0, 511, 511), (0, 511, 200), (3, 200, 100), (7, 7, 7))


def signs(rng, shape, style):
    """Return weights of one bit: at random, all of one sign, alternating, or one +1 among -1 for each output."""
    size = int(np.prod(shape))
    if style == "one-hot":
        weights = np.full((shape[0], size // shape[0]), -1)
        weights[np.arange(shape[0]), rng.integers(0, size // shape[0], shape[0])] = 1
        return weights.reshape(shape)
    flat = {
        "random": lambda: rng.choice([-1, 1], size),
        "plus": lambda: np.ones(size),
        "minus": lambda: -np.ones(size),
        "turns": lambda: np.where(np.arange(size) % 2, -1, 1),
    }[style]()
    return flat.astype(np.int64).reshape(shape)


STYLES = ("random", "one-hot", "plus", "random", "minus", "turns")


def cycled(rng, values, count):
    """Return `count` of the values, each about equally often, in any order."""
    return [values[k] for k in rng.permutation(np.resize(np.arange(len(values)), count))]


def fitting_padding(rng, side, window):
    """Return padding (before, after) below the window, so that it fits at least once."""
    for _ in range(100):
        before, after = rng.integers(0, window, 2).tolist()
        if side + before + after >= window:
            return before, after
    return window - 1, window - 1


def to_codes(name, x, channels, low, high, zero, rng, shift=0):
    """Return a requantise with an offset for each channel."""
    return requantise(name, x, 1, rng.integers(low, high + 1, channels), shift, low, high, zero)


def convolutions(count, seed, bits=1, windows=WINDOWS, channels=CHANNELS):
    """Yield networks of one convolution under test, its shape drawn so that every value of every size comes up.

    Half end in the sum of its sums; half go on to codes and a second convolution that sees every position."""
    rng = np.random.default_rng(seed)
    columns = [cycled(rng, v, count) for v in (SIDES, SIDES, channels, OUTPUTS, windows, (1, 2), CODES, STYLES)]
    for k, (height, width, inputs, outputs, window, stride, codes, style) in enumerate(zip(*columns, strict=True)):
        while window * window * inputs * height * width > 120_000:  # keeps the reference quick
            height, width = max(1, height // 2), max(1, width // 2)
        (top, bottom), (left, right) = fitting_padding(rng, height, window), fitting_padding(rng, width, window)
        shape, padding = (outputs, window, window, inputs), (top, left, bottom, right)
        weights = signs(rng, shape, style) if bits == 1 else rng.integers(-127, 128, shape)
        if bits == 8 and style in ("plus", "minus"):
            weights = np.full(shape, 127 if style == "plus" else -127)
        nodes, x = [], PIXELS
        if k % 3:
            nodes.append(to_codes("codes", x, inputs, *codes, rng))
            x = "codes"
        nodes.append(conv("conv", x, weights, stride, padding, bits))
        zeros = rng.integers(0, 256, inputs) if k % 2 else 0
        name = f"{window}x{window}/{stride} {bits}b {inputs}>{outputs} {height}x{width} pad {padding} {style} #{k}"
        made = ending(nodes, (inputs, height, width), outputs, rng, zeros, both=k % 4 > 1)
        pictures = {0: 33, 5: 17}.get(k % 10, 3 + k % 3)  # mostly a few, now and then enough to fill the lanes twice
        yield name, made, pictures_for(made, pictures, int(rng.integers(2**32)))


def result_of(nodes, shape, zeros):
    """Return what the graph knows of the last node's result."""
    tensors = {PIXELS: Tensor(shape, 0, 255, np.broadcast_to(zeros, shape[:1]))}
    for node in nodes:
        tensors[node.name] = _CHECKS[type(node)](node, node.name, *(tensors[x] for x in inputs_of(node)))
    return tensors[nodes[-1].name]


def ending(nodes, shape, outputs, rng, zeros, both):
    """Return a network that ends in the sum of the last node's sums; both: in codes of them and another convolution."""
    last = nodes[-1].name
    result = result_of(nodes, shape, zeros)
    reach, (_, height, width) = max(result.high, 1), result.shape
    if both:
        more = [to_codes("after", last, outputs, 0, 255, 128, rng, max(0, reach.bit_length() - 9))]
        more.append(conv("second", "after", signs(rng, (3, 3, 3, outputs), "random"), 1, (1, 1, 1, 1)))
        return network(shape, *nodes, *more, Sum("logits", "second"), zero=zeros, classes=3)
    if reach * height * width > INT32[1]:
        nodes = [*nodes, requantise("less", last, 1, 0, 8, *INT32)]
    return network(shape, *nodes, Sum("logits", nodes[-1].name), zero=zeros, classes=outputs)


def int16_boundaries():
    """Yield sums that meet, miss and pass 32767 by one where int16 sums have to be given up, both signs."""
    totals = (32766, 32767, 32768, 65533, 65534, 65535)
    for total, (window, inputs) in itertools.product(totals, ((3, 31), (1, 270), (5, 11))):
        taps = window * window * inputs
        for zero, style in ((0, "plus"), (0, "minus"), (255, "plus")):
            values = np.zeros(taps, np.int64)
            full = min(total // 255, taps)
            values[:full] = 255
            if full < taps:
                values[full] = total - 255 * full
            picture = values.reshape(window, window, inputs).transpose(2, 0, 1)[None]
            pictures = np.concatenate([picture, picture[:, ::-1]]).astype(np.uint8)
            if zero:
                pictures = 255 - pictures
            weights = signs(np.random.default_rng(0), (4, window, window, inputs), style)
            nodes = [conv("conv", PIXELS, weights), Sum("logits", "conv")]
            name = f"int16 {total} {window}x{window} {inputs} zero {zero} {style}"
            yield name, network((inputs, window, window), *nodes, zero=zero, classes=4), pictures


def full_codes():
    """Yield codes of 8 and 9 bits at their end under weights of one sign: the most that few taps can reach."""
    for most, window, inputs, stride in itertools.product((255, 511), (1, 3, 5), (5, 12, 61), (1, 2)):
        height, width = (9, 10) if most > 255 else (8, 8)
        for zero, style in ((0, "plus"), (most, "minus")):
            low_or_high = requantise("codes", PIXELS, most, 0, 0, 0, most, zero)
            weights = signs(np.random.default_rng(1), (5, window, window, inputs), style)
            pad = (window // 2,) * 4
            nodes = [low_or_high, conv("conv", "codes", weights, stride, pad), Sum("logits", "conv")]
            made = network((inputs, height, width), *nodes, classes=5)
            yield f"{most} {window}x{window}/{stride} {inputs} zero {zero} {style}", made, pictures_for(made, 6, inputs)


def int32_sums(scale):
    """Yield sums near int32: many pixels or wide windows of one-bit and eight-bit weights."""
    most = INT32[1] // 255 // 127  # weights of 127: 66,311
    few, many = [(1, 16, 8), (1, 17, 3), (8, 16, most // 256)], [(8, 3, most // 9), (8, 1, 2**15), (1, 16, 2**15)]
    for bits, window, inputs in few + many if scale > 1 else few:
        largest = 1 if bits == 1 else 127
        for sign in (1, -1):
            weights = np.full((2, window, window, inputs), sign * largest)
            nodes = [conv("conv", PIXELS, weights, bits=bits), requantise("out", "conv", low=INT32[0], high=INT32[1])]
            made = network((inputs, window, window), *nodes, classes=2)
            yield f"int32 {bits}b {window}x{window} {inputs} {sign}", made, pictures_for(made, 3, 5)


def negatives():
    """Yield sums that just fit int16 where halved tables do not owe anything, for groups of 5 and of 6 channels."""
    for group, total in itertools.product((5, 6), (10910, 10914, 10918, 10919, 10920, 10921, 10922)):
        taps, inputs = 9 * group, 7 * group  # seven sets that reach `total` each, so three of them nearly 32767
        each = np.full(taps, total // taps)
        each[: total % taps] += 1
        picture = np.tile(each.reshape(group, 3, 3), (7, 1, 1))[None]
        for zero, style in ((0, "minus"), (0, "plus"), (255, "plus")):
            pictures = (255 - picture if zero else picture).astype(np.uint8)
            weights = signs(np.random.default_rng(0), (32, 3, 3, inputs), style)
            nodes = [conv("conv", PIXELS, weights, 1, (1, 1, 1, 1)), Sum("logits", "conv")]
            made = network((inputs, 3, 3), *nodes, zero=zero, classes=32)
            yield f"negatives {group} {total} zero {zero} {style}", made, pictures


def zeros_out_of_reach():
    """Yield codes that never reach their zero point: of a byte, where the zero point is not."""
    rng = np.random.default_rng(3)
    for zero, (window, stride) in itertools.product(
        (0, 200, 255, 256, 300, 511), ((1, 1), (3, 1), (3, 2), (5, 1), (18, 1))
    ):
        nodes = [
            requantise("codes", PIXELS, 1, 0, 1, 0, 511, zero),
            requantise("less", "codes", 1, 5, 1, 3, 511, zero | 3),
        ]
        nodes.append(conv("conv", "codes", signs(rng, (4, window, window, 3), "random"), stride, (window // 2,) * 4))
        nodes.append(conv("other", "less", signs(rng, (4, 1, 1, 3), "random"), stride, bits=8))
        nodes += [
            requantise("a", "conv", 1, 0, 4),
            requantise("b", "other"),
            Add("add", ("a", "b")),
            Sum("logits", "add"),
        ]
        if window == 18:  # wider than the picture and its padding on one side allow: the other convolution stays alone
            nodes = [nodes[0], nodes[2], Sum("logits", "conv")]
        made = network((3, 7, 9), *nodes, classes=4)
        yield f"zero {zero} {window}x{window}/{stride}", made, pictures_for(made, 5, zero)
