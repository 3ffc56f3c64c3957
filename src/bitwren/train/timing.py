"""How long a recipe's training takes here, from a few steps on random pictures."""

import time

import torch
import torch.nn.functional as F

from bitwren.recipe import Recipe
from bitwren.train.distributed import find_device
from bitwren.train.loop import autocast, make_optimiser
from bitwren.train.run import build_network

ENOUGH_SECONDS = 0.5  # of a step: a larger batch would not tell more
STEPS, SECONDS = 10, 1.5  # timed at most, after one that is not; the shortest counts, for others may use the machine
BATCHES = (2, 8, 32)  # tried before the recipe's own


def picture_seconds(recipe: Recipe, channels: int, classes: int, size: tuple[int, int]) -> tuple[float, float]:
    """Return the seconds that a picture takes to train on, and to classify.

    size: (height, width). Measured at the recipe's batch, or at a smaller one if its step takes long enough. Reading
    and augmenting pictures, a few per cent of a step, is left out.
    """
    device = find_device("auto")
    network = build_network(recipe, channels, classes).to(device, memory_format=torch.channels_last)
    optimiser = make_optimiser(network, recipe)
    for batch in sorted({*(b for b in BATCHES if b < recipe.train.batch), recipe.train.batch}):
        generator = torch.Generator().manual_seed(0)
        images = torch.randint(256, (batch, channels, *size), dtype=torch.uint8, generator=generator).to(device)
        labels = torch.randint(classes, (batch,), generator=generator).to(device)

        def train(images=images, labels=labels) -> None:
            with autocast(recipe, device):
                logits = network(images)
            loss = F.cross_entropy(logits.to(network.head.weight.dtype), labels)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()

        @torch.no_grad()
        def classify(images=images) -> None:
            network(images)

        network.train()
        training = _shortest(train, device)
        if training >= ENOUGH_SECONDS:
            break
    network.eval()
    return training / batch, _shortest(classify, device) / batch


def _shortest(step, device: torch.device) -> float:
    seconds, until = [], 0.0
    while not until or (len(seconds) <= STEPS and time.perf_counter() < until):
        began = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - began)
        until = until or time.perf_counter() + SECONDS
    return min(seconds[1:] or seconds)
