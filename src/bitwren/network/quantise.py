"""Folded float network + scales -> integer network (docs/integer-network.md). NumPy only.

A code q stands for the real value (q - zero) * step, a stream value r for r * 2**-exponent, a sum for sum * scale with
the scale that its codes and weights give; to that comes the tensor's base, mostly 0. Where two scales meet stands a
Requantise, whose constants come from the ratio of the scales: a shift where that is a power of two and the same for all
channels, else a fixed-point multiplier.

Shifted ReLU: max(x, -1) is 0 in codes when zero * step = 1, so the clamp of the codes IS the activation. Its scale is
therefore given by the zero point alone, step = 1 / zero; with a power of two only shifts are left. Activations too
large for step 1 take a step of 2 or more with zero point 0 and base -1: code 0 is -1 again, the value that most of them
have. What the base adds to a filter's sum is a constant, which the next requantise brings in: an offset per channel. It
is the mean over all positions, for at the borders, where padding is no -1 but 0, it is less.
"""

import dataclasses
import math
from collections.abc import Mapping

import numpy as np

from bitwren.errors import ModelError
from bitwren.network.folded import Affine, Centre, FoldedConv, FoldedNetwork, window_padding
from bitwren.network.graph import (
    INT16,
    INT32,
    MAX_SHIFT,
    PIXELS,
    Add,
    Conv,
    Network,
    Node,
    Pool,
    Requantise,
    Sum,
)

_NO_BASE = np.zeros(1)
LOGIT_BITS = 16  # of the fraction, for logits that a batch norm scales class by class


@dataclasses.dataclass(frozen=True)
class Scales:
    """The free choices of a conversion.

    bits: of a code, 4 to 9. steps: real value of one code, by activation name ("block3.act1", "act"); of a shifted ReLU
    1 / zero point, or 2 and more. exponents: of the stream 2**-exponent is the real value of 1, by block name ("stem",
    "block1", ...).
    """

    bits: int
    steps: Mapping[str, float]
    exponents: Mapping[str, int]


def zero_point(step: float) -> int:
    """Return the zero point of a shifted ReLU's codes: the code of -1 is then 0, exactly where 1 / step is whole."""
    return round(1 / step)


def base(step: float) -> float:
    """Return the real value of the zero point of a shifted ReLU's codes: 0, or -1 where the step passes 1."""
    return -1.0 if step > 1 else 0.0


def activation_names(network: FoldedNetwork) -> list[str]:
    """Return the names of the activations, in the order of the data."""
    blocks = range(1, len(network.blocks) + 1)
    return [f"block{i}.act{j}" for i in blocks for j in (1, 2)] + ["act"]


def requantise_constants(gain: np.ndarray, bias: np.ndarray, where: str) -> tuple[np.ndarray, np.ndarray, int]:
    """Return multiplier int16, offset int32 and shift that compute round(gain * x + bias), halves up.

    gain, bias: float64, both (1,) or (C,). The offset holds the half that makes the floor of >> a rounding. Exact where
    all gains are one power of two; else the multiplier has 15 bits, fewer only if the offset would not fit.
    Raises ModelError where the offset does not fit int32 or a gain is too large.
    """
    mantissa, power = math.frexp(abs(gain[0]))
    if mantissa == 0.5 and np.all(gain == gain[0]) and -MAX_SHIFT <= power - 1 <= 14:
        shifts = [max(0, 1 - power)]
    else:
        largest = np.abs(gain).max()
        if not 0 < largest < 2**15:
            raise ModelError(f"{where}: scale ratio {largest}, expected above 0 and below {2**15}")
        start = min(MAX_SHIFT, math.floor(math.log2((2**15 - 1) / largest)))
        shifts = range(start, -1, -1)
    for shift in shifts:
        multiplier = np.round(gain * 2.0**shift)
        scaled = bias * 2.0**shift
        # Beside the half a fraction of the offset never matters, so 0.5 goes down; without, it is the rounding itself.
        offset = np.ceil(scaled - 0.5) + (1 << shift - 1) if shift else np.floor(scaled + 0.5)
        if np.abs(multiplier).max() < 2**15 and INT32[0] <= offset.min() and offset.max() <= INT32[1]:
            return _single(multiplier).astype(np.int16), _single(offset).astype(np.int32), shift
    raise ModelError(f"{where}: offset {np.abs(bias).max():.3g} does not fit beside a scale ratio of {gain[0]:.3g}")


