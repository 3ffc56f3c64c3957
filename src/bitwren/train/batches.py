"""Training pictures -> augmented batches, each a function of (seed, epoch, step) alone.

So a run that resumes in the middle of an epoch, and a run split over any number of processes, sees the same pictures:
there is no generator state to save. Every process draws the randomness of the whole batch and keeps its own share.
"""

import dataclasses
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from bitwren.errors import BitwrenError
from bitwren.pictures import Pictures, crop_picture, read_picture
from bitwren.recipe import AugmentOptions
from bitwren.train.augment import augment
from bitwren.train.distributed import World

# Streams of randomness of one run; the number keeps them apart.
_ORDER, _AUGMENT, _CROP = 1, 2, 3


def _seed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


def epoch_order(count: int, seed: int, epoch: int) -> Tensor:
    """Return the order of the pictures in an epoch, a permutation (count,) int64 on the CPU."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(_seed(seed, _ORDER, epoch)))


@dataclasses.dataclass(frozen=True)
class Batches:
    """What the loop asks of any source of pictures: `count`, `steps` in an epoch, and `epoch(...)`.

    The last pictures of an epoch that do not fill a batch wait for another order.
    """

    batch: int
    seed: int
    options: AugmentOptions
    world: World
    answers: Tensor | None = dataclasses.field(default=None, kw_only=True)  # a teacher's, of each picture (N, classes)

    @property
    def count(self) -> int:
        """The number of pictures."""
        raise NotImplementedError

    @property
    def steps(self) -> int:
        """Steps in an epoch."""
        return self.count // self.batch

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
        """Yield images (batch / processes, C, H, W) uint8, labels int64, and a teacher's answers, from first_step on.

        All on the device; the answers are (batch / processes, classes) float32, or None without a teacher.
        """
        order = epoch_order(self.count, self.seed, epoch)[: self.steps * self.batch].view(self.steps, self.batch)
        generator = torch.Generator(self.world.device)
        mine = self.world.share(self.batch)
        for step, (images, labels) in enumerate(self._read(order[first_step:], epoch), first_step):
            generator.manual_seed(_seed(self.seed, _AUGMENT, epoch, step))
            answers = None if self.answers is None else self.answers[order[step][mine].to(self.answers.device)]
            yield augment(images, self.options, generator)[mine], labels[mine], answers

    def _read(self, order: Tensor, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class MemoryBatches(Batches):
    """Batches of a set that lives in the device's memory."""

    images: Tensor  # (N, C, H, W) uint8
    labels: Tensor  # (N,) int64

    @classmethod
    def of(cls, pictures: Pictures, batch: int, seed: int, options: AugmentOptions, world: World) -> "MemoryBatches":
        """Put the pictures on the device."""
        images, labels = torch.from_numpy(pictures.images), torch.from_numpy(pictures.labels)
        return cls(batch, seed, options, world, images.to(world.device), labels.to(world.device))

    @property
    def count(self) -> int:
        """The number of pictures."""
        return len(self.images)

    def _read(self, order, epoch):
        for chosen in order.to(self.world.device):
            yield self.images[chosen], self.labels[chosen]


@dataclasses.dataclass(frozen=True)
class Files:
    """Picture files with their labels, and the form in which the network takes them."""

    files: tuple[Path, ...]
    labels: np.ndarray  # (N,) int64
    size: tuple[int, int]  # height, width in pixels
    channels: int

    def take(self, indices: np.ndarray) -> "Files":
        """Return the pictures at these places, in this order. indices: integers (M,), 0 <= index < N."""
        return dataclasses.replace(self, files=tuple(self.files[i] for i in indices), labels=self.labels[indices])


class _CroppedFiles(Dataset):
    """Item (epoch, index) is the picture, randomly cropped by a generator of its own, and its label.

    Where the file cannot be read, it is the error: raised in a worker process it would come back as a traceback.
    """

    def __init__(self, files: Files, seed: int, crop: bool):
        self.files, self.seed, self.crop = files, seed, crop

    def __getitem__(self, key: tuple[int, int]):
        epoch, index = key
        source = self.files
        try:
            if self.crop:
                generator = np.random.default_rng([self.seed, _CROP, epoch, index])
                picture = crop_picture(source.files[index], source.size, source.channels, generator)
            else:
                picture = read_picture(source.files[index], source.size, source.channels)
        except BitwrenError as error:
            return error
        return torch.from_numpy(picture), int(source.labels[index])

    def batches(
        self, keys: list[list[tuple[int, int]]], workers: int, device: torch.device
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (images uint8, labels) on the device for each row of keys. Raises DataError naming a bad file."""
        loader = DataLoader(
            self,
            batch_sampler=keys,
            num_workers=workers,
            collate_fn=_collate,
            pin_memory=device.type == "cuda",
            worker_init_fn=_ignore_interrupt,
        )
        for read in loader:
            if isinstance(read, BitwrenError):
                raise read
            yield tuple(t.to(device, non_blocking=True) for t in read)


def _collate(items: list):
    return next((item for item in items if isinstance(item, BitwrenError)), None) or default_collate(items)


def _ignore_interrupt(worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the main one decides when to end


@dataclasses.dataclass(frozen=True)
class StreamedBatches(Batches):
    """Batches of a set that does not fit in memory: worker processes read and crop the files."""

    files: Files
    workers: int

    @property
    def count(self) -> int:
        """The number of pictures."""
        return len(self.files.files)

    def _read(self, order, epoch):
        keys = [[(epoch, index) for index in row] for row in order.tolist()]
        cropped = _CroppedFiles(self.files, self.seed, self.options.crop)
        yield from cropped.batches(keys, self.workers, self.world.device)


def evaluation_batches(
    pictures: Pictures | Files, world: World, batch: int = 500, workers: int = 0
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield every picture of this process's share once, in order, unaugmented: (images uint8, labels) on the device."""
    mine = np.arange(len(pictures.labels))[world.rank :: world.size]
    if isinstance(pictures, Pictures):
        for start in range(0, len(mine), batch):
            chosen = mine[start : start + batch]
            yield (
                torch.from_numpy(pictures.images[chosen]).to(world.device),
                torch.from_numpy(pictures.labels[chosen]).to(world.device),
            )
        return
    keys = [[(0, int(i)) for i in mine[start : start + batch]] for start in range(0, len(mine), batch)]
    yield from _CroppedFiles(pictures, 0, False).batches(keys, workers, world.device)
