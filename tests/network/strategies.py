"""Random integer networks and pictures for hypothesis: every kind of node, odd sizes, extreme constants."""

import numpy as np
from hypothesis import strategies as st

from bitwren.network.graph import (
    _CHECKS,
    INT16,
    INT32,
    PIXELS,
    POOLS,
    Add,
    Conv,
    Network,
    Pool,
    Requantise,
    Sum,
    Tensor,
    inputs_of,
)

CODES = [(0, 255)] * 5 + [(0, 511), (0, 15), (3, 200), (300, 511), (0, 0)]
STREAMS = [INT16, INT16, (-100, 100), (0, 32767), (-32768, -1)]


class Growing:
    """A network in the making: appends nodes, and knows the range of every tensor so far."""

    def __init__(self, draw, channels, height, width, zero):
        self.draw, self.nodes = draw, []
        self.tensors = {PIXELS: Tensor((channels, height, width), 0, 255, zero)}
        self.rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))

    def append(self, kind, *fields):
        """Append a node and return its name. fields: as the kind has them after the name."""
        node = kind(f"{kind.__name__.lower()}{len(self.nodes)}", *fields)
        self.tensors[node.name] = _CHECKS[kind](node, node.name, *(self.tensors[x] for x in inputs_of(node)))
        self.nodes.append(node)
        return node.name

    def padding(self, x, window):
        sides = self.tensors[x].shape[1:]
        padding = self.draw(st.tuples(*[st.integers(0, window - 1)] * 4))
        fits = all(side + padding[k] + padding[k + 2] >= window for k, side in enumerate(sides))
        return padding if fits else (window - 1,) * 4

    def conv(self, x, out, window, stride, padding):
        shape, how = (out, window, window, self.tensors[x].shape[0]), self.draw(st.integers(0, 5))
        bits = self.draw(st.sampled_from([1, 1, 1, 8]))
        largest, size = 1 if bits == 1 else 127, int(np.prod(shape))
        if how == 0:
            w = np.full(size, largest)
        elif how == 1:
            w = np.where(np.arange(size) % 2, -largest, largest)
        elif how == 2:  # one-hot
            w = np.full(size, -1 if bits == 1 else 0)
            w[self.rng.integers(size)] = largest
        else:
            w = self.rng.choice([-1, 1], size) if bits == 1 else self.rng.integers(-127, 128, size)
        return self.append(Conv, x, w.astype(np.int8).reshape(shape), bits, stride, padding)

    def requantise(self, x, low, high, codes):
        """Append constants of one of many styles: to about low..high, far past it, or to a constant."""
        tensor, draw = self.tensors[x], self.draw
        count = draw(st.sampled_from(sorted({1, tensor.shape[0]})))
        span = max(abs(tensor.low), abs(tensor.high), 1)
        to_fit = span.bit_length() - max(high - low, 1).bit_length() + draw(st.integers(-2, 2))
        style = draw(st.sampled_from(["one", "one", "power", "negative", "any", "any", "any", "wild", "nought"]))
        if style in ("any", "wild"):
            m = self.rng.integers(-(2**15), 2**15, count)
            m[0] = draw(st.sampled_from([int(m[0]), 3, 2**15 - 1, -(2**15) + 1]))
            if (m & (m - 1) == 0).all():  # powers of two have a range of their own
                m[0] = 3
            shift = draw(st.integers(0, 47)) if style == "wild" else min(max(to_fit + 14, 0), 47)
            b = self.rng.integers(INT32[0], INT32[1] + 1, count) >> draw(st.sampled_from([0, 0, 8, 16, 24, 31]))
        else:
            power = draw(st.integers(0, 13)) if style == "power" else 0
            while span << power >= 2**31:
                power -= 1
            m = np.full(count, {"negative": -1, "nought": 0}.get(style, 1) << power)
            ends = np.stack([m * tensor.low, m * tensor.high])
            first, last = np.maximum(INT32[0] - ends.min(0), INT32[0]), np.minimum(INT32[1] - ends.max(0), INT32[1])
            shift = min(max(to_fit + power, 0), 47)
            near = np.clip(self.rng.integers(-8, 9, count) * 2 ** min(shift, 28) // 4, first, last)
            b = draw(st.sampled_from([first, last, near, near, near]))
        zero = draw(st.sampled_from([low, high, (low + high) // 2])) if codes else None
        return self.append(Requantise, x, m.astype(np.int16), b.astype(np.int32), shift, low, high, zero)

    def codes(self, x):
        return self.requantise(x, *self.draw(st.sampled_from(CODES)), codes=True)

    def stream(self, x):
        return self.requantise(x, *self.draw(st.sampled_from(STREAMS)), codes=False)

    def pool(self, x, padding, channels):
        return self.append(Pool, x, self.draw(st.sampled_from(POOLS)), padding, channels)

    def block(self, x):
        """Append a residual block: two convolutions, and the path past them, pooled where the picture halves."""
        stride, more = self.draw(st.sampled_from([(1, 0), (1, 0), (2, 0), (2, 1)]))
        out = self.tensors[x].shape[0] + more
        y = self.conv(self.codes(x), out, 3, stride, (1, 1, 1, 1))
        y = self.stream(self.conv(self.codes(y), out, 3, 1, (1, 1, 1, 1)))
        if stride == 2:
            x = self.pool(x, (1, 1, 1, 1), out)
        return self.append(Add, tuple(self.draw(st.permutations([x, y]))))

    def plain(self, x):
        """Append a convolution of any window, stride and padding."""
        x = self.codes(x)
        window = self.draw(st.sampled_from([1, 2, 3, 5]))
        out, stride = self.draw(st.integers(1, 4)), self.draw(st.sampled_from([1, 2]))
        return self.stream(self.conv(x, out, window, stride, self.padding(x, window)))

    def halve(self, x):
        return self.pool(x, self.padding(x, 3), self.tensors[x].shape[0] + self.draw(st.integers(0, 2)))


@st.composite
def networks(draw):
    """Return a small network: 1 to 3 channels, 1 to 9 rows and columns, 1 to 4 classes, up to 3 stages of any kind."""
    channels, height, width = draw(st.integers(1, 3)), draw(st.integers(1, 9)), draw(st.integers(1, 9))
    each = st.lists(st.integers(0, 255), min_size=channels, max_size=channels)
    zero = np.array(draw(st.one_of(st.integers(0, 255).map(lambda z: [z] * channels), each)))
    growing = Growing(draw, channels, height, width, zero)
    x = growing.codes(PIXELS) if draw(st.integers(0, 3)) == 0 else PIXELS  # a learned input batch norm
    window, out = draw(st.sampled_from([1, 3, 3, 7])), draw(st.integers(1, 5))
    x = growing.conv(x, out, window, draw(st.sampled_from([1, 2])), growing.padding(x, window))
    x = growing.stream(x)
    for step in draw(st.lists(st.sampled_from([growing.block, growing.plain, growing.halve]), max_size=3)):
        x = step(x)
    classes = draw(st.integers(1, 4))
    x = growing.append(Sum, growing.conv(growing.codes(x), classes, 1, 1, (0, 0, 0, 0)))
    if draw(st.booleans()):  # a batch norm after the head
        growing.requantise(x, *INT32, codes=False)
    names = tuple(f"class {k}" for k in range(classes))
    return Network(channels, height, width, zero, tuple(growing.nodes), names, 0.25)


@st.composite
def networks_and_pictures(draw):
    """Return a network and pictures for it, uint8 (N, C, H, W): all 0, all 255, and random ones."""
    network = draw(networks())
    shape = network.tensors[PIXELS].shape
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    random = rng.integers(0, 256, (draw(st.integers(1, 3)), *shape))
    return network, np.concatenate([np.zeros((1, *shape)), np.full((1, *shape), 255), random]).astype(np.uint8)
