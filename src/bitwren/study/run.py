"""One run of a study: train, choose on the validation pictures, test once, convert, test the integer network.

Needs PyTorch. Killed at any moment, it goes on from its own checkpoint when it is carried out again.
"""

import functools
import time
from pathlib import Path

import numpy as np
import torch

from bitwren.deploy.model import Model, load
from bitwren.errors import BitwrenError, ModelError, StoppedError
from bitwren.network.convert import convert
from bitwren.network.pack import write_bwn
from bitwren.recipe import DataOptions
from bitwren.study.lock import alone
from bitwren.study.records import DONE
from bitwren.study.task import Outcome, Task, epochs_done, failure, heading, now
from bitwren.train.batches import evaluation_batches
from bitwren.train.benchmark import saved_activation_bytes
from bitwren.train.distributed import World, use_threads, world
from bitwren.train.loop import Trainer, autocast, run_folder_metrics
from bitwren.train.predict import calibration_pictures
from bitwren.train.run import Run, build_network, open_run, provenance
from bitwren.train.start import Loaded, make_trainer
from bitwren.train.start import load as load_pictures
from bitwren.train.summary import summarise

MODEL = "model.bwn"
CALIBRATION_PICTURES = 500
SETS_KEPT = 2  # data sets held in memory between runs of one process
LOCK_SECONDS = 60.0  # for a process that was stopped to finish its step and leave the run's folder
_SAVED_BATCH = 7  # pictures: no axis of a weight or a moment is that long


@functools.lru_cache(maxsize=SETS_KEPT)
def _pictures(options: DataOptions, data_dir: Path | None) -> Loaded:
    return load_pictures(options, data_dir, progress=False)


def device_of(slot: int) -> str:
    """Return the device of the process with that number: they take turns at the GPUs."""
    return f"cuda:{slot % torch.cuda.device_count()}" if torch.cuda.is_available() else "cpu"


def carry_out(task: Task, device: str) -> Outcome:
    """Return the outcome of a run, done or failed. device: "auto", "cpu", "cuda:N".

    Raises StoppedError where a signal stopped it; it is saved.
    """
    use_threads(task.threads)
    try:
        with alone(task.folder, "run", LOCK_SECONDS):
            return _carry_out(task, device)
    except StoppedError:
        raise
    except BitwrenError as error:
        return failure(task, str(error))
    except Exception as error:  # whatever it is, the other runs go on
        return failure(task, f"{type(error).__name__}: {error}")


def _carry_out(task: Task, device: str) -> Outcome:
    began = time.perf_counter()
    recipe = task.run.recipe
    with world(device) as here:
        loaded = _pictures(recipe.data, task.data_dir)
        trainer = make_trainer(recipe, task.folder, here, data_dir=task.data_dir, resume=True, loaded=loaded)
        ready = time.perf_counter()
        earlier = _epoch_seconds(task.folder)
        result = trainer.train(show=False)
        trained = time.perf_counter()
        curve = run_folder_metrics(task.folder)
        run = open_run(task.folder)
        model, unconverted = _convert(run, loaded, task)
        converted = time.perf_counter()
        integer = None if model is None else _integer_accuracy(model, trainer, here)
    training = _epoch_seconds(task.folder)
    tested = time.perf_counter()
    cost = _cost(run, task.folder if model is not None else None)
    ended = time.perf_counter()
    steps = trainer.sources.training.steps * recipe.train.epochs
    # An epoch's record counts its steps alone. What else passes in Trainer.train is validation and the test; a part of
    # an epoch that an earlier process did is in the epoch's seconds, but did not pass here.
    fresh = min(training - earlier, trained - ready)
    evaluation = trained - ready - fresh + tested - converted
    around = ready - began + converted - trained + ended - tested
    record = {
        **heading(task),
        "status": DONE,
        "error": unconverted,
        "pictures": {
            "training": run.about["training_pictures"],
            "validation": run.about["validation_pictures"],
            "test": run.about["test_pictures"],
        },
        "accuracy": {
            "validation": result["validation_accuracy"],
            "test": result["test_accuracy"],
            "integer_test": integer,
        },
        "cost": cost,
        "seconds": {
            "training": round(training, 3),
            "evaluation": round(evaluation, 3),
            "reading": round(ready - began, 3),
            "conversion": round(converted - trained, 3),
            "all": round(training + evaluation + around, 3),
            "step": round(training / steps, 6),
        },
        "curve": curve,
        "made": {**provenance(), "command": task.command, "device": str(here.device), "date": now()},
    }
    return Outcome(record, fresh + evaluation)


def _epoch_seconds(folder: Path) -> float:
    return sum(epoch["seconds"] for epoch in epochs_done(folder))


def _convert(run: Run, loaded: Loaded, task: Task) -> tuple[Model | None, str | None]:
    """Return the integer network ready to run, or None and why there is none."""
    chosen = calibration_pictures(loaded.training, CALIBRATION_PICTURES)
    about = {"study": task.study, "run": task.run.id, "settings": run.recipe.changed()}
    try:
        network = convert(run.network(), chosen.images, run.classes, about=about)
        write_bwn(task.folder / MODEL, network)
        return load(task.folder / MODEL, threads=task.threads), None
    except ModelError as error:
        return None, f"not converted: {error}"


def _integer_accuracy(model: Model, trainer: Trainer, here: World) -> float:
    """Return the share of the test pictures that the integer network gets right."""
    test, right = trainer.sources.test, 0
    for images, labels in evaluation_batches(test, World(0, 1, torch.device("cpu")), workers=trainer.sources.workers):
        right += int((model.predict(images.numpy()) == labels.numpy()).sum())
    return right / len(test.labels)


def _cost(run: Run, converted: Path | None) -> dict:
    """Return what the network costs, for one picture; converted: the folder of its integer network, if there is one."""
    network = build_network(run.recipe, run.channels, len(run.classes))
    summary = summarise(network, run.size)
    generator = np.random.default_rng(0)
    pixels = torch.from_numpy(generator.integers(0, 256, (_SAVED_BATCH, run.channels, *run.size), dtype=np.uint8))
    network = network.train().to(memory_format=torch.channels_last)

    def forward():
        with autocast(run.recipe, torch.device("cpu")):
            return network(pixels)

    return {
        "weights": summary.conv_weights,
        "weight_bits": sum(layer.weights * layer.bits_per_weight for layer in summary.layers),
        "bwn_bytes": None if converted is None else (converted / MODEL).stat().st_size,
        "multiplications": summary.multiplications,
        "additions": summary.macs,
        "saved_activation_bytes": saved_activation_bytes(forward, _SAVED_BATCH) // _SAVED_BATCH,
    }
