"""What a network costs at inference, layer by layer, without weights or pictures: traced on PyTorch's meta device.

**Multiplications left at inference**, for one picture. Multiplying by a power of two is a shift, and by +1 or -1 an
addition or subtraction, so neither counts.

    1-bit convolution, scale pow2     0
    1-bit convolution, scale he       1 per output value: the constant scale, applied once, when the sum is rescaled.
                                      0 where batch norm alone reads the output, for the scale folds into its
                                      multiplication: a block's first convolution, the head, in a plain network all.
                                      0 at the head without batch norm: see global average.
    32-bit convolution                1 per multiply-accumulate
    centred ReLU                      0: the mean is one more addition
    batch norm, fixed or learned      1 per value: a scale per channel, the offset is an addition. Not folded into
                                      32-bit weights, where that would be possible (it is under 1 % of them).
    shifted ReLU, ReLU, max pooling   0: comparisons
    skip path, avg3                   1 per pooled value (times 1/9, or with "same" padding 1/real pixels); not for
                                      the zero channels appended
    skip path, binomial               0: additions and shifts
    input standardisation             0: subtract an integer, divide by a power of two
    global average, temperature       0: they scale all logits of a picture by one positive number, as the head's he
                                      scale does, and which is largest stays the same. The integer network gives the
                                      logits as sums.

**Multiply-accumulates**: output positions * fan-in * output channels. Products with padded zeros count, for hardware
with a fixed inner loop does them; a 1-bit convolution does as many additions.

**Weights**: of the convolutions, and 32-bit constants per channel: one of a centred ReLU, two of a batch norm, which at
inference is a scale and an offset whether they were learned or come from the moments. Bits are packed, each layer
rounded up to whole bytes. What is one constant per layer (its scale) or per picture channel (the input's integer mean)
is left out.

**Activation memory**: bytes alive while a layer runs, in plain layer-by-layer execution: its input, its output, and
the residual stream kept for the skip. Values are 8-bit codes, 1 byte each; the residual stream, a sum over blocks, is
int16, 2 bytes; the head's sums and the logits are int32, 4 bytes, for nothing rescales them. Activations and batch
norms write over their input unless the skip path still needs it. A convolution's accumulators are registers.
"""

import copy
import dataclasses
import math

import torch
from torch import nn

from bitwren.errors import UsageError
from bitwren.recipe import Recipe
from bitwren.terminal import aligned, byte_count, ruled
from bitwren.train.layers import BinaryConv2d, CentredReLU, FloatConv2d, ShiftedReLU, Shortcut
from bitwren.train.networks import ACTIVATIONS, Block, ResidualNetwork
from bitwren.train.run import build_network

CODE_BYTES, RESIDUAL_BYTES, SUM_BYTES = 1, 2, 4
BN_CONSTANTS, CENTRE_CONSTANTS, CONSTANT_BITS = 2, 1, 32  # per channel: a scale and an offset, or an offset
WIDEST = 110  # columns of a terminal


