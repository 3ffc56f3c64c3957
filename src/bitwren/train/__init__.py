"""Pictures -> trained float network. The one room that needs PyTorch."""

from bitwren.train.layers import BinaryConv2d, CentredReLU, FloatConv2d, ShiftedReLU, Shortcut, Standardise, scaled_sign
from bitwren.train.networks import ResNet18, WideResNet

__all__ = [
    "BinaryConv2d",
    "CentredReLU",
    "FloatConv2d",
    "ResNet18",
    "ShiftedReLU",
    "Shortcut",
    "Standardise",
    "WideResNet",
    "scaled_sign",
]
