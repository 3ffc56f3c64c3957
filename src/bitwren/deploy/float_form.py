"""An integer network as the float network it stands for, in the form that suits a float or int8 engine best.

What a deployer does by hand is done here: whatever is only a change of scale disappears, a batch norm that follows a
convolution goes into its weights and bias, the mean goes in front of the head's 1x1 convolution. What integers alone
need is left out: rounding (floor is taken as "less a half"), saturation at the upper end and at the ends of int16.
So the classes agree with the integer network's but for a few pictures, and other engines are measured at their best.

Every tensor of the integer network has a real value, (q - zero) * unit. Units are chosen on the way, so that a
requantise by one number is no operation at all, and a shifted ReLU is max(x, floor) and nothing else.
"""

import dataclasses

import numpy as np

from bitwren.network.graph import BINOMIAL, INT16, INT32, PIXELS, Add, Conv, Network, Pool, Requantise, Sum, inputs_of

Padding = tuple[int, int, int, int]  # top, left, bottom, right


@dataclasses.dataclass(frozen=True, eq=False)
class FloatConv:
    """max(convolution + bias, floor). weights: float32 (out, in / groups, F, F); bias: float32 (out,).

    floor: None where nothing is cut off, 0.0 for ReLU, else a shifted ReLU. Padding is with 0.
    """

    name: str
    input: str
    weights: np.ndarray
    bias: np.ndarray
    stride: int
    padding: Padding
    groups: int = 1
    floor: float | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class FloatAffine:
    """max(gain * x + bias, floor) for each channel, float32 (C,); None is 1, 0 and no floor."""

    name: str
    input: str
    gain: np.ndarray | None
    bias: np.ndarray | None
    floor: float | None


@dataclasses.dataclass(frozen=True)
class FloatAdd:
    """a + b."""

    name: str
    inputs: tuple[str, str]


@dataclasses.dataclass(frozen=True)
class FloatPool:
    """A 3 x 3 window moved by 2; kind: "mean", "mean-real" or "max" as in graph.Pool."""

    name: str
    input: str
    kind: str
    padding: Padding


@dataclasses.dataclass(frozen=True)
class Append:
    """Zero channels behind those of the input."""

    name: str
    input: str
    channels: int


@dataclasses.dataclass(frozen=True)
class GlobalMean:
    """The mean over all positions, (C, H, W) -> (C, 1, 1)."""

    name: str
    input: str


Step = FloatConv | FloatAffine | FloatAdd | FloatPool | Append | GlobalMean


@dataclasses.dataclass(frozen=True, eq=False)
class FloatForm:
    """Steps from pixels, float32 (channels, height, width) of 0..255, to the last one's result, (classes, 1, 1).

    channels: of each step's result and of the pixels, by name.
    """

    shape: tuple[int, int, int]
    steps: tuple[Step, ...]
    channels: dict[str, int]

    @property
    def logits(self) -> str:
        """The name of the last step."""
        return self.steps[-1].name


def float_form(network: Network) -> FloatForm:
    """Return the float network that an integer network stands for."""
    builder = _Builder(network)
    for node in network.nodes:
        builder.add(node)
    return builder.finish()


@dataclasses.dataclass(frozen=True, eq=False)
class _Value:
    """A tensor whose step exists: real = (q - zero) * unit, where zero is that of the integer tensor."""

    name: str
    unit: float


@dataclasses.dataclass(frozen=True, eq=False)
class _Pending:
    """A convolution not yet written, so that what follows can go into it: gain * conv(input) + bias."""

    node: Conv
    input: str
    gain: np.ndarray  # float64 (out,)
    bias: np.ndarray  # float64 (out,)
    unit: float

    def scaled(self, factor: float) -> "_Pending":
        return dataclasses.replace(self, gain=self.gain * factor, bias=self.bias * factor, unit=self.unit * factor)


