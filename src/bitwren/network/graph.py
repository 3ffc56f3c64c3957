"""The integer network: five kinds of node, the shape and the range of every tensor (docs/integer-network.md).

Every tensor is (channels, height, width) of whole numbers. What a tensor may hold follows from the graph alone:

    codes    0..511 at most, with a zero point: the code of real zero   what a convolution reads
    stream   int16                                                      the residual path
    sums     int32                                                      what a convolution or a global sum gives

`Network` checks itself when it is made: a graph that exists is well formed, and no sum in it can pass int32.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

from bitwren.errors import ModelError, unknown_name

MAX_CODE = 511
INT16 = (-(2**15), 2**15 - 1)
INT32 = (-(2**31), 2**31 - 1)
MAX_SHIFT = 47  # of the 48 bits that an int32 times an int16 plus an int32 can need
PIXELS = "pixels"  # the name of the network's input
POOLS = ("binomial", "mean", "mean-real", "max")
BINOMIAL = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]])  # sums to 16


@dataclasses.dataclass(frozen=True, eq=False)
class Conv:
    """Sums of codes less their zero point, each added or subtracted as its weight says: codes -> sums.

    weights: int8 (channels out, F, F, channels in); +1 and -1 where weight_bits is 1, -127..127 where it is 8.
    padding: rows and columns added at (top, left, bottom, right), filled with the zero point.
    """

    name: str
    input: str
    weights: np.ndarray
    weight_bits: int
    stride: int
    padding: tuple[int, int, int, int]


@dataclasses.dataclass(frozen=True, eq=False)
class Requantise:
    """clamp((multiplier * x + offset) >> shift, low, high), the one place where numbers change their scale.

    multiplier: int16 and offset: int32, one of each or one of each per channel. shift: 0..47, arithmetic: floor.
    zero: the code that stands for real zero in the result; None where the result is no code (stream or sums).
    """

    name: str
    input: str
    multiplier: np.ndarray
    offset: np.ndarray
    shift: int
    low: int
    high: int
    zero: int | None


@dataclasses.dataclass(frozen=True)
class Add:
    """clamp(a + b) to int16: stream, stream -> stream."""

    name: str
    inputs: tuple[str, str]


@dataclasses.dataclass(frozen=True)
class Pool:
    """A 3 x 3 window moved by 2, and zero channels appended: stream -> stream.

    kind: "binomial" weighs by [1 2 1] x [1 2 1], (sum + 8) >> 4; "mean" is the sum over 9, padding counted; "mean-real"
    the sum over the number of real pixels; both rounded half up; "max" the largest real pixel.
    channels: of the result, at least those of the input; the rest are 0.
    """

    name: str
    input: str
    kind: str
    padding: tuple[int, int, int, int]
    channels: int


@dataclasses.dataclass(frozen=True)
class Sum:
    """The sum over all positions of each channel, (C, H, W) -> (C, 1, 1): sums -> sums."""

    name: str
    input: str


Node = Conv | Requantise | Add | Pool | Sum


@dataclasses.dataclass(frozen=True)
class Tensor:
    """What is known of a tensor before any picture is seen: shape (C, H, W), range, and zero points if it holds codes.

    low, high: no value can lie outside, whatever the picture. zero: int (C,) where it holds codes, else None.
    """

    shape: tuple[int, int, int]
    low: int
    high: int
    zero: np.ndarray | None


@dataclasses.dataclass(frozen=True, eq=False)
class Network:
    """A checked graph. The last node gives the logits, one per class; of equal ones the first class wins.

    zero: int (channels,), the pixel value that stands for real zero in each channel of the input, 0..255.
    nodes: each reads the input or nodes before it. logit_scale: real logit = integer logit * logit_scale, > 0; only
    probabilities need it. about: what made the network, JSON.
    Raises ModelError, naming the node, for a graph that is not well formed or whose sums could pass int32.
    """

    channels: int
    height: int
    width: int
    zero: np.ndarray
    nodes: tuple[Node, ...]
    classes: tuple[str, ...]
    logit_scale: float
    about: Mapping = dataclasses.field(default_factory=dict)
    tensors: Mapping[str, Tensor] = dataclasses.field(init=False, repr=False)  # by node name, and PIXELS

    def __post_init__(self):
        object.__setattr__(self, "tensors", _checked_tensors(self))

    @property
    def logits(self) -> str:
        """The name of the node that gives the logits."""
        return self.nodes[-1].name

    @property
    def weights(self) -> int:
        """The number of weights."""
        return sum(n.weights.size for n in self.nodes if isinstance(n, Conv))

    def multiplications(self, node: Node) -> int:
        """Return the multiplications that a node needs for a picture, computed from its constants.

        A weight of one bit adds or subtracts; a multiplier that is a power of two, or its negative, shifts.
        """
        _, height, width = shape = self.tensors[node.name].shape
        if isinstance(node, Conv) and node.weight_bits != 1:
            return macs(node, shape)
        if isinstance(node, Requantise):
            real = ~_is_power_of_two(np.abs(node.multiplier.astype(np.int64)))
            return int(np.broadcast_to(real, shape[:1]).sum()) * height * width
        if isinstance(node, Pool) and node.kind.startswith("mean"):  # a division by 9, 6 or 4
            return self.tensors[node.input].shape[0] * height * width
        return 0

    @property
    def total_multiplications(self) -> int:
        """Multiplications for a picture; 0 certifies the shift-only form."""
        return sum(map(self.multiplications, self.nodes))


def macs(node: Conv, shape: tuple[int, int, int]) -> int:
    """Return the additions and subtractions of a convolution whose result has that shape, padding included."""
    return node.weights[0].size * shape[0] * shape[1] * shape[2]


def _is_power_of_two(values: np.ndarray) -> np.ndarray:
    return (values & (values - 1)) == 0  # 0 too: a channel that is constant


def inputs_of(node: Node) -> tuple[str, ...]:
    """Return the names of the tensors that a node reads."""
    return node.inputs if isinstance(node, Add) else (node.input,)


# ------------------------------------------------------------------ checking


def _checked_tensors(network: Network) -> dict[str, Tensor]:
    def whole(value, low: int, high: int) -> bool:
        return type(value) is int and low <= value <= high

    shape = (network.channels, network.height, network.width)
    if not all(whole(side, 1, 2**15) for side in shape):
        raise ModelError(f"input is {shape}, expected (channels, height, width) of 1 to {2**15} each")
    zero = network.zero
    if zero.shape != (network.channels,) or zero.dtype.kind not in "iu" or zero.min() < 0 or zero.max() > 255:
        raise ModelError(f"input: zero points {zero.tolist()}, expected {network.channels} of 0 to 255")
    if not network.nodes:
        raise ModelError("the network has no nodes")
    if not (isinstance(network.logit_scale, float) and 0 < network.logit_scale < float("inf")):
        raise ModelError(f"logit scale is {network.logit_scale!r}, expected a positive number")
    tensors = {PIXELS: Tensor(shape, 0, 255, zero.astype(np.int64))}
    later = {n.name for n in network.nodes}
    unread: set[str] = {PIXELS}
    for node in network.nodes:
        where = f"{type(node).__name__.lower()} {node.name!r}"
        if node.name in tensors:
            raise ModelError(f"{where}: the name stands twice")
        for name in inputs_of(node):
            if name not in tensors:
                why = "comes later: a cycle, or out of order" if name in later else "does not exist"
                raise ModelError(f"{where}: reads {name!r}, which {why}")
        unread -= set(inputs_of(node))
        unread.add(node.name)
        tensors[node.name] = _CHECKS[type(node)](node, where, *(tensors[name] for name in inputs_of(node)))
    unread.discard(network.logits)
    if unread:
        raise ModelError(f"{sorted(unread)[0]!r} is read by no node")
    if tensors[network.logits].shape != (len(network.classes), 1, 1):
        raise ModelError(
            f"logits {network.logits!r} are {tensors[network.logits].shape}, expected {(len(network.classes), 1, 1)}"
        )
    return tensors


def _fits(tensor: Tensor, bounds: tuple[int, int]) -> bool:
    return bounds[0] <= tensor.low and tensor.high <= bounds[1]


def _moved(size: int, before: int, after: int, window: int, stride: int) -> int:
    """Return the positions of a window on an axis."""
    return (size + before + after - window) // stride + 1


def _check_padding(where: str, padding: tuple[int, ...], window: int) -> None:
    # Padding narrower than the window: so every position of the window meets a real pixel.
    if len(padding) != 4 or not all(type(p) is int and 0 <= p < window for p in padding):
        raise ModelError(f"{where}: padding {padding}, expected 4 of 0 to {window - 1}")


def _check_conv(node: Conv, where: str, x: Tensor) -> Tensor:
    if x.zero is None:
        raise ModelError(f"{where}: reads {node.input!r}, which holds no codes")
    w = node.weights
    if w.dtype != np.int8 or w.ndim != 4 or 0 in w.shape or w.shape[1] != w.shape[2] or w.shape[3] != x.shape[0]:
        raise ModelError(f"{where}: weights {w.dtype} {w.shape}, expected int8 (out, F, F, {x.shape[0]})")
    if node.weight_bits not in (1, 8):
        raise ModelError(f"{where}: {node.weight_bits} bits per weight, expected 1 or 8")
    if w.min() < -127 or (node.weight_bits == 1 and (w.min() < -1 or w.max() > 1 or not w.all())):
        raise ModelError(f"{where}: weights outside {'-1, +1' if node.weight_bits == 1 else '-127..127'}")
    if node.stride not in (1, 2):
        raise ModelError(f"{where}: stride is {node.stride!r}, expected 1 or 2")
    out, window = w.shape[0], w.shape[1]
    _check_padding(where, node.padding, window)
    top, left, bottom, right = node.padding
    height = _moved(x.shape[1], top, bottom, window, node.stride)
    width = _moved(x.shape[2], left, right, window, node.stride)
    if height < 1 or width < 1:
        raise ModelError(f"{where}: a {window} x {window} window does not fit {x.shape[1]} x {x.shape[2]} pixels")
    # The largest |sum|: every code as far from its zero point as it can be, all with the weight's sign.
    reach = np.maximum(x.high - x.zero, x.zero - x.low)  # (C,)
    bound = max(int(np.abs(one).sum((0, 1), dtype=np.int64) @ reach) for one in w)  # one by one: w may be large
    if bound > INT32[1]:
        raise ModelError(f"{where}: sums reach {bound}, expected at most {INT32[1]} (int32)")
    return Tensor((out, height, width), -bound, bound, None)


def _check_requantise(node: Requantise, where: str, x: Tensor) -> Tensor:
    for what, values, kind in (("multiplier", node.multiplier, np.int16), ("offset", node.offset, np.int32)):
        if values.dtype != kind or values.shape not in ((1,), x.shape[:1]):
            expected = f"{kind.__name__} of 1 or {x.shape[0]}"
            raise ModelError(f"{where}: {what} {values.dtype} {values.shape}, expected {expected}")
    if type(node.shift) is not int or not 0 <= node.shift <= MAX_SHIFT:
        raise ModelError(f"{where}: shift is {node.shift!r}, expected 0 to {MAX_SHIFT}")
    if not (type(node.low) is int and type(node.high) is int and INT32[0] <= node.low <= node.high <= INT32[1]):
        raise ModelError(f"{where}: range {node.low!r}..{node.high!r}, expected low <= high within int32")
    zero = None
    if node.zero is not None:
        if node.low < 0 or node.high > MAX_CODE:
            raise ModelError(f"{where}: codes {node.low}..{node.high}, expected within 0..{MAX_CODE}")
        if type(node.zero) is not int or not node.low <= node.zero <= node.high:
            raise ModelError(f"{where}: zero point is {node.zero!r}, expected {node.low} to {node.high}")
        zero = np.broadcast_to(np.int64(node.zero), x.shape[:1])
    m, b = node.multiplier.astype(np.int64), node.offset.astype(np.int64)
    ends = np.stack([m * x.low + b, m * x.high + b])
    if _is_power_of_two(np.abs(m)).all() and (ends.min() < INT32[0] or ends.max() > INT32[1]):
        raise ModelError(f"{where}: values reach {ends.min()}..{ends.max()} before the shift, expected int32")
    reached = np.clip(ends >> node.shift, node.low, node.high)  # both steps are monotone, so the ends bound the rest
    return Tensor(x.shape, int(reached.min()), int(reached.max()), zero)


def _check_add(node: Add, where: str, *terms: Tensor) -> Tensor:
    if len(terms) != 2:
        raise ModelError(f"{where}: adds {len(terms)} tensors, expected 2")
    a, b = terms
    if a.shape != b.shape:
        raise ModelError(f"{where}: adds {a.shape} and {b.shape}, expected equal shapes")
    if not (_fits(a, INT16) and _fits(b, INT16)):
        raise ModelError(f"{where}: reads {a.low}..{a.high} and {b.low}..{b.high}, expected int16")
    low, high = np.clip([a.low + b.low, a.high + b.high], *INT16).tolist()  # both ends may lie on one side
    return Tensor(a.shape, low, high, None)


def _check_pool(node: Pool, where: str, x: Tensor) -> Tensor:
    if node.kind not in POOLS:
        raise ModelError(f"{where}: {unknown_name('pooling', node.kind, POOLS)}")
    if not _fits(x, INT16):
        raise ModelError(f"{where}: reads {x.low}..{x.high}, expected int16")
    if type(node.channels) is not int or not x.shape[0] <= node.channels <= 2**15:
        raise ModelError(f"{where}: {node.channels!r} channels, expected {x.shape[0]} to {2**15}")
    _check_padding(where, node.padding, 3)
    top, left, bottom, right = node.padding
    height, width = _moved(x.shape[1], top, bottom, 3, 2), _moved(x.shape[2], left, right, 3, 2)
    if height < 1 or width < 1:
        raise ModelError(f"{where}: a 3 x 3 window does not fit {x.shape[1]} x {x.shape[2]} pixels")
    low, high = (x.low, x.high) if node.kind in ("max", "mean-real") else (min(x.low, 0), max(x.high, 0))
    if node.channels > x.shape[0]:
        low, high = min(low, 0), max(high, 0)
    return Tensor((node.channels, height, width), low, high, None)


def _check_sum(node: Sum, where: str, x: Tensor) -> Tensor:
    positions = x.shape[1] * x.shape[2]
    low, high = positions * x.low, positions * x.high
    if low < INT32[0] or high > INT32[1]:
        raise ModelError(f"{where}: sums reach {low}..{high}, expected int32")
    return Tensor((x.shape[0], 1, 1), low, high, None)


_CHECKS = {Conv: _check_conv, Requantise: _check_requantise, Add: _check_add, Pool: _check_pool, Sum: _check_sum}
