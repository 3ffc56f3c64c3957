"""A run that starts from the signs of a trained network: to train on, or on other pictures.

All that is left of a trained network are its signs. Its latent weights start with them, each as far from zero as a new
weight is on average: no sign flips before gradients have said so for some steps.
"""

import dataclasses
import math

import numpy as np
import torch

from bitwren.errors import UsageError
from bitwren.train.layers import BinaryConv2d, FloatConv2d
from bitwren.train.networks import ResidualNetwork

MEAN_OF_HALF_NORMAL = math.sqrt(2 / math.pi)  # of |x|, x from a normal distribution of standard deviation 1


@dataclasses.dataclass(frozen=True, eq=False)
class ModelFile:
    """A trained network that a run takes something from. model, sha256: its file, as run.json names it."""

    model: str
    sha256: str

    @property
    def about(self) -> dict[str, str]:
        """What run.json says of it."""
        return {"model": self.model, "sha256": self.sha256}


@dataclasses.dataclass(frozen=True, eq=False)
class Signs(ModelFile):
    """What a .bwn file knows of its training: the signs of every convolution, from the first to the last.

    weights: +1 and -1, int8 (channels out, F, F, channels in) each.
    """

    weights: tuple[np.ndarray, ...]


@torch.no_grad()
def take_signs(network: ResidualNetwork, signs: Signs) -> None:
    """Give the latent weights of a new network the signs of a trained one. A head for other classes stays new.

    Raises UsageError for a network of real-valued weights, or of other convolutions.
    """
    convolutions = [m for m in network.modules() if isinstance(m, FloatConv2d)]
    shapes = [tuple(c.weight.shape[i] for i in (0, 2, 3, 1)) for c in convolutions]
    if not isinstance(network.head, BinaryConv2d):
        raise UsageError("network.weight_bits is 32, expected 1: what --from takes over are signs")
    if len(convolutions) != len(signs.weights):
        raise UsageError(f"{signs.model}: {len(signs.weights)} convolutions, expected {len(shapes)} as in the recipe")
    for i, (conv, shape, weights) in enumerate(zip(convolutions, shapes, signs.weights, strict=True), 1):
        if weights.shape != shape:
            if conv is network.head and weights.shape[1:] == shape[1:]:
                continue
            got, expected = (" x ".join(map(str, s)) for s in (weights.shape, shape))
            raise UsageError(f"{signs.model}: convolution {i} has {got} weights, expected {expected} as in the recipe")
        size = MEAN_OF_HALF_NORMAL * conv.gain / math.sqrt(conv.fan_in)
        conv.weight.copy_(torch.from_numpy(weights.transpose(0, 3, 1, 2) * np.float64(size)))

