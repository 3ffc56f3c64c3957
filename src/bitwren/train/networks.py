"""The networks: wide residual networks D-K for small pictures and the 18-layer one for ImageNet, with 1-bit weights.

                 wide ResNet D-K                         ResNet 18-K
    stem         conv 3x3 -> 16K                         conv 7x7 stride 2 -> 64K, max pool 3x3 stride 2
    stages       3 of (D-2)/6 blocks: 16K 32K 64K        4 of 2 blocks: 64K 128K 256K 512K
    head         act, conv 1x1 -> classes, global average, divided by the temperature

A block is act, conv 3x3, act, conv 3x3, plus the skip path; "act" is batch norm and ReLU, or the shifted ReLU. The
first block of every stage but the first has stride 2, and its skip path halves the picture and appends zero channels.
The last convolution comes before the pooling (method: arXiv 1802.08530 and 1907.06916).
"""

import math

import torch
from torch import Tensor, nn

from bitwren.errors import UsageError, unknown_name
from bitwren.train.layers import (
    DOWNSAMPLES,
    LAYER_SCALES,
    PLAIN_GAIN,
    RESIDUAL_GAIN,
    BinaryConv2d,
    CentredReLU,
    FloatConv2d,
    ShiftedReLU,
    Shortcut,
    Standardise,
)

ACTIVATIONS = ("srelu", "bn")
INPUTS = ("auto", "standardise", "batchnorm")
BN_EPSILON = 1e-5
DEFAULT_TEMPERATURE = 40.0  # the paper's value for shifted ReLU, 1 bit, CIFAR-10


class _Builder:
    """Makes the layers of one network, so that each option is read in one place."""

    def __init__(
        self,
        activation: str,
        weight_bits: int,
        layer_scale: str,
        signs: str,
        padding: str,
        skip: bool,
        bn_affine: bool,
        centre: bool,
    ):
        if activation not in ACTIVATIONS:
            raise unknown_name("activation", activation, ACTIVATIONS)
        if weight_bits not in (1, 32):
            raise UsageError(f"weight_bits is {weight_bits}, expected 1 or 32")
        if layer_scale not in LAYER_SCALES:
            raise unknown_name("layer scale", layer_scale, LAYER_SCALES)
        if centre and activation == "bn":
            raise UsageError("centre is true, expected false beside batch norm, which subtracts the mean itself")
        self.batch_norm, self.bn_affine, self.padding = activation == "bn", bn_affine, padding
        self.centre = centre
        self.weight_bits, self.layer_scale, self.signs = weight_bits, layer_scale, signs
        self.gain = RESIDUAL_GAIN if skip else PLAIN_GAIN

    def conv(self, in_channels: int, out_channels: int, kernel: int = 3, stride: int = 1) -> FloatConv2d:
        shape = (in_channels, out_channels, kernel, stride, self.padding)
        if self.weight_bits == 1:
            return BinaryConv2d(*shape, gain=self.gain, layer_scale=self.layer_scale, signs=self.signs)
        return FloatConv2d(*shape, gain=self.gain)

    def norm(self, channels: int, affine: bool | None = None) -> nn.BatchNorm2d:
        return nn.BatchNorm2d(channels, eps=BN_EPSILON, affine=self.bn_affine if affine is None else affine)

    def act(self, channels: int, inplace: bool) -> nn.Module:
        """inplace: the input is nobody else's (a convolution's output), so the shifted ReLU may overwrite it."""
        if self.batch_norm:
            return nn.Sequential(self.norm(channels), nn.ReLU(inplace=True))
        return CentredReLU(channels) if self.centre else ShiftedReLU(inplace)


