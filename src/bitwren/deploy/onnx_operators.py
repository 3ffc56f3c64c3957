"""Each kind of node as standard ONNX operators on integers; export_onnx.py puts them together.

Three things ONNX lacks, and what stands for them here:

Shift to the right of signed numbers. BitShift takes unsigned ones, and Div rounds towards zero. So clamp first:
    clamp(y >> s, low, high) = (clamp(y - (low << s), 0, ((high - low + 1) << s) - 1) >> s) + low
The number shifted is never negative, and `low << s` goes into the offset. low and high are the ends that the result can
reach, so every number here is below 2^49; int32 is taken where all of them fit it, else int64.

Weights of one bit. The file packs eight into a byte, first weight lowest, in the order (out, in, row, column), and the
graph unpacks them to 0 and 2 with zero point 1; ONNX Runtime does so once, when it loads. 8-bit weights are stored plus
128 with zero point 128. Unsigned times unsigned is deliberate: ONNX Runtime widens both to 16 bits and adds products in
32 (vpmaddwd), exact on every processor, while unsigned times signed goes through vpmaddubsw where there is no VNNI,
which saturates the sum of two products at 16 bits (2 * 255 * 127 > 32767). Older versions have no other ConvInteger.

Zero points. ConvInteger takes one for all channels and pads with it. Where the channels' differ (the pixels), a
convolution of x less a convolution of the zero points, laid out as a picture, is the convolution of x - zero, padding
included. Codes up to 511 go as x = low byte + 256 * high bit, two convolutions, the zero point split alike. ConvInteger
adds in int32 modulo 2^32, as do Add and Mul of its results, so only the node's final sum must fit, and the graph has
checked that it does.
"""

from collections.abc import Callable

import numpy as np

from bitwren.errors import UsageError
from bitwren.network.graph import INT16, INT32, PIXELS, Add, Conv, Network, Node, Pool, Requantise, Sum

LOGITS = "logits"  # the name of the output


def require_onnx():
    """Return the package onnx, or raise UsageError with what to install."""
    try:
        import onnx
    except ImportError:
        raise UsageError("this needs the package onnx: pip install 'bitwren[onnx]'") from None
    return onnx


def tensor_names(network: Network) -> dict[str, str]:
    """Return the ONNX name of every tensor: its own, but a node called "logits" yields to the output of that name."""
    names = {name: name for name in network.tensors}
    if LOGITS in names:
        names[LOGITS] = _unused(LOGITS, {*names})
    return names


def _unused(name: str, taken: set[str]) -> str:
    """Return the name, or the first of name.2, name.3 ... that is not taken."""
    count, result = 1, name
    while result in taken:
        count += 1
        result = f"{name}.{count}"
    return result


class Writer:
    """Collects operators and constants; every tensor's name is new, and its type known.

    names: the ONNX name of each tensor of the network. kinds: the type of each tensor so far, by ONNX name.
    """

    def __init__(self, network: Network, compact: bool):
        """Begin with the input alone. compact: weights of one bit packed eight to a byte."""
        self.network, self.compact, self.names = network, compact, tensor_names(network)
        self.nodes, self.constants = [], []
        self.kinds = {PIXELS: np.dtype(np.uint8)}
        self._onnx, self._taken, self._kept = require_onnx(), {LOGITS, *self.names.values()}, {}

    def _new_name(self, wanted: str) -> str:
        self._taken.add(name := _unused(wanted, self._taken))
        return name

    def op(self, operator: str, inputs: list[str], kind: np.dtype | type | None = None, **attributes) -> str:
        """Append an operator and return its result. kind: of the result, where not that of the first input."""
        result = self._new_name(operator.lower())
        self.nodes.append(self._onnx.helper.make_node(operator, inputs, [result], **attributes))
        self.kinds[result] = np.dtype(kind or self.kinds[inputs[0]])
        return result

    def constant(self, values, kind: np.dtype | type) -> str:
        """Return the name of a constant, the same for equal ones: a small network would be half repetition."""
        array = np.ascontiguousarray(np.asarray(values).astype(kind))
        key = (array.dtype, array.shape, array.tobytes())
        if key not in self._kept:
            self._kept[key] = name = self._new_name("constant")
            self.constants.append(self._onnx.numpy_helper.from_array(array, name))
            self.kinds[name] = array.dtype
        return self._kept[key]

    def with_constant(self, operator: str, x: str, values) -> str:
        """Append an operator of x and a constant of its type."""
        return self.op(operator, [x, self.constant(values, self.kinds[x])])

    def cast(self, x: str, kind: np.dtype | type) -> str:
        """Return x as that type; only values that fit it may come."""
        if self.kinds[x] == kind:
            return x
        return self.op("Cast", [x], kind, to=self._onnx.helper.np_dtype_to_tensor_dtype(np.dtype(kind)))

    def clip(self, x: str, low: int, high: int) -> str:
        """Append the clamp of x."""
        return self.op("Clip", [x, self.constant(low, self.kinds[x]), self.constant(high, self.kinds[x])])

    def int32(self, name: str) -> str:
        """Return a tensor of the network as int32."""
        return self.cast(self.names[name], np.int32)

    def write(self, node: Node) -> None:
        """Append a node of the network; the last of its operators gets the node's name for its result."""
        before = len(self.nodes)
        result = _WRITE[type(node)](self, node)
        if len(self.nodes) == before:  # the node changes nothing
            result = self.op("Identity", [result])
        self.nodes[-1].output[0] = self.names[node.name]
        self.kinds[self.names[node.name]] = self.kinds[result]

    def write_logits(self) -> None:
        """Append what makes the output of the network's last node: int32 (N, classes)."""
        self.op("Flatten", [self.int32(self.network.logits)], axis=1)
        self.nodes[-1].output[0] = LOGITS