@dataclasses.dataclass(frozen=True)
class Layer:
    """One layer for one picture.

    name: the module's in the network ("blocks.0.conv1"). kind: for people. output_shape: (C, H, W).
    bits_per_weight: 0 where there are no weights. activation_bytes: alive while the layer runs, not its output alone.
    """

    name: str
    kind: str
    output_shape: tuple[int, int, int]
    weights: int
    bits_per_weight: int
    macs: int
    multiplications: int
    activation_bytes: int

    @property
    def weight_bytes(self) -> int:
        """The weights' bits, packed, rounded up to whole bytes."""
        return -(-self.weights * self.bits_per_weight // 8)


@dataclasses.dataclass(frozen=True)
class Summary:
    """The layers of a network in the order they run. input_shape: (C, H, W) of the picture."""

    input_shape: tuple[int, int, int]
    layers: tuple[Layer, ...]

    @property
    def weights(self) -> int:
        """Weights of the convolutions and constants of the batch norms and centred ReLUs."""
        return sum(layer.weights for layer in self.layers)

    @property
    def conv_weights(self) -> int:
        """Weights of the convolutions, the number that papers state. Only convolutions multiply and accumulate."""
        return sum(layer.weights for layer in self.layers if layer.macs)

    @property
    def weight_bytes(self) -> int:
        """Bytes that all weights take."""
        return sum(layer.weight_bytes for layer in self.layers)

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one picture."""
        return sum(layer.macs for layer in self.layers)

    @property
    def multiplications(self) -> int:
        """Multiplications left at inference for one picture."""
        return sum(layer.multiplications for layer in self.layers)

    @property
    def peak_activation_bytes(self) -> int:
        """The most bytes of activations alive at once."""
        return max(layer.activation_bytes for layer in self.layers)


@dataclasses.dataclass(frozen=True)
class _Value:
    """A tensor of one picture, on the meta device, and the bytes that each of its values takes when deployed."""

    tensor: torch.Tensor  # (1, C, H, W)
    value_bytes: int

    @property
    def shape(self) -> tuple[int, int, int]:
        return tuple(self.tensor.shape[1:])

    @property
    def nbytes(self) -> int:
        return self.tensor.numel() * self.value_bytes


class _Walk:
    """Runs a network's layers one by one, in the order of its forward pass, and writes a row for each."""

    def __init__(self):
        self.rows: list[Layer] = []

    def _row(self, name, kind, x: _Value, y: _Value, *, kept=0, in_place=False, cost=(0, 0, 0, 0)) -> _Value:
        """kept: bytes alive beside input and output. cost: weights, bits per weight, macs, multiplications."""
        alive = max(x.nbytes, y.nbytes) if in_place else x.nbytes + y.nbytes
        self.rows.append(Layer(name, kind, y.shape, *cost, alive + kept))
        return y

    def conv(self, name: str, conv: FloatConv2d, x: _Value, out_bytes: int, *, folded: bool, kept: int = 0) -> _Value:
        """folded: the next layer takes over a constant scale."""
        (height, width), (stride, _) = conv.kernel_size, conv.stride
        y = _Value(conv(x.tensor), out_bytes)
        values = math.prod(y.shape)
        macs = values * conv.fan_in
        bits, multiplications = 32, macs
        if isinstance(conv, BinaryConv2d):
            bits, multiplications = 1, values if conv.layer_scale == "he" and not folded else 0
        kind = f"conv {height}x{width}" + (f" /{stride}" if stride > 1 else "")
        return self._row(name, kind, x, y, kept=kept, cost=(conv.weight.numel(), bits, macs, multiplications))

    def elementwise(self, name: str, module: nn.Module, x: _Value, out_bytes: int, *, kept=0, in_place=True) -> _Value:
        y = _Value(module(x.tensor), out_bytes)
        if isinstance(module, CentredReLU):
            cost = (CENTRE_CONSTANTS * len(module.mean), CONSTANT_BITS, 0, 0)
            return self._row(name, "centred ReLU", x, y, kept=kept, in_place=in_place, cost=cost)
        norm = module[0] if isinstance(module, nn.Sequential) else module
        if not isinstance(norm, nn.BatchNorm2d):
            kind = "shifted ReLU" if isinstance(module, ShiftedReLU) else "standardise"
            return self._row(name, kind, x, y, kept=kept, in_place=in_place)
        kind = "batch norm" if norm is module else "BN + ReLU"
        cost = (BN_CONSTANTS * norm.num_features, CONSTANT_BITS, 0, math.prod(y.shape))
        return self._row(name, kind, x, y, kept=kept, in_place=in_place, cost=cost)

    def skip_pool(self, name: str, shortcut: Shortcut, x: _Value, branch: _Value) -> None:
        y = _Value(shortcut(x.tensor), RESIDUAL_BYTES)
        pooled = x.shape[0] * math.prod(y.shape[1:])  # what is appended is zero
        mean = shortcut.kind == "avg3"
        kind = f"{'mean' if mean else 'binomial'} 3x3 /{shortcut.stride}"
        self._row(name, kind, x, y, kept=branch.nbytes, cost=(0, 0, 0, pooled if mean else 0))

    def block(self, name: str, block: Block, x: _Value) -> _Value:
        skip, norm = block.shortcut is not None, not isinstance(block.act1, ShiftedReLU)
        kept = x.nbytes if skip else 0
        h = self.elementwise(f"{name}.act1", block.act1, x, CODE_BYTES, in_place=not skip)
        h = self.conv(f"{name}.conv1", block.conv1, h, CODE_BYTES, folded=norm, kept=kept)
        h = self.elementwise(f"{name}.act2", block.act2, h, CODE_BYTES, kept=kept)
        # With a skip path the sum, not this output, goes into the next batch norm, so the scale does not fold.
        out_bytes = RESIDUAL_BYTES if skip else CODE_BYTES
        h = self.conv(f"{name}.conv2", block.conv2, h, out_bytes, folded=norm and not skip, kept=kept)
        if skip and block.shortcut.stride > 1:
            self.skip_pool(f"{name}.shortcut", block.shortcut, x, h)
        return h

    def network(self, network: ResidualNetwork, x: _Value) -> None:
        norm, skip = network.head_norm is not None, network.blocks[0].shortcut is not None
        stream = RESIDUAL_BYTES if skip else CODE_BYTES
        folded = norm and not skip
        x = self.elementwise("input", network.input, x, CODE_BYTES)
        if isinstance(network.stem, nn.Sequential):  # a positive scale passes through the max pool
            x = self.conv("stem.0", network.stem[0], x, stream, folded=folded)
            pool = network.stem[1]
            kind = f"max pool {pool.kernel_size}x{pool.kernel_size} /{pool.stride}"
            x = self._row("stem.1", kind, x, _Value(pool(x.tensor), stream))
        else:
            x = self.conv("stem", network.stem, x, stream, folded=folded)
        for index, block in enumerate(network.blocks):
            x = self.block(f"blocks.{index}", block, x)
        x = self.elementwise("act", network.act, x, CODE_BYTES)
        x = self.conv("head", network.head, x, SUM_BYTES, folded=True)
        if norm:
            x = self.elementwise("head_norm", network.head_norm, x, SUM_BYTES)
        self._row("mean", "global average", x, _Value(x.tensor.mean((2, 3), keepdim=True), SUM_BYTES))


def _on_meta(network: ResidualNetwork) -> ResidualNetwork:
    """Return a copy without storage; the network itself, its weights and its mode stay as they are."""
    shadows = {id(b): b.to("meta") for b in network.buffers()}
    shadows |= {id(p): nn.Parameter(p.detach().to("meta")) for p in network.parameters()}
    return copy.deepcopy(network, shadows).eval()  # deepcopy takes from its memo what it finds there


@torch.no_grad()
def summarise(network: ResidualNetwork, size: tuple[int, int]) -> Summary:
    """Return what the network costs for one picture of size (height, width), by the rules at the top of this file.

    network: on any device, the meta device included; nothing is computed. Raises UsageError for a size below 1.
    """
    if min(size) < 1:
        raise UsageError(f"size is {size[0]} x {size[1]}, expected at least 1 x 1")
    shape = (network.channels, *size)
    picture = torch.empty((1, *shape), dtype=network.head.weight.dtype, device="meta")
    walk = _Walk()
    walk.network(_on_meta(network), _Value(picture, CODE_BYTES))
    return Summary(shape, tuple(walk.rows))


def summarise_recipe(recipe: Recipe, channels: int, classes: int, size: tuple[int, int]) -> Summary:
    """Return the summary of a recipe's network, which is never given storage.

    Raises UsageError for a network that the recipe cannot make, or a size below 1.
    """
    with torch.device("meta"):
        network = build_network(recipe, channels, classes)
    return summarise(network, size)


def compare_activations(recipe: Recipe, channels: int, classes: int, size: tuple[int, int]) -> dict[str, Summary]:
    """Return the recipe's network with each activation, as {"srelu, 1 bit": summary, "bn, 1 bit": summary}."""
    summaries = {}
    for activation in ACTIVATIONS:
        centre = recipe.network.centre and activation != "bn"
        options = dataclasses.replace(recipe.network, activation=activation, centre=centre)
        variant = dataclasses.replace(recipe, network=options)
        name = f"{activation}, {recipe.network.weight_bits} bit"
        summaries[name] = summarise_recipe(variant, channels, classes, size)
    return summaries


def _totals(summary: Summary) -> dict[str, str]:
    return {
        "convolution weights": f"{summary.conv_weights:,}",
        "constants of channels": f"{summary.weights - summary.conv_weights:,}",
        "bytes of both": byte_count(summary.weight_bytes),
        "multiply-accumulates": f"{summary.macs:,}",
        "multiplications left": f"{summary.multiplications:,}",
        "peak activation memory": byte_count(summary.peak_activation_bytes),
    }


def format_summary(summary: Summary) -> str:
    """Return a table for the terminal, a line per layer and the totals below; at most 110 columns."""
    rows = [("layer", "kind", "output", "weights", "bits", "MACs", "mults left", "memory")]
    for layer in summary.layers:
        weights = (f"{layer.weights:,}", str(layer.bits_per_weight)) if layer.weights else ("-", "-")
        rows.append((
            layer.name, layer.kind, "x".join(map(str, layer.output_shape)), *weights,
            f"{layer.macs:,}" if layer.macs else "-", f"{layer.multiplications:,}", byte_count(layer.activation_bytes),
        ))
    lines = aligned(rows, left=3)
    lines = lines if len(lines[0]) <= WIDEST else aligned(rows, left=3, gap=1)
    channels, height, width = summary.input_shape
    totals = "\n".join(aligned(list(_totals(summary).items()), left=1))
    return f"one picture, {channels} x {height} x {width}\n\n{ruled(lines)}\n\n{totals}"


def format_comparison(summaries: dict[str, Summary]) -> str:
    """Return the totals of several networks, a column each, for the terminal."""
    totals = [_totals(summary) for summary in summaries.values()]
    rows = [("", *summaries), *((key, *(t[key] for t in totals)) for key in totals[0])]
    return ruled(aligned(rows, left=1))