class _Builder:
    def __init__(self, network: Network):
        self.network, self.steps = network, []
        self.channels = {PIXELS: network.channels}
        self.values: dict[str, _Value | _Pending] = {}
        self.readers: dict[str, int] = {}
        for node in network.nodes:
            for name in inputs_of(node):
                self.readers[name] = self.readers.get(name, 0) + 1
        self.names = {PIXELS, *network.tensors}

    def finish(self) -> FloatForm:
        last = self.network.logits
        written = self.written(last)
        if not self.steps or self.steps[-1].name != written.name:  # the last node changed nothing
            self.append(FloatAffine(self.new_name(last), written.name, None, None, None), len(self.network.classes))
        shape = (self.network.channels, self.network.height, self.network.width)
        return FloatForm(shape, tuple(self.steps), self.channels)

    def new_name(self, wanted: str) -> str:
        """Return the wanted name, or that with a number, where a step has it already."""
        name, count = wanted, 1
        while name in self.channels:
            count += 1
            name = f"{wanted}.{count}"
        return name

    def append(self, step: Step, channels: int) -> str:
        self.steps.append(step)
        self.channels[step.name] = channels
        return step.name

    def written(self, name: str, floor: float | None = None) -> _Value:
        """Return a tensor whose step exists, appending that of a pending convolution."""
        value = self.values[name]
        if isinstance(value, _Pending):
            value = self.values[name] = self.write_conv(name, value, floor)
        return value

    def write_conv(self, name: str, conv: _Pending, floor: float | None) -> _Value:
        weights = conv.node.weights.transpose(0, 3, 1, 2) * conv.gain[:, None, None, None]
        step = FloatConv(
            self.new_name(name),
            conv.input,
            weights.astype(np.float32),
            conv.bias.astype(np.float32),
            conv.node.stride,
            conv.node.padding,
            floor=floor,
        )
        return _Value(self.append(step, len(weights)), conv.unit)

    def add(self, node) -> None:
        match node:
            case Conv():
                self.add_conv(node)
            case Requantise():
                self.add_requantise(node)
            case Add():
                self.add_add(node)
            case Pool():
                self.add_pool(node)
            case Sum():
                self.add_sum(node)
        if self.readers.get(node.name, 0) > 1:  # folding it into one of its readers would compute it twice
            self.written(node.name)

    def add_conv(self, node: Conv) -> None:
        source = self.centred_pixels() if node.input == PIXELS else self.written(node.input)
        out = len(node.weights)
        self.values[node.name] = _Pending(node, source.name, np.ones(out), np.zeros(out), source.unit)

    def centred_pixels(self) -> _Value:
        if PIXELS not in self.values:
            name, zero = PIXELS, self.network.zero
            if zero.any():
                name = self.new_name(f"{PIXELS}.centred")
                step = FloatAffine(name, PIXELS, None, -zero.astype(np.float32), None)
                self.append(step, self.network.channels)
            self.values[PIXELS] = _Value(name, 1.0)
        return self.values[PIXELS]

    def add_requantise(self, node: Requantise) -> None:
        tensor = self.network.tensors[node.input]
        gain = node.multiplier.astype(np.float64) / 2.0**node.shift
        half = 0.5 if node.shift else 0.0  # floor(x) is x less a half, on average
        bias = node.offset / 2.0**node.shift - half - (node.zero or 0)
        if node.input == PIXELS:
            source = _Value(PIXELS, 1.0)  # raw
        else:
            source = self.values[node.input]
            if tensor.zero is not None:
                bias = bias + gain * tensor.zero
        # In integers the result, less its zero point, is gain * (x - zero) + bias. Its unit makes the mean gain 1.
        unit = source.unit / (np.abs(gain).mean() or 1.0)
        gain, bias = gain * unit / source.unit, bias * unit
        floor = None
        ends = [(int(m) * x + int(b)) >> node.shift for x in (tensor.low, tensor.high)
                for m, b in np.broadcast(node.multiplier, node.offset)]
        if min(ends) < node.low and node.low not in (INT16[0], INT32[0]):
            floor = float(unit * (node.low - (node.zero or 0)))
        if isinstance(source, _Pending):
            folded = dataclasses.replace(source, gain=source.gain * gain, bias=source.bias * gain + bias, unit=unit)
            self.values[node.name] = folded
            if floor is not None:
                self.written(node.name, floor)
            return
        self.values[node.name] = self.affine(node.name, source.name, gain, bias, floor, unit)

    def affine(self, name: str, source: str, gain, bias, floor: float | None, unit: float) -> _Value:
        channels = self.channels[source]
        gain = None if (gain == 1).all() else np.broadcast_to(gain, channels).astype(np.float32)
        bias = None if (bias == 0).all() else np.broadcast_to(bias, channels).astype(np.float32)
        if gain is None and bias is None and floor is None:
            return _Value(source, unit)
        return _Value(self.append(FloatAffine(self.new_name(name), source, gain, bias, floor), channels), unit)

    def add_add(self, node: Add) -> None:
        first, second = node.inputs
        a, b = self.values[first], self.values[second]
        if a.unit != b.unit:
            if isinstance(b, _Pending):
                self.values[second] = b.scaled(a.unit / b.unit)
            elif isinstance(a, _Pending):
                self.values[first] = a.scaled(b.unit / a.unit)
            else:
                ratio = np.array([a.unit / b.unit])
                self.values[second] = self.affine(second, b.name, ratio, np.zeros(1), None, a.unit)
        a, b = self.written(first), self.written(second)
        name = self.append(FloatAdd(self.new_name(node.name), (a.name, b.name)), self.channels[a.name])
        self.values[node.name] = _Value(name, a.unit)

    def add_pool(self, node: Pool) -> None:
        source = self.written(node.input)
        channels = self.channels[source.name]
        name = self.new_name(node.name)
        if node.kind == "binomial":
            weights = np.broadcast_to((BINOMIAL / 16).astype(np.float32), (channels, 1, 3, 3)).copy()
            bias = np.zeros(channels, np.float32)
            self.append(FloatConv(name, source.name, weights, bias, 2, node.padding, channels), channels)
        else:
            self.append(FloatPool(name, source.name, node.kind, node.padding), channels)
        if node.channels > channels:
            step = Append(self.new_name(f"{node.name}.wide"), name, node.channels - channels)
            name = self.append(step, node.channels)
        self.values[node.name] = _Value(name, source.unit)

    def add_sum(self, node: Sum) -> None:
        _, height, width = self.network.tensors[node.input].shape
        value = self.values[node.input]
        if isinstance(value, _Pending) and value.node.weights.shape[1] == value.node.stride == 1:
            # A mean before a 1x1 convolution is the same and leaves it one position to compute.
            mean = self.mean(f"{node.name}.mean", value.input)
            self.values[node.name] = dataclasses.replace(value, input=mean, unit=value.unit / (height * width))
            return
        source = self.written(node.input)
        self.values[node.name] = _Value(self.mean(node.name, source.name), source.unit / (height * width))

    def mean(self, wanted: str, source: str) -> str:
        return self.append(GlobalMean(self.new_name(wanted), source), self.channels[source])