# ---------------------------------------------------------------- one function per kind of node, returning its result


def _write_conv(writer: Writer, node: Conv) -> str:
    x, zero = writer.names[node.input], writer.network.tensors[node.input].zero
    weights, weight_zero = _weights(writer, node)

    def convolve(x: str, zero: int) -> str:
        return writer.op(
            "ConvInteger",
            [x, weights, writer.constant(zero, np.uint8), weight_zero],
            np.int32,
            strides=[node.stride] * 2,
            pads=node.padding,
        )

    if writer.kinds[x] != np.uint8:  # codes up to 511; they come from a requantise, so all channels have one zero point
        byte = writer.cast(writer.with_constant("BitwiseAnd", x, 255), np.uint8)
        bit = writer.cast(writer.with_constant("Div", x, 256), np.uint8)
        high = writer.with_constant("Mul", convolve(bit, int(zero[0]) >> 8), 256)
        return writer.op("Add", [convolve(byte, int(zero[0]) & 255), high])
    if (zero == zero[0]).all():
        return convolve(x, int(zero[0]))
    picture = writer.op(
        "Expand",
        [
            writer.constant(zero[None, :, None, None], np.uint8),
            writer.constant([1, *writer.network.tensors[node.input].shape], np.int64),
        ],
    )
    return writer.op("Sub", [convolve(x, 0), convolve(picture, 0)])


def _weights(writer: Writer, node: Conv) -> tuple[str, str]:
    """Return the weights, uint8 (out, in, F, F), and their zero point."""
    w = node.weights.transpose(0, 3, 1, 2)
    if node.weight_bits == 8:
        return writer.constant(w.astype(np.int16) + 128, np.uint8), writer.constant(128, np.uint8)
    one = writer.constant(1, np.uint8)
    if not writer.compact:
        return writer.constant(w + 1, np.uint8), one
    packed = np.packbits(w.ravel() > 0, bitorder="little")  # (bytes,), the last byte filled with zeros
    bits = writer.op("BitShift", [writer.constant(packed[:, None], np.uint8), writer.constant(range(8), np.uint8)],
                     direction="RIGHT")  # (bytes, 8)
    bits = writer.op("BitwiseAnd", [bits, one])
    bits = writer.op("Reshape", [writer.op("Add", [bits, bits]), writer.constant([-1], np.int64)])
    if w.size % 8:
        bits = writer.op("Slice", [bits, writer.constant([0], np.int64), writer.constant([w.size], np.int64)])
    return writer.op("Reshape", [bits, writer.constant(w.shape, np.int64)]), one


