"""Training: recipe and pictures in, a run folder out. Killed at any moment, it resumes bit-identically.

What a step computes depends on the recipe, the epoch and the step alone (batches.py), and a checkpoint holds weights,
momentum and the running sums of the epoch; so nothing differs between a run that was stopped and one that was not,
on the same kind of processor with the same number of threads and processes.
"""

import contextlib
import dataclasses
import json
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from bitwren.errors import CheckpointError, StoppedError, TrainingError, UsageError
from bitwren.pictures import Pictures
from bitwren.recipe import Recipe
from bitwren.train.batches import Batches, Files
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
from bitwren.train.clip import clip_gradients
from bitwren.train.distil import distillation_loss
from bitwren.train.distributed import World
from bitwren.train.measure import fit_input, measure, reestimate_moments
from bitwren.train.run import BEST, LAST, METRICS, RESULT, Run, build_network
from bitwren.train.schedule import learning_rate

CHECKPOINT_SECONDS = 300.0  # within long epochs; every epoch ends with one too
LOSS_CHECK_STEPS = 20  # reading the loss back stops a GPU, so not every step
LOST = 10.0  # times the loss of a guess, ln(classes): no start is so bad, so the steps have been too long
_CURES = "try train.clip=0.1, a lower train.learning_rate or a higher network.temperature"


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


def _convolutions(network: nn.Module) -> list[nn.Parameter]:
    return [p for p in network.parameters() if p.dim() == 4]


def make_optimiser(network: nn.Module, recipe: Recipe) -> torch.optim.SGD:
    """Return SGD with momentum; L2 on the convolutions' latent weights only, as in the authors' code."""
    others = [p for p in network.parameters() if p.dim() != 4]
    groups = [{"params": _convolutions(network), "weight_decay": recipe.train.weight_decay}, {"params": others}]
    return torch.optim.SGD(
        [g for g in groups if g["params"]],
        lr=recipe.train.learning_rate,
        momentum=recipe.train.momentum,
        weight_decay=0.0,
        fused=True,
    )


