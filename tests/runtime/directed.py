"""Networks made for the kernels: every size beside a tile's, every window, weights and codes that fill the sums."""

import itertools

import numpy as np
from network.examples import REQUANTISE_ENDS, conv, network, requantise, requantise_ends, wide_resnet
from runtime.cases import pictures_for

from bitwren.network.graph import _CHECKS, INT16, INT32, PIXELS, POOLS, Add, Pool, Sum, Tensor, inputs_of

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
    return rng.permutation(np.resize(np.arange(len(values)), count))


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
    pick = [cycled(rng, v, count) for v in (SIDES, SIDES, channels, OUTPUTS, windows, (1, 2), CODES, STYLES)]
    for k in range(count):
        height, width, inputs, outputs, window, stride, codes, style = (
            v[p[k]] for v, p in zip((SIDES, SIDES, channels, OUTPUTS, windows, (1, 2), CODES, STYLES), pick, strict=True)
        )
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
        yield name, ending(nodes, (inputs, height, width), outputs, rng, zeros, both=k % 4 > 1), pictures_for_case(k, rng)


def pictures_for_case(k, rng):
    """Return how many pictures and their seed: mostly a few, now and then enough to fill the lanes twice."""
    return (33 if k % 10 == 0 else 17 if k % 10 == 5 else 3 + k % 3), int(rng.integers(2**32))


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
    for total, (window, inputs) in itertools.product((32766, 32767, 32768, 65533, 65534, 65535), ((3, 31), (1, 270), (5, 11))):
        taps = window * window * inputs
        for zero, style in ((0, "plus"), (0, "minus"), (255, "plus")):
            values = np.full(taps, total // 255 if total // 255 <= taps else taps)
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
    """Yield 9-bit codes at their end under weights of one sign: the most that each sum of a few taps can reach."""
    for window, inputs, stride in itertools.product((1, 3, 5), (5, 12, 61), (1, 2)):
        for zero, style in ((0, "plus"), (511, "minus")):
            low_or_high = requantise("codes", PIXELS, 511, 0, 0, 0, 511, zero)
            weights = signs(np.random.default_rng(1), (5, window, window, inputs), style)
            pad = (window // 2,) * 4
            nodes = [low_or_high, conv("conv", "codes", weights, stride, pad), Sum("logits", "conv")]
            made = network((inputs, 9, 10), *nodes, classes=5)
            yield f"511 {window}x{window}/{stride} {inputs} zero {zero} {style}", made, pictures_for(made, 6, inputs)


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


def requantisers(seed):
    """Yield requantises of every shift, of multipliers for each channel, of wide and narrow values and ranges."""
    rng = np.random.default_rng(seed)
    for k, ends in enumerate(REQUANTISE_ENDS):
        yield (f"requantise end {k}", *requantise_ends(*ends))
    for shift in range(48):
        channels = int(rng.integers(1, 6))
        m = rng.integers(INT16[0], INT16[1] + 1, channels)
        m[0] = [3, -3, INT16[1], -INT16[1]][shift % 4]
        b = rng.integers(*INT32, channels) >> rng.choice([0, 8, 16, 30], channels)
        weights = signs(rng, (channels, 3, 3, 7), "random")
        wide = shift % 2
        nodes = [conv("conv", PIXELS, weights, 1, (1, 1, 1, 1))]
        if wide:
            nodes.append(conv_of_sums("conv", nodes, rng, channels))
        low, high = [INT16, (-100, 77), (-40000, 40000), INT32, (0, 0)][shift % 5]
        last = nodes[-1].name
        nodes.append(requantise("r", last, m.tolist(), b.tolist(), shift, low, high))
        nodes.append(requantise("narrow", "r", 1, 0, 0, *INT16))
        nodes.append(to_codes("codes", "narrow", channels, 0, 255, 9, rng, 8))
        nodes.append(conv("second", "codes", signs(rng, (2, 3, 3, channels), "random"), 1, (1, 1, 1, 1)))
        made = network((7, 6, 9), *nodes, Sum("logits", "second"), zero=rng.integers(0, 256, 7), classes=2)
        yield f"requantise shift {shift}", made, pictures_for(made, 4, shift)


def conv_of_sums(name, nodes, rng, channels):
    """Return a requantise that makes sums as wide as they can be."""
    return requantise("spread", name, [int(x) for x in rng.integers(9000, 32000, channels)], 12345, 2, *INT32)


def splits():
    """Yield wide sums and multipliers where a requantise is cut in two halves, at both ends of what that can hold."""
    for multiplier, shift, offset in itertools.product((32767, -32767, 3, 20001), (1, 8, 15, 20, 30), (0, INT32[1], INT32[0])):
        nodes = [requantise("spread", PIXELS, 16384, -(2**20), 0, *INT32), requantise("wide", "spread", 512, -1, 0, *INT32)]
        nodes.append(requantise("r", "wide", [multiplier, -multiplier], [offset, -1 - offset], shift, *INT32))
        made = network((2, 3, 5), *nodes, requantise("less", "r", 1, 0, 9, *INT32), Sum("logits", "less"), classes=2)
        yield f"split {multiplier} >> {shift} + {offset}", made, pictures_for(made, 5, shift)


def pools(seed):
    """Yield every pooling, of odd sizes, paddings and added channels, then a convolution that sees every position."""
    rng = np.random.default_rng(seed)
    for k, (kind, side) in enumerate(itertools.product(POOLS, SIDES)):
        height, width, channels = side, int(rng.choice(SIDES)), int(rng.choice([1, 3, 4, 5]))
        (top, bottom), (left, right) = fitting_padding(rng, height, 3), fitting_padding(rng, width, 3)
        more = channels + int(rng.choice([0, 0, 1, 5]))
        spread = int(rng.choice([1, 100, 256]))
        nodes = [requantise("stream", PIXELS, spread, -128 * spread, 0, *INT16)]
        nodes.append(Pool("pool", "stream", kind, (top, left, bottom, right), more))
        nodes.append(to_codes("codes", "pool", more, 0, 255, 77, rng, 4))
        nodes.append(conv("conv", "codes", signs(rng, (3, 3, 3, more), "random"), 1, (1, 1, 1, 1)))
        made = network((channels, height, width), *nodes, Sum("logits", "conv"), classes=3)
        yield f"pool {kind} {channels}>{more} {height}x{width} {(top, left, bottom, right)}", made, pictures_for(made, 3 + k % 9, k)


def sums(seed):
    """Yield sum heads: 1x1 convolutions of one and eight bits read by a sum alone, by another node too, or not at all."""
    rng = np.random.default_rng(seed)
    for bits, channels in itertools.product((1, 8), (1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 33)):
        for height, width in ((1, 1), (3, 17), (8, 8), (9, 5)):
            classes = int(rng.integers(1, 12))
            weights = signs(rng, (classes, 1, 1, channels), "random") if bits == 1 else rng.integers(-127, 128, (classes, 1, 1, channels))
            codes = to_codes("codes", PIXELS, channels, *CODES[channels % len(CODES)], rng)
            nodes = [codes, conv("head", "codes", weights, bits=bits), Sum("logits", "head")]
            made = network((channels, height, width), *nodes, classes=classes)
            yield f"sum {bits}b {channels}>{classes} {height}x{width}", made, pictures_for(made, 5 + channels, channels)


def without_convolutions():
    """Yield networks with no convolution: pixels read by a sum, an add, a pool, a requantise, or all of them."""
    shapes = [(1, 1, 1), (3, 7, 5), (2, 16, 16), (5, 33, 2)]
    for channels, height, width in shapes:
        shape, tag = (channels, height, width), f"{channels}x{height}x{width}"
        many = [
            ("sum", [Sum("s", PIXELS)]),
            ("requantise", [requantise("r", PIXELS, 3, -5, 1), Sum("s", "r")]),
            ("twice", [Add("a", (PIXELS, PIXELS)), Sum("s", "a")]),
            ("add", [requantise("r", PIXELS, -128, 9), Add("a", ("r", PIXELS)), Add("b", (PIXELS, "a")), Sum("s", "b")]),
            ("saturate", [requantise("r", PIXELS, 256, -32768), Add("a", ("r", "r")), Add("b", ("a", "r")), Sum("s", "b")]),
            ("pool", [Pool("p", PIXELS, "mean-real", (1, 1, 1, 1), channels + 1), Pool("q", "p", "max", (2, 2, 2, 2), channels + 1), Sum("s", "q")]),
            (
                "all",
                [
                    requantise("r", PIXELS, 1, -99, 0, 0, 255, 17),
                    Pool("p", PIXELS, "binomial", (2, 1, 2, 1), channels),
                    Pool("q", "r", "binomial", (2, 1, 2, 1), channels),
                    Add("a", ("p", "q")),
                    conv("c", "r", channels, padding=(0, 0, 0, 0)),
                    conv("d", PIXELS, channels, stride=1),
                    requantise("e", "c", 1, 5, 2),
                    requantise("f", "d", 7, -5, 3),
                    Add("g", ("e", "f")),
                    Pool("h", "g", "mean", (2, 1, 2, 1), channels),
                    Add("i", ("h", "a")),
                    Sum("s", "i"),
                ],
            ),
        ]
        for name, nodes in many:
            classes = channels + (name == "pool")
            made = network(shape, *nodes, zero=list(range(11, 11 + channels)), classes=classes)
            yield f"no conv {name} {tag}", made, pictures_for(made, 4, height)


def many_readers(seed):
    """Yield graphs in which tensors have many readers, of different layouts, early ones long after they were made."""
    rng = np.random.default_rng(seed)
    for k, (height, width) in enumerate(((1, 1), (5, 9), (16, 16), (17, 31))):
        nodes = [conv("c0", PIXELS, signs(rng, (6, 3, 3, 3), "random"), 1, (1, 1, 1, 1))]
        nodes += [requantise("s0", "c0", 1, 0, 2), requantise("t0", "c0", -5, 77, 5), requantise("u0", "c0", 3, 1, 4, 0, 255, 40)]
        nodes += [Add("a0", ("s0", "t0")), requantise("k0", "a0", 1, 128, 0, 0, 255, 128), requantise("k1", "a0", 1, 90, 1, 0, 300, 20)]
        nodes += [conv("c1", "k0", signs(rng, (6, 3, 3, 6), "random"), 1, (1, 1, 1, 1))]
        nodes += [conv("c2", "k1", signs(rng, (6, 5, 5, 6), "random"), 1, (2, 2, 2, 2)), conv("c3", "u0", signs(rng, (6, 1, 1, 6), "random"))]
        nodes += [requantise("s1", "c1", 9, 3, 6), requantise("s2", "c2", 1, 3, 3), requantise("s3", "c3", 5, 0, 1)]
        nodes += [Add("a1", ("s1", "a0")), Add("a2", ("s2", "s3")), Add("a3", ("a1", "a2")), Add("a4", ("a3", "s0")), Add("a5", ("a4", "a4"))]
        nodes += [Pool("p0", "a5", "binomial", (1, 1, 1, 1), 7), Pool("p1", "s0", "max", (1, 1, 1, 1), 7), Add("a6", ("p1", "p0"))]
        nodes += [requantise("k2", "a6", 1, 128, 4, 0, 255, 128), conv("c4", "k2", signs(rng, (5, 3, 3, 7), "random"), 2, (1, 1, 1, 1))]
        nodes += [requantise("k3", "c4", 1, 500, 3, 0, 511, 100), conv("c5", "k3", signs(rng, (4, 1, 1, 5), "random")), Sum("logits", "c5")]
        made = network((3, height, width), *nodes, zero=[125, 123, 114], classes=4)
        yield f"many readers {height}x{width}", made, pictures_for(made, [3, 35, 17, 4][k], k)


def whole_networks():
    """Yield networks of the papers' shape: residual, of both forms, and a 7x7 stem with max pooling."""
    for pool, shift_only in itertools.product(POOLS, (True, False)):
        made = wide_resnet(depth=8, width=0.25, size=32 if shift_only else 19, pool=pool, shift_only=shift_only, seed=3)
        yield f"residual {pool} {'shift-only' if shift_only else 'general'}", made, pictures_for(made, 5, 1)
    made = wide_resnet(depth=8, width=0.5, size=8, seed=4)
    yield "residual of 8x8", made, pictures_for(made, 40, 2)
    rng = np.random.default_rng(6)
    nodes = [conv("stem", PIXELS, signs(rng, (10, 7, 7, 3), "random"), 2, (3, 3, 3, 3)), requantise("s", "stem", 1, 8, 4)]
    nodes += [Pool("p", "s", "max", (1, 1, 1, 1), 10), requantise("k", "p", 1, 64, 3, 0, 255, 64)]
    nodes += [conv("c", "k", signs(rng, (10, 3, 3, 10), "random"), 1, (1, 1, 1, 1)), requantise("t", "c", 3, 2, 2)]
    nodes += [Add("a", ("t", "p")), requantise("l", "a", 1, 64, 3, 0, 255, 64)]
    nodes += [conv("head", "l", signs(rng, (7, 1, 1, 10), "random")), Sum("logits", "head")]
    made = network((3, 65, 67), *nodes, zero=[120, 119, 104], classes=7)
    yield "7x7 stem", made, pictures_for(made, 3, 3)


GROUPS = {
    "convolutions": lambda scale: convolutions(100 * scale, 11),
    "1x1": lambda scale: convolutions(24 * scale, 12, windows=(1,)),
    "3x3": lambda scale: convolutions(60 * scale, 13, windows=(3,)),
    "8-bit": lambda scale: convolutions(30 * scale, 14, bits=8),
    "large windows": lambda scale: convolutions(8 * scale, 15, windows=(11, 16, 17, 18), channels=(1, 2, 5)),
    "int16 boundaries": lambda _: int16_boundaries(),
    "full codes": lambda _: full_codes(),
    "int32 sums": int32_sums,
    "requantisers": lambda _: requantisers(21),
    "splits": lambda _: splits(),
    "pools": lambda _: pools(22),
    "sums": lambda _: sums(23),
    "no convolutions": lambda _: without_convolutions(),
    "many readers": lambda _: many_readers(24),
    "whole networks": lambda _: whole_networks(),
}


def cases(group, scale=1):
    """Yield (name, network, pictures) of a group; scale multiplies what is drawn at random."""
    for name, made, pictures in GROUPS[group](scale):
        yield name, made, pictures if isinstance(pictures, np.ndarray) else pictures_for(made, *pictures)