def _write_requantise(writer: Writer, node: Requantise) -> str:
    x, out = writer.network.tensors[node.input], writer.network.tensors[node.name]
    m, b, shift = node.multiplier.astype(np.int64), node.offset.astype(np.int64), node.shift
    if out.low == out.high:  # always the same number; it alone may lie far from m * x + b
        m, b, shift = np.zeros(1, np.int64), np.full(1, out.low), 0
    b = b - (out.low << shift)
    top = ((out.high - out.low + 1) << shift) - 1
    products = np.multiply.outer(m, [x.low, x.high])
    sums = products + b[:, None]
    low, high = min(products.min(), sums.min()), max(products.max(), sums.max(), top, out.high - out.low)
    signed, unsigned = (np.int32, np.uint32) if INT32[0] <= low and high <= INT32[1] else (np.int64, np.uint64)
    y = writer.cast(writer.names[node.input], signed)
    if (m != 1).any():
        y = writer.with_constant("Mul", y, m[:, None, None])
    if b.any():
        y = writer.with_constant("Add", y, b[:, None, None])
    if sums.min() < 0 or sums.max() > top:
        y = writer.clip(y, 0, top)
    if shift:
        y = writer.cast(y, unsigned)
        y = writer.op("BitShift", [y, writer.constant(shift, unsigned)], direction="RIGHT")
    if out.low:
        y = writer.with_constant("Add", writer.cast(y, signed), out.low)
    byte = node.zero is not None and max(node.zero, out.high) <= 255
    return writer.cast(y, np.uint8 if byte else np.int32)


def _write_add(writer: Writer, node: Add) -> str:
    a, b = (writer.network.tensors[name] for name in node.inputs)
    y = writer.op("Add", [writer.int32(name) for name in node.inputs])
    return y if INT16[0] <= a.low + b.low and a.high + b.high <= INT16[1] else writer.clip(y, *INT16)


def _write_pool(writer: Writer, node: Pool) -> str:
    source = writer.network.tensors[node.input]
    top, left, bottom, right = node.padding
    x = writer.int32(node.input)
    if any(node.padding):
        x = _pad(writer, x, [0, 0, top, left, 0, 0, bottom, right], INT16[0] if node.kind == "max" else 0)
    if node.kind == "max":
        y = _three(writer, x, lambda slices: writer.op("Max", slices))
    elif node.kind == "binomial":  # sums within 16 * 32768, made positive before the shift
        sums = _three(writer, x, lambda s: _total(writer, [s[0], s[1], s[1], s[2]]))
        positive = writer.cast(writer.with_constant("Add", sums, 8 - 16 * INT16[0]), np.uint32)
        y = writer.cast(writer.op("BitShift", [positive, writer.constant(4, np.uint32)], direction="RIGHT"), np.int32)
        y = writer.with_constant("Add", y, INT16[0])
    else:
        # n values are at least n * least, so 2 * (sum - n * least) + n is positive, where Div rounds down.
        sums, least = _three(writer, x, lambda s: _total(writer, s)), min(source.low, 0)
        n = np.array(9)
        if node.kind == "mean-real":
            rows, columns = (_real(size, *ends) for size, ends in zip(source.shape[1:], ((top, bottom), (left, right)),
                                                                      strict=True))
            n = rows[:, None] * columns
        doubled = writer.with_constant("Add", writer.op("Add", [sums, sums]), n - 2 * n * least)
        y = writer.with_constant("Add", writer.with_constant("Div", doubled, 2 * n), least)
    more = node.channels - source.shape[0]
    return _pad(writer, y, [0, 0, 0, 0, 0, more, 0, 0], 0) if more else y


def _write_sum(writer: Writer, node: Sum) -> str:
    return writer.op("ReduceSum", [writer.int32(node.input), writer.constant([2, 3], np.int64)], keepdims=1)


_WRITE: dict[type, Callable] = {
    Conv: _write_conv,
    Requantise: _write_requantise,
    Add: _write_add,
    Pool: _write_pool,
    Sum: _write_sum,
}


def _pad(writer: Writer, x: str, ends: list[int], value: int) -> str:
    return writer.op("Pad", [x, writer.constant(ends, np.int64), writer.constant(value, writer.kinds[x])])


def _three(writer: Writer, x: str, combine: Callable[[list[str]], str]) -> str:
    """Combine the three rows, then the three columns, of every 3 x 3 window moved by 2."""
    for axis in (2, 3):
        # Up to 2 beyond the window's own row, whatever the size: the last window starts where three rows are left.
        ends = [np.iinfo(np.int64).max if k == 2 else k - 2 for k in range(3)]
        x = combine([
            writer.op("Slice", [x, *(writer.constant([v], np.int64) for v in (k, end, axis, 2))])
            for k, end in enumerate(ends)
        ])
    return x


def _total(writer: Writer, terms: list[str]) -> str:
    total = terms[0]
    for term in terms[1:]:
        total = writer.op("Add", [total, term])
    return total


def _real(size: int, before: int, after: int) -> np.ndarray:
    """Return how many of the three places of each window on an axis lie inside the picture."""
    inside = np.pad(np.ones(size, np.int64), (before, after))
    return np.lib.stride_tricks.sliding_window_view(inside, 3)[::2].sum(1)