def autocast(recipe: Recipe, device: torch.device):
    """Return the context in which the network runs forward."""
    return torch.autocast(device.type, torch.bfloat16, enabled=recipe.train.precision == "bf16")


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
        self.network = network.to(world.device, memory_format=torch.channels_last)
        self.optimiser = make_optimiser(self.network, recipe)
        self.progress = Progress()
        if world.device.type == "cuda":  # the fastest algorithm may differ from run to run, and then so do the sums
            torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False

    def learn_from(self, answers: Tensor) -> None:
        """Let each step learn a teacher's answers too: float32 (training pictures, classes), in their order."""
        training = dataclasses.replace(self.sources.training, answers=answers.to(self.world.device))
        self.sources = dataclasses.replace(self.sources, training=training)

    # ---------------------------------------------------------------- checkpoints

    def save(self) -> None:
        """Write the checkpoint to resume from; what it holds was found finite when the sums were last read."""
        if self.world.writes:
            save_tensors(self.run.folder / LAST, self._tensors(), dataclasses.asdict(self.progress))

    def _tensors(self) -> dict[str, Tensor]:
        return {**network_tensors(self.network), **momentum_tensors(self.network, self.optimiser)}

    def _check_tensors(self) -> None:
        """Raise TrainingError if anything is not finite. The loss does not tell: the sign of a NaN weight is finite."""
        tensors = {name: t for name, t in self._tensors().items() if t.is_floating_point()}
        finite = torch.stack([torch.isfinite(t).all() for t in tensors.values()])
        if not finite.all():  # one read from the device where all is well
            raise self._diverged(f"{list(tensors)[finite.tolist().index(False)]} is not finite")

    def resume(self) -> None:
        """Go back to the last checkpoint; a run killed before its first starts anew."""
        path = self.run.folder / LAST
        if path.exists():
            tensors, state = load_tensors(path)
            restore_network(path, tensors, self.network)
            restore_momentum(path, tensors, self.network, self.optimiser)
            self.progress = self._checked_progress(path, state)
            if not self.world.writes:  # the sums of the epoch so far, of all processes, go on in one of them
                self.progress = dataclasses.replace(self.progress, loss_sum=0.0, correct=0, seen=0)
        if self.world.writes:
            metrics = self.run.folder / METRICS
            content = metrics.read_bytes() if metrics.exists() else b""
            if len(content) < self.progress.metrics_bytes:
                raise CheckpointError(
                    f"{metrics}: {len(content)} bytes, expected at least {self.progress.metrics_bytes}: cut off?"
                )
            write_atomic(metrics, content[: self.progress.metrics_bytes])  # lines after the checkpoint come again
            for partial in self.run.folder.glob("*.partial"):  # a file that was being written when the run was killed
                partial.unlink()
        self.world.barrier()

    def _checked_progress(self, path: Path, state: dict) -> Progress:
        expected = {f.name: f.type for f in dataclasses.fields(Progress)}
        if {k: type(v) for k, v in state.items()} != expected:
            raise CheckpointError(f"{path}: its state is {sorted(state)}, expected {sorted(expected)}")
        progress, epochs, steps = Progress(**state), self.recipe.train.epochs, self.sources.training.steps
        if not (0 <= progress.epoch <= epochs and 0 <= progress.step <= steps and progress.metrics_bytes >= 0):
            raise CheckpointError(
                f"{path}: stands at epoch {progress.epoch}, step {progress.step}, expected at most {epochs} and {steps}"
            )
        return progress

    def _diverged(self, what: str) -> TrainingError:
        p = self.progress
        there = (self.run.folder / LAST).exists()
        kept = f"the last good checkpoint is kept in {self.run.folder}" if there else "no checkpoint was written yet"
        return TrainingError(f"epoch {p.epoch + 1}, step {p.step}: {what}; {kept}; {_CURES}")

    # ---------------------------------------------------------------- training

    def train(self, show: bool = True) -> dict:
        """Train to the end and return what result.json holds. Raises TrainingError where the loss is not finite."""
        p, steps, epochs = self.progress, self.sources.training.steps, self.recipe.train.epochs
        show = show and self.world.writes
        forward = torch.compile(self.network) if self.recipe.train.compile else self.network
        bar = tqdm(
            total=epochs * steps,
            initial=p.epoch * steps + p.step,
            disable=not show or None,  # None: only on a terminal
            unit="step",
            file=sys.stderr,
            dynamic_ncols=True,
        )
        with _explained(self.recipe):
            if p.epoch < epochs:
                with bar, self._tensorboard() as board, _finish_step_on_signal(self.world) as caught:
                    while p.epoch < epochs:
                        # Wrapped anew: an epoch then sums the gradients in the same order whether or not the run was
                        # resumed before it (the wrapper regroups them after its first step).
                        self._epoch(self.world.wrap(forward), bar, caught)
                        self._end_epoch(board, show)
                        if caught:
                            raise _Interrupted
            return self._finish()

    def _epoch(self, forward: nn.Module, bar: tqdm, caught: list) -> None:
        p, recipe, device = self.progress, self.recipe, self.world.device
        began, saved = time.monotonic() - p.seconds, time.monotonic()
        # Sums live on the device: loss, correct, seen.
        sums = torch.tensor([p.loss_sum, p.correct, p.seen], dtype=torch.float64, device=device)
        steps = self.sources.training.steps
        self.network.train()

        def settle() -> None:
            """Read the sums back. Raises TrainingError where they, or the weights, are not finite."""
            loss, correct, seen = sums.tolist()
            if not math.isfinite(loss):
                raise self._diverged(f"the loss is {loss}")
            self._check_tensors()
            p.loss_sum, p.correct, p.seen = loss, int(correct), int(seen)
            p.seconds = time.monotonic() - began

        for images, labels, answers in self.sources.training.epoch(p.epoch, p.step):
            rate = self._rate(p.step)
            for group in self.optimiser.param_groups:
                group["lr"] = rate
            with autocast(recipe, device):
                logits = forward(images)
            loss = self._loss(logits.to(self.network.head.weight.dtype), labels, answers)
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()
            if recipe.train.clip:
                clip_gradients(_convolutions(self.network), recipe.train.clip)
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
                    loss=f"{p.loss_sum / p.seen:.3f}",
                    accuracy=f"{p.correct / p.seen:.1%}",
                    rate=f"{rate:.4f}",
                    pictures=f"{recipe.train.batch * (bar.format_dict['rate'] or 0):.0f}/s",
                    refresh=False,
                )
            # Several processes would do this at different steps; they have the checkpoint at the end of the epoch.
            if caught or (self.world.size == 1 and time.monotonic() - saved > CHECKPOINT_SECONDS):
                settle()
                self.save()
                saved = time.monotonic()
                if caught:
                    raise _Interrupted

    def _loss(self, logits: Tensor, labels: Tensor, answers: Tensor | None) -> Tensor:
        loss, recipe = F.cross_entropy(logits, labels), self.recipe.train
        if answers is None:
            return loss
        return loss.lerp(distillation_loss(logits, answers, recipe.distil_temperature), recipe.distil)

    def _rate(self, step: int) -> float:
        """Return the learning rate of a step of this epoch."""
        return learning_rate(self.recipe.train, self.progress.epoch + step / self.sources.training.steps)

    def _end_epoch(self, board, show: bool) -> None:
        p, world, validation = self.progress, self.world, self.sources.validation
        world.copy_buffers(self.network)
        totals = world.sum(torch.tensor([p.loss_sum, p.correct, p.seen], dtype=torch.float64, device=world.device))
        loss, correct, seen = totals.tolist()
        if not math.isfinite(loss):  # another process may have met it
            raise self._diverged(f"the loss is {loss}")
        record = {
            "epoch": p.epoch + 1,
            "learning_rate": self._rate(p.step - 1),
            "train_loss": loss / seen,
            "train_accuracy": correct / seen,
            "seconds": round(p.seconds, 3),
        }
        if validation is not None:
            measured = measure(self.network, validation, world, self.sources.workers)
            record |= {"validation_loss": measured["loss"], "validation_accuracy": measured["accuracy"]}
            if not math.isfinite(measured["loss"]):
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
                _say(record, self.recipe.train.epochs, math.log(max(2, self.network.num_classes)))
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
            raise CheckpointError(f"{path}: cannot be written: {error.strerror or error}") from None

    def _finish(self) -> dict:
        """Choose the network, re-estimate its moments if the recipe says so, and measure it on the test pictures."""
        p, path, world = self.progress, self.run.folder / BEST, self.world
        world.barrier()
        tensors, state = load_tensors(path)
        restore_network(path, tensors, self.network)
        if self.recipe.train.reestimate_bn and self.recipe.network.activation == "bn" and not state.get("reestimated"):
            reestimate_moments(self.network, self.sources.training, p.epoch, world)
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