def _single(values: np.ndarray) -> np.ndarray:
    return values[:1] if np.all(values == values[0]) else values


def _inside(side: int, conv: Conv, before: int, after: int) -> np.ndarray:
    """Return at how many positions along an axis each row of the window lies in the picture, (F,)."""
    window = conv.weights.shape[1]
    first = np.arange(0, side + before + after - window + 1, conv.stride) - before
    at = first[:, None] + np.arange(window)
    return ((at >= 0) & (at < side)).sum(0)


class _Builder:
    """Nodes so far, and scale and base of each tensor: (1,) or (C,) float64; real = (integer - zero) * scale + base."""

    def __init__(self, channels: int, height: int, width: int, zero: np.ndarray):
        self.input = (channels, height, width)
        self.zero = zero
        self.nodes: list[Node] = []
        self.scale, self.base = {PIXELS: np.ones(1)}, {PIXELS: np.zeros(1)}
        self.shape = {PIXELS: self.input}

    def put(self, node: Node, shape: tuple[int, int, int], scale: np.ndarray, base: np.ndarray = _NO_BASE) -> str:
        self.nodes.append(node)
        self.scale[node.name], self.base[node.name], self.shape[node.name] = scale, base, shape
        return node.name

    def conv(self, name: str, source: str, conv: FoldedConv) -> str:
        _, height, width = self.shape[source]
        padding = conv.padding(height, width)
        weights, scale = conv.weights, np.array([conv.scale])
        if conv.bits != 1:  # int8, one scale for each output channel
            scale = np.maximum(np.abs(weights).max((1, 2, 3)), 1e-30) / 127
            weights = np.round(weights / scale[:, None, None, None])
            scale = scale * conv.scale
        node = Conv(name, source, weights.astype(np.int8), 1 if conv.bits == 1 else 8, conv.stride, padding)
        window = weights.shape[1]
        size = tuple(
            (side + before + after - window) // conv.stride + 1
            for side, before, after in ((height, padding[0], padding[2]), (width, padding[1], padding[3]))
        )
        scale = self.scale[source] * scale
        inside = np.outer(_inside(height, node, *padding[::2]), _inside(width, node, *padding[1::2]))
        # Whole numbers up to the one division: a half stays a half, on every machine.
        mean = (node.weights.sum(3, dtype=np.int64) * inside).sum((1, 2)) / math.prod(size)
        constant = mean * (self.base[source] / self.scale[source])
        return self.put(node, (len(weights), *size), scale, np.round(constant) * scale)  # a whole number of sums

    def requantise(
        self, name, source, affine: Affine | None, step: float, low: int, high: int, zero: int | None, base: float = 0.0
    ) -> str:
        """Give ((affine(real) - base) / step) + zero, clamped."""
        scale, bias = self.scale[source], self.base[source]
        if affine is not None:
            scale, bias = scale * affine.gain, bias * affine.gain + affine.bias
        gain, bias = np.broadcast_arrays(scale / step, (bias - base) / step + (zero or 0))
        node = Requantise(name, source, *requantise_constants(gain, bias, name), low, high, zero)
        return self.put(node, self.shape[source], np.array([step]), np.array([base]))

    def codes(self, name: str, source: str, norm: Affine | Centre | None, step: float, bits: int) -> str:
        """The activation: batch norm and ReLU for an Affine, else the shifted ReLU."""
        top = 2**bits - 1
        if isinstance(norm, Affine):
            return self.requantise(name, source, norm, step, 0, top, 0)
        shift = None if norm is None else Affine(np.ones_like(norm.mean), -norm.mean)
        return self.requantise(name, source, shift, step, 0, top, zero_point(step), base(step))

    def stream(self, name: str, source: str, exponent: int) -> str:
        return self.requantise(name, source, None, 2.0**-exponent, *INT16, None)


