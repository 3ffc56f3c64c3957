"""The batch-norm wide residual network as one would write it straight from the paper: what the benchmark compares with.

Ordinary float convolutions and PyTorch's defaults throughout; it shares no code with networks.py, and a test checks
that with equal weights both compute the same function. Not for training: it is not binarised.
"""

import torch.nn.functional as F
from torch import Tensor, nn


class PlainBlock(nn.Module):
    """batch norm, ReLU, conv 3x3, twice, plus the skip path."""

    def __init__(self, in_channels: int, channels: int, stride: int):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.stride, self.new_channels = stride, channels - in_channels

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, channels, ceil(H / stride), ceil(W / stride))."""
        out = self.conv1(F.relu(self.bn1(x)))
        out = self.conv2(F.relu(self.bn2(out)))
        if self.stride > 1:
            x = F.avg_pool2d(x, 3, self.stride, padding=1)
        if self.new_channels > 0:
            x = F.pad(x, (0, 0, 0, 0, 0, self.new_channels))
        return out + x


class PlainWideResNet(nn.Module):
    """The network D-K for pictures (N, 3, H, W) of raw pixels 0..255, uint8 or float; logits (N, classes)."""

    def __init__(self, depth: int, width: float, classes: int):
        super().__init__()
        channels = round(16 * width)
        self.bn_input = nn.BatchNorm2d(3)
        self.stem = nn.Conv2d(3, channels, 3, padding=1, bias=False)
        blocks = []
        for stage in range(3):
            for index in range((depth - 2) // 6):
                out_channels = round(16 * width * 2**stage)
                blocks.append(PlainBlock(channels, out_channels, stride=2 if stage > 0 and index == 0 else 1))
                channels = out_channels
        self.blocks = nn.Sequential(*blocks)
        self.bn = nn.BatchNorm2d(channels)
        self.head = nn.Conv2d(channels, classes, 1, bias=False)
        self.bn_head = nn.BatchNorm2d(classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        x = self.blocks(self.stem(self.bn_input(x.to(self.head.weight.dtype))))
        x = self.bn_head(self.head(F.relu(self.bn(x))))
        return F.adaptive_avg_pool2d(x, 1).flatten(1)
