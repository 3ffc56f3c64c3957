"""Training: recipe and pictures in, a run folder out. Killed at any moment, it resumes bit-identically.

What a step computes depends on the recipe, the epoch and the step alone (batches.py), and a checkpoint holds weights,
momentum and the running sums of the epoch; so nothing differs between a run that was stopped and one that was not,
on the same kind of processor with the same number of threads and processes.
"""

import contextlib
import dataclasses
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from bitwren.errors import CheckpointError, TrainingError, UsageError
from bitwren.pictures import Pictures
from bitwren.recipe import Recipe
from bitwren.train.batches import Batches, Files, evaluation_batches
from bitwren.train.checkpoint import (
    load_tensors,
    momentum_tensors,
    network_tensors,
    restore_momentum,
    restore_network,
    save_tensors,
    write_atomic,
    write_json,
)
from bitwren.train.distributed import World
from bitwren.train.layers import Standardise
from bitwren.train.networks import ResidualNetwork
from bitwren.train.run import BEST, LAST, METRICS, RESULT, Run, build_network
from bitwren.train.schedule import learning_rate

CHECKPOINT_SECONDS = 300.0  # within long epochs; every epoch ends with one too
LOSS_CHECK_STEPS = 20  # reading the loss back stops a GPU, so not every step


@dataclasses.dataclass
class Progress:
    """Where training stands: epochs done, steps done of the next one, that epoch's sums, and the best so far."""

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    correct: int = 0
    seen: int = 0
    best_epoch: int = 0
    best_accuracy: float = -1.0
    metrics_bytes: int = 0
    seconds: float = 0.0  # of the epochs done, and of the part of this one


@dataclasses.dataclass(frozen=True)
class Sources:
    """The pictures of a run: augmented training batches, and what to measure on."""

    training: Batches
    fit: Pictures  # training pictures from which the input standardisation is taken
    validation: Pictures | Files | None
    test: Pictures | Files
    workers: int = 0


class _Interrupted(Exception):
    """Ctrl-C or SIGTERM came; the step in hand was finished and saved."""


def make_optimiser(network: nn.Module, recipe: Recipe) -> torch.optim.SGD:
    """Return SGD with momentum; L2 on the convolutions' latent weights only, as in the authors' code."""
    convolutions = [p for p in network.parameters() if p.dim() == 4]
    others = [p for p in network.parameters() if p.dim() != 4]
    groups = [{"params": convolutions, "weight_decay": recipe.train.weight_decay}, {"params": others}]
    return torch.optim.SGD(
        [g for g in groups if g["params"]],
        lr=recipe.train.learning_rate,
        momentum=recipe.train.momentum,
        weight_decay=0.0,
        fused=True,
    )


def fit_input(network: ResidualNetwork, pictures: Pictures) -> None:
    """Set the input standardisation, where the network has one, from training pictures."""
    if isinstance(network.input, Standardise):
        pixels = torch.from_numpy(pictures.images).transpose(0, 1).flatten(1)  # (C, pixels)
        counts = torch.stack([torch.bincount(channel, minlength=256) for channel in pixels]).double()
        values = torch.arange(256, dtype=torch.float64)
        mean = (counts @ values) / counts.sum(1)
        variance = (counts.sum(0) @ values**2) / counts.sum() - (mean**2).mean()
        network.input.fit(mean, float(variance.clamp(min=0).sqrt()))


def autocast(recipe: Recipe, device: torch.device):
    """Return the context in which the network runs forward."""
    return torch.autocast(device.type, torch.bfloat16, enabled=recipe.train.precision == "bf16")


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
        sums += torch.stack([loss.double(), best[:, 0].sum().double(), best.sum().double(), loss.new_tensor(len(labels))])
    loss, right, top5, count = world.sum(sums).tolist()
    return {"loss": loss / count, "accuracy": right / count, "top5": top5 / count, "count": int(count)}