def quantise(network: FoldedNetwork, scales: Scales, about: Mapping) -> Network:
    """Return the integer network. Raises ModelError, by name, for scales or sums that do not fit."""
    shape = (network.channels, network.height, network.width)
    zero = np.zeros(network.channels, np.int64) if network.whole_zero is None else network.whole_zero
    build = _Builder(*shape, zero)
    source = PIXELS
    if network.whole_zero is not None:
        build.scale[PIXELS] = network.pixels.gain[:1]
    else:  # real values of any scale for each channel: codes with one
        ends = np.stack([network.pixels.bias, 255 * network.pixels.gain + network.pixels.bias])
        low, high = min(ends.min(), 0.0), max(ends.max(), 0.0)
        top = 2**scales.bits - 1
        step = (high - low) / top
        source = build.requantise("input", PIXELS, network.pixels, step, 0, top, round(-low / step))
    x = build.conv("stem", source, network.stem)
    residual = not network.blocks or network.blocks[0].pool is not None
    if residual or network.max_pool:
        x = build.stream("stem.stream", x, scales.exponents["stem"])
    if network.max_pool:
        x = _pool(build, "stem.pool", x, "max", False, 0)
    for index, block in enumerate(network.blocks, 1):
        name = f"block{index}"
        codes = build.codes(f"{name}.act1", x, block.norm1, scales.steps[f"{name}.act1"], scales.bits)
        inner = build.conv(f"{name}.conv1", codes, block.conv1)
        codes = build.codes(f"{name}.act2", inner, block.norm2, scales.steps[f"{name}.act2"], scales.bits)
        branch = build.conv(f"{name}.conv2", codes, block.conv2)
        if block.pool is None:
            x = branch
            continue
        exponent = scales.exponents[name]
        if block.pool != "identity":
            x = _pool(build, f"{name}.pool", x, block.pool, block.conv1.same, block.new_channels)
        if build.scale[x][0] != 2.0**-exponent:
            x = build.stream(f"{name}.skip", x, exponent)
        branch = build.stream(f"{name}.branch", branch, exponent)
        x = build.put(Add(name, (x, branch)), build.shape[x], build.scale[x])
    codes = build.codes("act", x, network.norm, scales.steps["act"], scales.bits)
    x = build.conv("head", codes, network.head)
    positions = build.shape[x][1] * build.shape[x][2]
    x = build.put(Sum("sum", x), (build.shape[x][0], 1, 1), build.scale[x], build.base[x] * positions)
    head_norm = network.head_norm
    if head_norm is None and len(build.scale[x]) > 1:  # 8-bit weights: each class has a scale of its own
        head_norm = Affine(np.ones(len(network.classes)), np.zeros(len(network.classes)))
    logit_scale = build.scale[x][0] / (positions * network.temperature)
    if head_norm is not None:
        mean = Affine(head_norm.gain / positions, head_norm.bias)
        build.requantise("logits", x, mean, 2.0**-LOGIT_BITS, *INT32, None)
        logit_scale = 2.0**-LOGIT_BITS / network.temperature
    elif build.base[x].any():
        build.requantise("logits", x, None, float(build.scale[x][0]), *INT32, None)
    return Network(*shape, zero, tuple(build.nodes), network.classes, float(logit_scale), about)


def _pool(build: _Builder, name: str, source: str, kind: str, same: bool, new_channels: int) -> str:
    channels, height, width = build.shape[source]
    top, left, bottom, right = padding = window_padding(3, 2, same, height, width)
    shape = (channels + new_channels, (height + top + bottom - 3) // 2 + 1, (width + left + right - 3) // 2 + 1)
    return build.put(Pool(name, source, kind, padding, channels + new_channels), shape, build.scale[source])


def stream_exponent(largest: float, headroom: float = 2.0) -> int:
    """Return the exponent of a stream whose values reach `largest` in magnitude, with that much room above."""
    return min(14, math.floor(math.log2(INT16[1] / max(headroom * largest, 1e-9))))