def _say(record: dict, epochs: int, guess: float) -> None:
    """Print the line of an epoch, and what to do where its loss is far above that of a guess."""
    validation = f"  validation {record['validation_accuracy']:7.2%}" if "validation_accuracy" in record else ""
    line = (
        f"epoch {record['epoch']:3d}/{epochs}  loss {record['train_loss']:.4f}  "
        f"training {record['train_accuracy']:7.2%}{validation}  "
        f"rate {record['learning_rate']:.5f}  {record['seconds']:.1f} s"
    )
    tqdm.write(line, file=sys.stderr)
    if record["train_loss"] > LOST * guess:
        told = f"the loss is {record['train_loss']:.3g}, where a guess has {guess:.1f}: training has diverged; {_CURES}"
        tqdm.write(f"bitwren: {told}", file=sys.stderr)


@contextlib.contextmanager
def _finish_step_on_signal(world: World) -> Iterator[list]:
    """Turn Ctrl-C and SIGTERM into an entry of the list yielded, so that the step in hand is finished and saved.

    With several processes they would stop at different steps, so there the signal ends them at once. Nor can it be
    done in a thread other than the main one, where Python has no signals.
    """
    caught: list = []
    if world.size > 1 or threading.current_thread() is not threading.main_thread():
        yield caught
        return
    before = {s: signal.signal(s, lambda number, _: caught.append(number)) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    except _Interrupted:
        name = signal.Signals(caught[0]).name
        raise StoppedError(f"stopped by {name}; everything is saved, go on with --resume") from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _explained(recipe: Recipe) -> Iterator[None]:
    """Turn what PyTorch raises for a want of memory or of a compiler into a TrainingError of one line."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).strip().partition("\n")[0][:200]
        if "out of memory" in reason.lower() or "can't allocate memory" in reason or "not enough memory" in reason:
            what = f"out of memory at train.batch {recipe.train.batch}; try a smaller one ({reason})"
            raise TrainingError(what) from None
        if recipe.train.compile and type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise TrainingError(f"train.compile is true, but the network cannot be compiled: {reason}") from None
        raise


def run_folder_metrics(folder: Path) -> list[dict]:
    """Return the epochs' records of a run. Raises CheckpointError where metrics.jsonl is missing or broken."""
    path = folder / METRICS
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from None
