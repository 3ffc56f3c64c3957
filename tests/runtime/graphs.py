"""Networks made for the kernels: constants, poolings, heads and graphs of every kind."""

import itertools

import numpy as np
from network.examples import REQUANTISE_ENDS, conv, network, requantise, requantise_ends, wide_resnet
from runtime.cases import pictures_for
from runtime.convolutions import CODES, SIDES, fitting_padding, signs, to_codes

from bitwren.network.graph import INT16, INT32, PIXELS, POOLS, Add, Pool, Sum


def around(rng, name, x, outputs, window, inputs, stride=1):
    """Return a convolution of random signs, padded all round."""
    return conv(name, x, signs(rng, (outputs, window, window, inputs), "random"), stride, (window // 2,) * 4)


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
        nodes = [around(rng, "conv", PIXELS, channels, 3, 7)]
        if shift % 2:
            nodes.append(spread("conv", rng, channels))
        low, high = [INT16, (-100, 77), (-40000, 40000), INT32, (0, 0)][shift % 5]
        last = nodes[-1].name
        nodes.append(requantise("r", last, m.tolist(), b.tolist(), shift, low, high))
        nodes.append(requantise("narrow", "r", 1, 0, 0, *INT16))
        nodes.append(to_codes("codes", "narrow", channels, 0, 255, 9, rng, 8))
        nodes.append(around(rng, "second", "codes", 2, 3, channels))
        made = network((7, 6, 9), *nodes, Sum("logits", "second"), zero=rng.integers(0, 256, 7), classes=2)
        yield f"requantise shift {shift}", made, pictures_for(made, 4, shift)


def spread(name, rng, channels):
    """Return a requantise that makes sums as wide as they can be."""
    return requantise("spread", name, [int(x) for x in rng.integers(9000, 32000, channels)], 12345, 2, *INT32)


def splits():
    """Yield wide sums and multipliers where a requantise is cut in two halves, at both ends of what that can hold."""
    constants = itertools.product((32767, -32767, 3, 20001), (1, 8, 15, 20, 30), (0, INT32[1], INT32[0]))
    for multiplier, shift, offset in constants:
        nodes = [
            requantise("spread", PIXELS, 16384, -(2**20), 0, *INT32),
            requantise("wide", "spread", 512, -1, 0, *INT32),
            requantise("r", "wide", [multiplier, -multiplier], [offset, -1 - offset], shift, *INT32),
            requantise("less", "r", 1, 0, 9, *INT32),
        ]
        made = network((2, 3, 5), *nodes, Sum("logits", "less"), classes=2)
        yield f"split {multiplier} >> {shift} + {offset}", made, pictures_for(made, 5, shift)


def fractions(seed):
    """Yield requantises by multiplier / 2^shift, rounded, and some that are just not so: to the stream and to codes.

    What both are made of reaches both ends of int16, or, where int32 holds the products, lies beyond.
    """
    rng = np.random.default_rng(seed)
    for shift in (1, 2, 7, 14, 15, 16, 17, 24, 30, 31):
        longest = min(2**shift, 2**15) - 1
        for multiplier in sorted({1, -1, 3, longest, -longest, -longest - 1, 24520, -16384, 2**14}):
            for miss, wide in itertools.product((0, 1), (0, 1)):
                offset = 2 ** (shift - 1) - miss
                factor, start, ends = ([512, -512], 0, INT32) if wide else (257, -32768, INT16)
                if (2**17 if wide else 2**15) * abs(multiplier) + offset > INT32[1]:
                    continue
                nodes = [
                    requantise("x", PIXELS, factor, start, 0, *ends),
                    requantise("codes", "x", multiplier, offset, shift, 0, 255, 9),
                    requantise("more", "x", multiplier, offset, shift),
                    around(rng, "conv", "codes", 2, 3, 2),
                    requantise("less", "conv", multiplier, offset, shift),
                    Add("both", ("less", "more")),
                ]
                made = network((2, 8, 8), *nodes, Sum("logits", "both"), classes=2)
                name = f"fraction {multiplier} >> {shift} + {offset} {('narrow', 'wide')[wide]}"
                yield name, made, pictures_for(made, 5, shift)


def pools(seed):
    """Yield every pooling, of odd sizes, paddings and added channels, then a convolution that sees every position."""
    rng = np.random.default_rng(seed)
    for k, (kind, height) in enumerate(itertools.product(POOLS, SIDES)):
        width, channels = int(rng.choice(SIDES)), int(rng.choice([1, 3, 4, 5]))
        (top, bottom), (left, right) = fitting_padding(rng, height, 3), fitting_padding(rng, width, 3)
        padding, more = (top, left, bottom, right), channels + int(rng.choice([0, 0, 1, 5]))
        factor = int(rng.choice([1, 100, 256]))
        nodes = [
            requantise("stream", PIXELS, factor, -128 * factor, 0, *INT16),
            Pool("pool", "stream", kind, padding, more),
            to_codes("codes", "pool", more, 0, 255, 77, rng, 4),
            around(rng, "conv", "codes", 3, 3, more),
        ]
        made = network((channels, height, width), *nodes, Sum("logits", "conv"), classes=3)
        yield f"pool {kind} {channels}>{more} {height}x{width} {padding}", made, pictures_for(made, 3 + k % 9, k)


def sums(seed):
    """Yield sum heads: 1x1 convolutions of one and of eight bits that only a sum reads."""
    rng = np.random.default_rng(seed)
    for bits, channels in itertools.product((1, 8), (1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 33)):
        for height, width in ((1, 1), (3, 17), (8, 8), (9, 5)):
            shape = (int(rng.integers(1, 12)), 1, 1, channels)
            weights = signs(rng, shape, "random") if bits == 1 else rng.integers(-127, 128, shape)
            codes = to_codes("codes", PIXELS, channels, *CODES[channels % len(CODES)], rng)
            nodes = [codes, conv("head", "codes", weights, bits=bits), Sum("logits", "head")]
            made = network((channels, height, width), *nodes, classes=shape[0])
            name = f"sum {bits}b {channels}>{shape[0]} {height}x{width}"
            yield name, made, pictures_for(made, 5 + channels, channels)


def without_convolutions():
    """Yield networks whose pixels go to a sum, an add, a pool or a requantise at once, or to all kinds of node."""
    for channels, height, width in ((1, 1, 1), (3, 7, 5), (2, 16, 16), (5, 33, 2)):
        more, some = channels + 1, (2, 1, 2, 1)
        many = {
            "sum": [],
            "requantise": [requantise("r", PIXELS, 3, -5, 1)],
            "twice": [Add("a", (PIXELS, PIXELS))],
            "add": [requantise("r", PIXELS, -128, 9), Add("a", ("r", PIXELS)), Add("b", (PIXELS, "a"))],
            "saturate": [requantise("r", PIXELS, 256, -32768), Add("a", ("r", "r")), Add("b", ("a", "r"))],
            "pool": [Pool("p", PIXELS, "mean-real", (1,) * 4, more), Pool("q", "p", "max", (2,) * 4, more)],
            "all": [
                requantise("r", PIXELS, 1, -99, 0, 0, 255, 17),
                Pool("p", PIXELS, "binomial", some, channels),
                Pool("q", "r", "binomial", some, channels),
                Add("a", ("p", "q")),
                conv("c", "r", channels),
                conv("d", PIXELS, channels),
                requantise("e", "c", 1, 5, 2),
                requantise("f", "d", 7, -5, 3),
                Add("g", ("e", "f")),
                Pool("h", "g", "mean", some, channels),
                Add("i", ("h", "a")),
            ],
        }
        for name, nodes in many.items():
            head = Sum("logits", nodes[-1].name if nodes else PIXELS)
            zeros, classes = range(11, 11 + channels), more if name == "pool" else channels
            made = network((channels, height, width), *nodes, head, zero=list(zeros), classes=classes)
            yield f"from pixels: {name} {channels}x{height}x{width}", made, pictures_for(made, 4, height)


def codes(seed):
    """Yield codes made of values out to both ends of int16 by every kind of range and constant, then convolved."""
    rng = np.random.default_rng(seed)
    ranges, sizes = ((0, 255, 32), (0, 255, 0), (3, 255, 3), (0, 200, 7), (0, 256, 9)), ((16, 16), (8, 4), (7, 5))
    constants = ((1, 30000, 7), (1, -30000, 6), (1, 32767, 0), (3, 70000, 9), (-300, 99, 16))
    for (low, high, zero), (height, width), (multiplier, offset, shift) in itertools.product(ranges, sizes, constants):
        nodes = [
            requantise("stream", PIXELS, [256, -256], [-32768, 32767]),
            Pool("pool", "stream", "max", (1, 1, 1, 1), 2),
            requantise("codes", "pool", multiplier, offset, shift, low, high, zero),
            around(rng, "conv", "codes", 3, 3, 2),
            requantise("more", "conv", multiplier, offset // 8, shift // 2, low, high, zero),
            around(rng, "last", "more", 2, 3, 3),
        ]
        made = network((2, height, width), *nodes, Sum("logits", "last"), classes=2)
        name = f"codes {low}..{high} {multiplier} {offset} >> {shift} {height}x{width}"
        yield name, made, pictures_for(made, 5, height)


def many_readers(seed):
    """Yield graphs in which tensors have many readers, of different layouts, some long after they were made."""
    rng = np.random.default_rng(seed)
    for (height, width), pictures in {(1, 1): 3, (5, 9): 35, (16, 16): 17, (17, 31): 4}.items():
        nodes = [
            around(rng, "c0", PIXELS, 6, 3, 3),
            requantise("s0", "c0", 1, 0, 2),
            requantise("t0", "c0", -5, 77, 5),
            requantise("u0", "c0", 3, 1, 4, 0, 255, 40),
            Add("a0", ("s0", "t0")),
            requantise("k0", "a0", 1, 128, 0, 0, 255, 128),
            requantise("k1", "a0", 1, 90, 1, 0, 300, 20),
            around(rng, "c1", "k0", 6, 3, 6),
            around(rng, "c2", "k1", 6, 5, 6),
            around(rng, "c3", "u0", 6, 1, 6),
            requantise("s1", "c1", 9, 3, 6),
            requantise("s2", "c2", 1, 3, 3),
            requantise("s3", "c3", 5, 0, 1),
            Add("a1", ("s1", "a0")),
            Add("a2", ("s2", "s3")),
            Add("a3", ("a1", "a2")),
            Add("a4", ("a3", "s0")),
            Add("a5", ("a4", "a4")),
            Pool("p0", "a5", "binomial", (1, 1, 1, 1), 7),
            Pool("p1", "s0", "max", (1, 1, 1, 1), 7),
            Add("a6", ("p1", "p0")),
            requantise("k2", "a6", 1, 128, 4, 0, 255, 128),
            around(rng, "c4", "k2", 5, 3, 7, stride=2),
            requantise("k3", "c4", 1, 500, 3, 0, 511, 100),
            around(rng, "c5", "k3", 4, 1, 5),
        ]
        made = network((3, height, width), *nodes, Sum("logits", "c5"), zero=[125, 123, 114], classes=4)
        yield f"many readers {height}x{width}", made, pictures_for(made, pictures, height)


def whole_networks():
    """Yield networks of the papers' shape: residual, of both forms, and a 7x7 stem with max pooling."""
    for pool, shift_only in itertools.product(POOLS, (True, False)):
        size, form = (32, "shift-only") if shift_only else (19, "general")
        made = wide_resnet(depth=8, width=0.25, size=size, pool=pool, shift_only=shift_only, seed=3)
        yield f"residual {pool} {form}", made, pictures_for(made, 5, 1)
    made = wide_resnet(depth=8, width=0.5, size=8, seed=4)
    yield "residual of 8x8", made, pictures_for(made, 40, 2)
    rng = np.random.default_rng(6)
    nodes = [
        around(rng, "stem", PIXELS, 10, 7, 3, stride=2),
        requantise("s", "stem", 1, 8, 4),
        Pool("p", "s", "max", (1, 1, 1, 1), 10),
        requantise("k", "p", 1, 64, 3, 0, 255, 64),
        around(rng, "c", "k", 10, 3, 10),
        requantise("t", "c", 3, 2, 2),
        Add("a", ("t", "p")),
        requantise("l", "a", 1, 64, 3, 0, 255, 64),
        around(rng, "head", "l", 7, 1, 10),
    ]
    made = network((3, 65, 67), *nodes, Sum("logits", "head"), zero=[120, 119, 104], classes=7)
    yield "7x7 stem", made, pictures_for(made, 3, 3)


def in_place():
    """Yield graphs where a result might be stored over what the same step has still to read."""
    rng = np.random.default_rng(8)
    for (height, width), pictures in {(1, 1): 2, (5, 5): 3, (8, 16): 18, (7, 9): 4}.items():
        begin = [
            requantise("s", PIXELS, 1, -128, 6),
            requantise("k", PIXELS, 1, 0, 5, 0, 7, 3),
            around(rng, "c", "k", 2, 3, 2),
        ]
        end = [Sum("s1", "first"), Sum("s2", "a"), Add("logits", ("s1", "s2"))]
        first = {
            "sums": [requantise("unused", "s", 1, 0, 1), Add("first", ("c", "unused")), Add("a", ("c", "s"))],
            "before the add": [requantise("first", "c", 1, 3, 1), Add("a", ("first", "s"))],
            "after the add": [Add("a", ("c", "s")), requantise("first", "a", 3, 0, 2)],
            "twice": [Add("b", ("c", "s")), requantise("first", "b", 3, 0, 2), Add("a", ("first", "s"))],
        }
        for name, nodes in first.items():
            made = network((2, height, width), *begin, *nodes, *end, zero=[1, 2], classes=2)
            yield f"in place {name} {height}x{width}", made, pictures_for(made, pictures, height)
        raw = [Add("a", ("c", "s")), Sum("s1", "c"), Sum("s2", "a"), Add("logits", ("s1", "s2"))]
        made = network((2, height, width), *begin, *raw, zero=[1, 2], classes=2)
        yield f"in place raw sums {height}x{width}", made, pictures_for(made, pictures, height)


def shared():
    """Yield networks large enough for threads to share each step: the runtime runs short steps on one thread."""
    rng = np.random.default_rng(9)
    for window, stride, channels, outputs in ((3, 1, 40, 48), (3, 2, 80, 80), (1, 1, 720, 48), (5, 1, 60, 24)):
        nodes = [
            requantise("k", PIXELS, 1, 0, 0, 0, 255, 31),
            around(rng, "c", "k", outputs, window, channels, stride),
            requantise("s", "c", 1, 0, 6),
            Pool("p", "s", "mean", (1, 1, 1, 1), outputs),
        ]
        made = network((channels, 32, 32), *nodes, Sum("logits", "p"), zero=7, classes=outputs)
        yield f"shared {window}x{window}/{stride}", made, pictures_for(made, 3, window)
    eight = conv("c", PIXELS, rng.integers(-127, 128, (24, 3, 3, 30)), padding=(1, 1, 1, 1), bits=8)
    made = network((30, 24, 24), eight, requantise("s", "c", 1, 0, 8), Sum("logits", "s"), classes=24)
    yield "shared 8-bit", made, pictures_for(made, 3, 8)
    made = wide_resnet(depth=8, width=3, size=32, seed=5)
    yield "shared residual", made, pictures_for(made, 3, 9)