@torch.no_grad()
def reestimate_moments(network: nn.Module, training: Batches, epoch: int) -> None:
    """Set every batch norm's moments to their mean over one augmented pass of the training pictures."""
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    kept = [m.momentum for m in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative mean
    network.train()
    for images, _ in training.epoch(epoch):
        network(images)
    for norm, momentum in zip(norms, kept, strict=True):
        norm.momentum = momentum
    network.eval()


class Trainer:
    """One run in one process: the network, its optimiser, and where they stand."""

    def __init__(self, run: Run, sources: Sources, world: World):
        recipe = run.recipe
        if recipe.train.batch % world.size:
            raise UsageError(f"train.batch is {recipe.train.batch}, expected a multiple of the {world.size} processes")
        if sources.training.steps < 1:
            raise UsageError(
                f"train.batch is {recipe.train.batch}, expected at most the {sources.training.count} training pictures"
            )
        self.run, self.recipe, self.sources, self.world = run, recipe, sources, world
        network = build_network(recipe, run.channels, len(run.classes))
        fit_input(network, sources.fit)
        dtype = torch.float64 if recipe.train.precision == "fp64" else torch.float32
        self.network = network.to(world.device, dtype, memory_format=torch.channels_last)
        self.optimiser = make_optimiser(self.network, recipe)
        self.progress = Progress()
        if world.device.type == "cuda":  # the fastest algorithm may differ from run to run, and then so do the sums
            torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False

    # ---------------------------------------------------------------- checkpoints

    def save(self) -> None:
        """Write the checkpoint to resume from. Raises TrainingError instead of keeping a broken network."""
        for name, parameter in self.network.named_parameters():
            if not torch.isfinite(parameter).all():
                raise self._diverged(f"weight {name} is not finite")
        if self.world.writes:
            tensors = {**network_tensors(self.network), **momentum_tensors(self.network, self.optimiser)}
            save_tensors(self.run.folder / LAST, tensors, dataclasses.asdict(self.progress))

    def resume(self) -> None:
        """Go back to the last checkpoint; a run killed before its first starts anew."""
        path = self.run.folder / LAST
        if path.exists():
            tensors, state = load_tensors(path)
            restore_network(path, tensors, self.network)
            restore_momentum(path, tensors, self.network, self.optimiser)
            expected = {f.name: f.type for f in dataclasses.fields(Progress)}
            if {k: type(v) for k, v in state.items()} != expected:
                raise CheckpointError(f"{path}: its state is {sorted(state)}, expected {sorted(expected)}")
            self.progress = Progress(**state)
        if self.world.writes:
            metrics = self.run.folder / METRICS
            content = metrics.read_bytes() if metrics.exists() else b""
            if len(content) < self.progress.metrics_bytes:
                raise CheckpointError(
                    f"{metrics}: {len(content)} bytes, expected at least {self.progress.metrics_bytes}: cut off?"
                )
            write_atomic(metrics, content[: self.progress.metrics_bytes])  # lines after the checkpoint come again
        self.world.barrier()

    def _diverged(self, what: str) -> TrainingError:
        p = self.progress
        return TrainingError(
            f"epoch {p.epoch + 1}, step {p.step}: {what}; the last good checkpoint is kept in {self.run.folder}; "
            "try a lower train.learning_rate or a higher network.temperature"
        )

    # ---------------------------------------------------------------- training

    def train(self, show: bool = True) -> dict:
        """Train to the end and return what result.json holds. Raises TrainingError where the loss is not finite."""
        p, steps = self.progress, self.sources.training.steps
        forward = self.world.wrap(self.network)
        if self.recipe.train.compile:
            forward = torch.compile(forward)
        bar = tqdm(
            total=self.recipe.train.epochs * steps,
            initial=p.epoch * steps + p.step,
            disable=not (show and self.world.writes) or None,  # None: only on a terminal
            unit="step",
            file=sys.stderr,
            dynamic_ncols=True,
        )
        with bar, self._tensorboard() as board, _finish_step_on_signal(self.world) as interrupted:
            while p.epoch < self.recipe.train.epochs:
                self._epoch(forward, bar, interrupted)
                self._end_epoch(board, show and self.world.writes)
        return self._finish()

    def _epoch(self, forward: nn.Module, bar: tqdm, interrupted: list) -> None:
        p, recipe, device = self.progress, self.recipe, self.world.device
        began, saved = time.monotonic() - p.seconds, time.monotonic()
        # Sums live on the device: loss, correct, seen.
        sums = torch.tensor([p.loss_sum, p.correct, p.seen], dtype=torch.float64, device=device)
        steps = self.sources.training.steps
        self.network.train()

        def settle() -> None:  # read the sums back, and stop at a loss that is not finite
            p.loss_sum, p.correct, p.seen = (kind(v) for kind, v in zip((float, int, int), _finite(sums), strict=True))
            p.seconds = time.monotonic() - began

        def _finite(values: Tensor) -> list[float]:
            numbers = values.tolist()
            if not all(map(_is_finite, numbers)):
                raise self._diverged(f"the loss is {numbers[0]}")
            return numbers

        for images, labels in self.sources.training.epoch(p.epoch, p.step):
            rate = learning_rate(recipe.train, p.epoch + p.step / steps)
            for group in self.optimiser.param_groups:
                group["lr"] = rate
            with autocast(recipe, device):
                logits = forward(images)
            loss = F.cross_entropy(logits.to(self.network.head.weight.dtype), labels)
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()
            self.optimiser.step()
            with torch.no_grad():
                correct = (logits.argmax(1) == labels).sum()
                count = loss.new_tensor(len(labels))
                sums += torch.stack([loss.double() * count, correct.double(), count.double()])
            p.step += 1
            bar.update()
            if p.step % LOSS_CHECK_STEPS == 0 or p.step == steps:
                settle()
                bar.set_description(f"epoch {p.epoch + 1}/{recipe.train.epochs}", refresh=False)
                bar.set_postfix(
                    loss=f"{p.loss_sum / p.seen:.3f}", accuracy=f"{p.correct / p.seen:.1%}",
                    pictures=f"{recipe.train.batch * (bar.format_dict['rate'] or 0):.0f}/s", refresh=False
                )
            if interrupted or (self.world.size == 1 and time.monotonic() - saved > CHECKPOINT_SECONDS):
                settle()
                self.save()
                saved = time.monotonic()
                if interrupted:
                    raise _Interrupted

    def _end_epoch(self, board, show: bool) -> None:
        p, world, validation = self.progress, self.world, self.sources.validation
        world.copy_buffers(self.network)
        totals = world.sum(torch.tensor([p.loss_sum, p.correct, p.seen], dtype=torch.float64, device=world.device))
        loss, correct, seen = totals.tolist()
        if not _is_finite(loss):  # another process may have met it
            raise self._diverged(f"the loss is {loss}")
        record = {
            "epoch": p.epoch + 1,
            "learning_rate": self.optimiser.param_groups[0]["lr"],
            "train_loss": loss / seen,
            "train_accuracy": correct / seen,
            "seconds": round(p.seconds, 3),
        }
        if validation is not None:
            measured = measure(self.network, validation, world, self.sources.workers)
            record |= {"validation_loss": measured["loss"], "validation_accuracy": measured["accuracy"]}
            if not _is_finite(measured["loss"]):
                raise self._diverged(f"the validation loss is {measured['loss']}")
        # Of equals the later one: its weights have settled at a lower rate.
        better = validation is None or record["validation_accuracy"] >= p.best_accuracy
        p.epoch, p.step, p.loss_sum, p.correct, p.seen, p.seconds = p.epoch + 1, 0, 0.0, 0, 0, 0.0
        if better:
            p.best_epoch, p.best_accuracy = p.epoch, record.get("validation_accuracy", -1.0)
        if world.writes:
            if better:
                save_tensors(self.run.folder / BEST, network_tensors(self.network), {"epoch": p.epoch})
            p.metrics_bytes = self._append_metrics(record)
            for key, value in record.items():
                board.add_scalar(key, value, p.epoch)
            if show:
                _say(record, self.recipe.train.epochs)
        self.save()

    def _append_metrics(self, record: dict) -> int:
        path = self.run.folder / METRICS
        try:
            with open(path, "ab") as file:
                file.write((json.dumps(record) + "\n").encode())
                file.flush()
                os.fsync(file.fileno())
                return file.tell()
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be written: {error.strerror}") from None

    def _finish(self) -> dict:
        """Choose the network, re-estimate its moments if the recipe says so, and measure it on the test pictures."""
        p, path, world = self.progress, self.run.folder / BEST, self.world
        world.barrier()
        tensors, state = load_tensors(path)
        restore_network(path, tensors, self.network)
        if self.recipe.train.reestimate_bn and self.recipe.network.activation == "bn" and not state.get("reestimated"):
            reestimate_moments(self.network, self.sources.training, p.epoch)
            world.copy_buffers(self.network)
            if world.writes:
                save_tensors(path, network_tensors(self.network), {"epoch": p.best_epoch, "reestimated": True})
        measured = measure(self.network, self.sources.test, world, self.sources.workers)
        result = {
            "chosen_by": "last epoch" if self.sources.validation is None else "validation accuracy",
            "epoch": p.best_epoch,
            "validation_accuracy": None if self.sources.validation is None else p.best_accuracy,
            "test_accuracy": measured["accuracy"],
            "test_top5": measured["top5"],
            "test_loss": measured["loss"],
            "test_pictures": measured["count"],
        }
        if world.writes:
            write_json(self.run.folder / RESULT, result)
        return result

    @contextlib.contextmanager
    def _tensorboard(self) -> Iterator:
        """Yield a writer of scalars; on a resumed run TensorBoard drops what it has after this epoch."""
        if not self.world.writes:
            yield None
            return
        from torch.utils.tensorboard import SummaryWriter  # imports TensorFlow's stubs, so only where it is used

        with SummaryWriter(self.run.folder / "tensorboard", purge_step=self.progress.epoch + 1) as writer:
            yield writer


def _is_finite(value: float) -> bool:
    return value - value == 0.0


def _say(record: dict, epochs: int) -> None:
    validation = f"  validation {record['validation_accuracy']:7.2%}" if "validation_accuracy" in record else ""
    line = (
        f"epoch {record['epoch']:3d}/{epochs}  loss {record['train_loss']:.4f}  training {record['train_accuracy']:7.2%}"
        f"{validation}  rate {record['learning_rate']:.5f}  {record['seconds']:.1f} s"
    )
    tqdm.write(line, file=sys.stderr)


@contextlib.contextmanager
def _finish_step_on_signal(world: World) -> Iterator[list]:
    """Turn Ctrl-C and SIGTERM into an entry of the list yielded, so that the step in hand is finished and saved.

    With several processes they would stop at different steps, so there the signal ends them at once.
    """
    caught: list = []
    if world.size > 1:
        yield caught
        return
    before = {s: signal.signal(s, lambda number, _: caught.append(number)) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    except _Interrupted:
        name = signal.Signals(caught[0]).name
        raise TrainingError(f"stopped by {name}; everything is saved, go on with --resume") from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_folder_metrics(folder: Path) -> list[dict]:
    """Return the epochs' records of a run. Raises CheckpointError where metrics.jsonl is missing or broken."""
    path = folder / METRICS
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from None