class Block(nn.Module):
    """act, conv 3x3, act, conv 3x3, plus the skip path (none in a plain network)."""

    def __init__(self, make: _Builder, in_channels: int, channels: int, stride: int, downsample: str, skip: bool):
        super().__init__()
        # With a skip path x has a second reader, so the first activation must leave it as it is.
        self.act1 = make.act(in_channels, inplace=not skip)
        self.conv1 = make.conv(in_channels, channels, stride=stride)
        self.act2 = make.act(channels, inplace=True)
        self.conv2 = make.conv(channels, channels)
        self.shortcut = Shortcut(stride, channels - in_channels, downsample, make.padding) if skip else None

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, channels, ceil(H / stride), ceil(W / stride))."""
        branch = self.conv2(self.act2(self.conv1(self.act1(x))))
        if self.shortcut is None:
            return branch
        return branch.add_(self.shortcut(x))  # in place: a convolution does not need its output afterwards


class ResidualNetwork(nn.Module):
    """What both families share: an ordinary torch.nn.Module from raw pixels to logits.

    Input: (N, channels, H, W) of 0..255, uint8 or float, any H and W. Output: (N, num_classes).

    widths, blocks: channels of each stage, and the blocks in each. large_stem: 7 x 7 with stride 2, then a max pool.
    activation: "srelu" or "bn". weight_bits: 1 or 32. channels: of the input picture.
    layer_scale: "he" or "pow2". signs: "plain" or "balanced" (BinaryConv2d). padding: "symmetric" or "same".
    downsample: "avg3" or "binomial".
    skip: False makes the plain network. temperature: divides the logits; by default 40 for srelu, 1 for bn.
    input: "standardise" (an integer mean per channel and one power of two), "batchnorm" (learned), or "auto":
        what goes with the activation. bn_affine: learn the scale and offset of every batch norm.
    centre: subtract each channel's mean before every shifted ReLU (CentredReLU).
    Raises UsageError for anything else.
    """

    def __init__(
        self,
        widths: list[int],
        blocks: int,
        large_stem: bool,
        num_classes: int,
        activation: str,
        weight_bits: int,
        *,
        channels: int = 3,
        layer_scale: str = "he",
        signs: str = "plain",
        padding: str = "symmetric",
        downsample: str = "avg3",
        skip: bool = True,
        temperature: float | None = None,
        input: str = "auto",
        bn_affine: bool = False,
        centre: bool = False,
    ):
        super().__init__()
        if num_classes < 1 or channels < 1:
            raise UsageError(f"num_classes is {num_classes} and channels {channels}, expected at least 1 each")
        if downsample not in DOWNSAMPLES:
            raise unknown_name("downsample", downsample, DOWNSAMPLES)
        if input not in INPUTS:
            raise unknown_name("input", input, INPUTS)
        if temperature is not None and not (math.isfinite(temperature) and temperature > 0):
            raise UsageError(f"temperature is {temperature}, expected a positive number")
        make = _Builder(activation, weight_bits, layer_scale, signs, padding, skip, bn_affine, centre)
        normalise = make.batch_norm if input == "auto" else input == "batchnorm"
        self.num_classes, self.channels = num_classes, channels
        # The input batch norm has a learned scale and offset in every network of the papers.
        self.input = make.norm(channels, affine=True) if normalise else Standardise(channels)
        width = widths[0]
        if large_stem:
            self.stem = nn.Sequential(make.conv(channels, width, kernel=7, stride=2), nn.MaxPool2d(3, 2, 1))
        else:
            self.stem = make.conv(channels, width)
        made = []
        for stage, out in enumerate(widths):
            for index in range(blocks):
                stride = 2 if stage > 0 and index == 0 else 1
                made.append(Block(make, width, out, stride, downsample, skip))
                width = out
        self.blocks = nn.Sequential(*made)
        self.act = make.act(width, inplace=True)
        self.head = make.conv(width, num_classes, kernel=1)
        self.head_norm = make.norm(num_classes) if make.batch_norm else None
        default = 1.0 if make.batch_norm else DEFAULT_TEMPERATURE
        self.temperature = default if temperature is None else float(temperature)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, classes) for raw pixels (N, channels, H, W), uint8 or float."""
        if not x.is_floating_point():
            x = x.to(self.head.weight.dtype, memory_format=torch.channels_last)
        scores = self.head(self.act(self.blocks(self.stem(self.input(x)))))
        if self.head_norm is not None:
            scores = self.head_norm(scores)
        return scores.mean((2, 3)) / self.temperature

    def conv_weights(self) -> int:
        """Return the number of weights of all convolutions."""
        return sum(m.weight.numel() for m in self.modules() if isinstance(m, FloatConv2d))


class WideResNet(ResidualNetwork):
    """The wide residual network D-K of the papers.

    depth: 6n + 2, n >= 1. width: K > 0, fractions allowed (each stage has round(16 K 2**stage) channels, at least 1).
    options: those of ResidualNetwork, by name. Raises UsageError for values that do not fit.
    """

    def __init__(
        self,
        depth: int = 20,
        width: float = 1,
        num_classes: int = 10,
        activation: str = "srelu",
        weight_bits: int = 1,
        **options,
    ):
        if depth < 8 or (depth - 2) % 6:
            raise UsageError(f"depth is {depth}, expected 6n + 2: 8, 14, 20, 26, ...")
        widths = _stage_widths(16, 3, width)
        super().__init__(widths, (depth - 2) // 6, False, num_classes, activation, weight_bits, **options)


class ResNet18(ResidualNetwork):
    """The 18-layer pre-activation residual network for ImageNet; width 2.5 is the papers' 18-2.5.

    depth: 18. options: those of ResidualNetwork, by name. Raises UsageError for values that do not fit.
    """

    def __init__(
        self,
        depth: int = 18,
        width: float = 1,
        num_classes: int = 1000,
        activation: str = "srelu",
        weight_bits: int = 1,
        **options,
    ):
        if depth != 18:
            raise UsageError(f"depth is {depth}, expected 18 for the resnet18 family")
        super().__init__(_stage_widths(64, 4, width), 2, True, num_classes, activation, weight_bits, **options)


def _stage_widths(base: int, stages: int, width: float) -> list[int]:
    if not (math.isfinite(width) and width > 0):
        raise UsageError(f"width is {width}, expected a positive number")
    return [max(1, round(base * width * 2**stage)) for stage in range(stages)]


FAMILIES = {"wide-resnet": WideResNet, "resnet18": ResNet18}
