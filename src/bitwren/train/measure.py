"""What a network's training and test pictures say about it: input statistics, batch norm's moments, accuracy."""

import torch
import torch.nn.functional as F
from torch import nn

from bitwren.pictures import Pictures
from bitwren.train.batches import Batches, Files, evaluation_batches
from bitwren.train.distributed import World
from bitwren.train.layers import Standardise
from bitwren.train.networks import ResidualNetwork


def fit_input(network: ResidualNetwork, pictures: Pictures) -> None:
    """Set the input standardisation, where the network has one, from training pictures."""
    if isinstance(network.input, Standardise):
        pixels = torch.from_numpy(pictures.images).transpose(0, 1).flatten(1)  # (C, pixels)
        counts = torch.stack([torch.bincount(channel, minlength=256) for channel in pixels]).double()
        values = torch.arange(256, dtype=torch.float64)
        mean = (counts @ values) / counts.sum(1)
        # Of all channels together, each about its own mean: one power of two serves them all.
        variance = (counts.sum(0) @ values**2) / counts.sum() - (mean**2).mean()
        network.input.fit(mean, float(variance.clamp(min=0).sqrt()))


@torch.no_grad()
def measure(network: nn.Module, pictures: Pictures | Files, world: World, workers: int = 0) -> dict:
    """Return loss, accuracy, top-5 accuracy (both 0..1) and count, over all processes' shares of the pictures.

    The network is evaluated in single precision (or its own) whatever precision it was trained in.
    """
    network.eval()
    sums = torch.zeros(4, dtype=torch.float64, device=world.device)
    for images, labels in evaluation_batches(pictures, world, workers=workers):
        logits = network(images)
        best = logits.topk(min(5, logits.shape[1]), 1).indices == labels[:, None]
        loss = F.cross_entropy(logits, labels, reduction="sum")
        batch = (loss, best[:, 0].sum(), best.sum(), loss.new_tensor(len(labels)))
        sums += torch.stack([value.double() for value in batch])
    loss, right, top5, count = world.sum(sums).tolist()
    return {"loss": loss / count, "accuracy": right / count, "top5": top5 / count, "count": int(count)}


@torch.no_grad()
def reestimate_moments(network: nn.Module, training: Batches, epoch: int, world: World) -> None:
    """Set every batch norm's moments to their mean over one augmented pass of the training pictures."""
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    kept = [m.momentum for m in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative mean
    network.train()
    for images, _, _ in training.epoch(epoch):
        network(images)
    for norm, momentum in zip(norms, kept, strict=True):
        norm.momentum = momentum
        for moments in (norm.running_mean, norm.running_var):  # every process has seen equally many batches
            world.sum(moments).div_(world.size)
    network.eval()
