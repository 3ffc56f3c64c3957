"""A trained run on pictures: logits of a whole set, probabilities of single files."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn

from bitwren.errors import BitwrenError, DataError, UsageError
from bitwren.pictures import Pictures, load_dataset, read_picture
from bitwren.train.batches import Files, evaluation_batches
from bitwren.train.distributed import World
from bitwren.train.run import Run
from bitwren.train.start import load

CALIBRATION_SEED = 0  # of the choice of training pictures


def evaluation_pictures(run: Run, data: str | None, data_dir: Path | None, split: str) -> Pictures | Files:
    """Return the pictures of one split of the run's data set, or the test pictures of another named one.

    split: "test", "validation" or "training", the latter two as the run was trained. Raises UsageError for a split
    that the run or the data set has not, and DataError where the classes differ from the run's.
    """
    if data is None:
        known = run.about.get("data_dir")
        loaded = load(run.recipe.data, data_dir or (Path(known) if known else None))
        pictures, classes = getattr(loaded, split), loaded.classes
        if pictures is None:
            raise UsageError(f"{run.folder}: held out no {split} pictures (data.validation is 0)")
    else:
        if split != "test":
            raise UsageError(f"--split is {split!r}, expected test: the splits of {data!r} are not the run's own")
        pictures = load_dataset(data, data_dir, size=run.size, channels=run.channels).test
        classes = pictures.classes
    if tuple(classes) != run.classes:
        raise DataError(f"the pictures' classes are {list(classes)}, expected {list(run.classes)} as in {run.folder}")
    return pictures


def calibration_pictures(training: Pictures | Files, count: int) -> Pictures:
    """Return `count` training pictures, or all if there are fewer, to choose the scales of an integer network on."""
    order = np.random.default_rng(CALIBRATION_SEED).permutation(len(training.labels))
    return in_memory(training, np.sort(order[:count]))


def in_memory(pictures: Pictures | Files, chosen: np.ndarray) -> Pictures:
    """Return the chosen ones, read from their files where they are not in memory. chosen: indices (M,)."""
    if isinstance(pictures, Pictures):
        return pictures.take(chosen)
    images = np.stack([read_picture(pictures.files[i], pictures.size, pictures.channels) for i in chosen])
    labels = pictures.labels[chosen]
    return Pictures(images, labels, tuple(map(str, range(labels.max() + 1))))


@torch.no_grad()
def logits_of(network: nn.Module, pictures: Pictures | Files, device: torch.device) -> tuple[np.ndarray, np.ndarray]:
    """Return logits (N, classes) float32 and labels (N,) int64 of all pictures, in order."""
    network.to(device).eval()
    logits, labels = [], []
    for images, truth in evaluation_batches(pictures, World(0, 1, device)):
        logits.append(network(images).float().cpu().numpy())
        labels.append(truth.cpu().numpy())
    return np.concatenate(logits), np.concatenate(labels)


@torch.no_grad()
def predict_files(
    run: Run, network: nn.Module, files: Iterable[Path]
) -> Iterator[tuple[Path, np.ndarray | BitwrenError]]:
    """Yield each file with its probabilities (classes,) float, or with the error that kept it from being read."""
    device = next(network.parameters()).device
    for path in files:
        try:
            picture = read_picture(path, run.size, run.channels)
        except BitwrenError as error:
            yield path, error
            continue
        logits = network(torch.from_numpy(picture)[None].to(device))
        yield path, torch.softmax(logits[0].double(), 0).cpu().numpy()
