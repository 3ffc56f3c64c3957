"""Distillation (Hinton et al. 2015, arXiv 1503.02531): a trained network's answers are part of what a run learns.

The teacher answers each training picture once, as it is, before the first step: the student's shifted or mirrored
copies are held to the same answer. The answers are kept in the run folder, so that a resumed run needs no teacher.
"""

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from bitwren.errors import CheckpointError, UsageError
from bitwren.pictures import Pictures
from bitwren.train.batches import Files, evaluation_batches
from bitwren.train.checkpoint import load_tensors, save_tensors
from bitwren.train.distributed import World
from bitwren.train.inherit import ModelFile

_ANSWERS = "answers"


@dataclasses.dataclass(frozen=True, eq=False)
class Teacher(ModelFile):
    """A trained network and what it knows.

    classes: names, in the order of its logits. channels; size: height and width of the pictures that it reads.
    logits: from uint8 (N, channels, height, width) to real-valued (N, classes).
    """

    classes: tuple[str, ...]
    channels: int
    size: tuple[int, int]
    logits: Callable[[np.ndarray], np.ndarray]

    def check(self, classes: tuple[str, ...], channels: int, size: tuple[int, int]) -> None:
        """Raise UsageError where the pictures of a run, or their classes, are not those of the teacher."""
        names = next(((a, b) for a, b in zip(self.classes, classes, strict=False) if a != b), ("", ""))
        compared = (
            ("channels", self.channels, channels),
            ("height and width", "{} x {}".format(*self.size), "{} x {}".format(*size)),
            ("classes", len(self.classes), len(classes)),
            ("a class", *map(repr, names)),
        )
        for what, got, expected in compared:
            if got != expected:
                raise UsageError(f"teacher {self.model}: {what} {got}, expected {expected} as in the run's pictures")


def ask(teacher: Teacher, pictures: Pictures | Files, world: World, workers: int, show: bool) -> Tensor:
    """Return the teacher's logits of all pictures in order, float32 (N, classes); each process asks it its share.

    workers: processes that read pictures from files. show: a bar for this process's share, where there is a terminal.
    """
    count = len(range(world.rank, len(pictures.labels), world.size))
    parts = [torch.zeros(0, len(teacher.classes))]
    with tqdm(total=count, desc="teacher", unit="picture", file=sys.stderr, disable=not show or None) as bar:
        for images, _ in evaluation_batches(pictures, world, workers=workers):
            parts.append(torch.from_numpy(teacher.logits(images.cpu().numpy()).astype(np.float32)))
            bar.update(len(images))
    answers = torch.zeros(len(pictures.labels), len(teacher.classes), device=world.device)
    answers[world.rank :: world.size] = torch.cat(parts).to(world.device)
    return world.sum(answers).cpu()  # exact: of each row all but one process have 0


def save_answers(path: Path, answers: Tensor) -> None:
    """Write a teacher's answers, atomically. Raises WriteError where the disk refuses."""
    save_tensors(path, {_ANSWERS: answers}, {})


def load_answers(path: Path, count: int, classes: int) -> Tensor:
    """Return the answers (count, classes) that save_answers wrote. Raises CheckpointError for anything else."""
    tensors, _ = load_tensors(path)
    answers = tensors.get(_ANSWERS)
    if answers is None or answers.dtype != torch.float32 or tuple(answers.shape) != (count, classes):
        found = "no answers" if answers is None else f"answers {tuple(answers.shape)} {answers.dtype}"
        raise CheckpointError(f"{path}: {found}, expected ({count}, {classes}) {torch.float32}")
    if not torch.isfinite(answers).all():
        raise CheckpointError(f"{path}: an answer is not finite")
    return answers


def distillation_loss(logits: Tensor, answers: Tensor, temperature: float) -> Tensor:
    """Return the mean Kullback-Leibler divergence of the student's classes from the teacher's, both softened.

    logits, answers: (B, classes), divided by the temperature before the softmax. The divergence is multiplied by its
    square, so that gradients keep their size whatever it is.
    """
    student = F.log_softmax(logits / temperature, 1)
    teacher = F.log_softmax(answers.to(logits.dtype) / temperature, 1)
    return F.kl_div(student, teacher, reduction="batchmean", log_target=True) * temperature**2
