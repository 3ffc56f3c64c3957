"""From a recipe to a running Trainer: pictures read and split, the run folder made or found."""

import dataclasses
from pathlib import Path

import numpy as np
import torch

from bitwren.errors import UsageError
from bitwren.pictures import Pictures, Split, load_dataset, read_picture, stratified_split, streamed
from bitwren.recipe import DataOptions, Recipe
from bitwren.train.batches import Files, MemoryBatches, StreamedBatches
from bitwren.train.distil import Teacher, ask, load_answers, save_answers
from bitwren.train.distributed import World
from bitwren.train.inherit import ModelFile, Signs, take_signs
from bitwren.train.loop import Sources, Trainer
from bitwren.train.run import ANSWERS, LAST, RECIPE, Run, create_run, open_run, same_recipe

SPLIT_SEED = 0  # which pictures are held out does not change with the training seed: runs stay comparable
FIT_PICTURES = 2000  # of a streamed set, for the input's mean and deviation


@dataclasses.dataclass(frozen=True)
class Loaded:
    """A data set ready to train on: each part in memory (Pictures) or as files to stream (Files)."""

    training: Pictures | Files
    validation: Pictures | Files | None
    test: Pictures | Files
    fit: Pictures
    classes: tuple[str, ...]
    size: tuple[int, int]
    channels: int


def _held_out(labels: np.ndarray, amount: float) -> tuple[np.ndarray, np.ndarray]:
    if amount >= len(labels):
        raise UsageError(f"data.validation is {amount:g}, expected fewer than the {len(labels)} training pictures")
    return stratified_split(labels, amount if amount < 1 else int(amount), SPLIT_SEED)


def _divided(pictures: Pictures | Files, options: DataOptions) -> tuple[Pictures | Files, Pictures | Files | None]:
    """Return the pictures to learn from and those held out. Raises UsageError where there are not so many."""
    validation = None
    if options.validation:
        kept, held = _held_out(pictures.labels, options.validation)
        pictures, validation = pictures.take(kept), pictures.take(held)
    if options.training is not None:
        if options.training > len(pictures.labels):
            raise UsageError(f"data.training is {options.training}, expected at most {len(pictures.labels)} pictures")
        pictures = pictures.take(stratified_split(pictures.labels, options.training, SPLIT_SEED)[1])
    return pictures, validation


def load(options: DataOptions, data_dir: Path | None, progress: bool = True) -> Loaded:
    """Return the data set of a recipe, training pictures split for validation.

    Raises UsageError for an unknown set and DataError for missing or broken files.
    """
    listing = streamed(options.name, data_dir, options.image_size, options.channels)
    if listing is not None:
        return _load_files(options, listing)
    split: Split = load_dataset(
        options.name, data_dir, size=options.image_size, channels=options.channels, progress=progress
    )
    training, validation = _divided(split.train, options)
    channels, height, width = training.images.shape[1:]
    return Loaded(training, validation, split.test, training, training.classes, (height, width), channels)


def _load_files(options: DataOptions, listing) -> Loaded:
    if options.image_size is None:
        raise UsageError("data.image_size is not set, expected height and width for pictures read from files")
    size, channels = options.image_size, options.channels or 3
    files = Files(tuple(listing.train_files), listing.train_labels, size, channels)
    training, validation = _divided(files, options)
    chosen = np.random.default_rng(SPLIT_SEED).permutation(len(training.files))[:FIT_PICTURES]
    images = np.stack([read_picture(training.files[i], size, channels) for i in chosen])
    fit = Pictures(images, training.labels[chosen], listing.classes)
    test = Files(tuple(listing.test_files), listing.test_labels, size, channels)
    return Loaded(training, validation, test, fit, listing.classes, size, channels)


def make_trainer(
    recipe: Recipe | None,
    out: Path,
    world: World,
    *,
    data_dir: Path | None = None,
    resume: bool = False,
    progress: bool = True,
    loaded: Loaded | None = None,
    signs: Signs | None = None,
    teacher: Teacher | None = None,
) -> Trainer:
    """Return a Trainer for a new run in `out`, or for the one that is there when resuming.

    recipe: None takes the run's own. loaded: the recipe's pictures, where they were read before. signs: of a trained
    network, which a new run starts from. teacher: whose answers a new run learns too.
    Raises UsageError where the two recipes, what they start from or their teachers differ, where the recipe has a
    teacher and none is given or the other way round, or a run is there and resume is False.
    """
    old = open_run(out) if resume and (out / RECIPE).exists() else None
    if old is not None:
        if recipe is not None:
            same_recipe(old, recipe)
        _same_file(old, "from", signs, LAST)
        _same_file(old, "teacher", teacher, ANSWERS)
        recipe, data_dir = old.recipe, data_dir or (Path(old.about["data_dir"]) if old.about.get("data_dir") else None)
    elif recipe is None:
        raise UsageError(f"{out}: no run to resume is there, and no recipe was given")
    elif (out / RECIPE).exists():
        raise UsageError(f"{out}: a run is there already; go on with it by --resume, or choose another --out")
    taught = teacher.about if teacher is not None else old and old.about.get("teacher")
    if bool(recipe.train.distil) != bool(taught):
        given = f"--teacher is {taught['model']}" if taught else "no teacher is given by --teacher"
        expected = "above 0: the share of the loss that its answers have" if taught else "0"
        raise UsageError(f"{given}, and train.distil is {recipe.train.distil:g}, expected {expected}")
    with world.first_before_others():  # what the first downloads, the others find
        loaded = loaded or load(recipe.data, data_dir, progress and world.writes)
    about = _about(recipe, data_dir, loaded, world)
    about |= {key: file.about for key, file in (("from", signs), ("teacher", teacher)) if file is not None}
    if teacher is not None:
        teacher.check(loaded.classes, loaded.channels, loaded.size)
    if old is not None:
        _same_pictures(old, about)
    common = (recipe.train.batch, recipe.train.seed, recipe.augment, world)
    if isinstance(loaded.training, Pictures):
        if recipe.augment.crop:
            raise UsageError("augment.crop is true, expected false: these pictures are in memory at their final size")
        training = MemoryBatches.of(loaded.training, *common)
    else:
        training = StreamedBatches(*common, loaded.training, recipe.data.workers)
    sources = Sources(training, loaded.fit, loaded.validation, loaded.test, recipe.data.workers)
    trainer = Trainer(old or Run(out, recipe, about), sources, world)
    if signs is not None:
        take_signs(trainer.network, signs)
    if old is None and world.writes:  # only now: a network that cannot be made leaves no folder behind
        trainer.run = create_run(trainer.run)
    world.barrier()
    if recipe.train.distil:
        if old is None or not (out / ANSWERS).exists():
            answers = ask(teacher, loaded.training, world, recipe.data.workers, progress and world.writes)
            with world.first_before_others():
                if world.writes or not (out / ANSWERS).exists():  # where the first failed, the others fail as it did
                    save_answers(out / ANSWERS, answers)
        trainer.learn_from(load_answers(out / ANSWERS, len(loaded.training.labels), len(loaded.classes)))
    if resume:
        trainer.resume()
    return trainer


def _about(recipe: Recipe, data_dir: Path | None, loaded: Loaded, world: World) -> dict:
    """Return what run.json says of a run's pictures and processes."""
    return {
        "data": recipe.data.name,
        "data_dir": None if data_dir is None else str(data_dir.resolve()),
        "classes": list(loaded.classes),
        "size": list(loaded.size),
        "channels": loaded.channels,
        "training_pictures": len(loaded.training.labels),
        "validation_pictures": 0 if loaded.validation is None else len(loaded.validation.labels),
        "test_pictures": len(loaded.test.labels),
        "device": str(world.device),
        "processes": world.size,
    }


def _same_pictures(run: Run, about: dict) -> None:
    """Raise UsageError where the pictures are not those with which a run was started."""
    for key in ("classes", "size", "channels", "training_pictures", "validation_pictures", "test_pictures"):
        if about[key] != run.about.get(key):
            raise UsageError(
                f"{run.folder}: {key} of the data: {about[key]}, "
                f"expected {run.about.get(key)} as when the run was started"
            )


def _same_file(run: Run, key: str, file: ModelFile | None, kept: str) -> None:
    """Raise UsageError where a run took something from another model, or needs its model again.

    key: of run.json, and of the command's option. kept: the run's file that holds what was taken.
    """
    old = run.about.get(key)
    if file is not None and file.sha256 != (old or {}).get("sha256"):
        raise UsageError(f"{run.folder}: its --{key} is {_told(old)}, not {_told(file.about)}")
    if old is not None and file is None and not (run.folder / kept).exists():
        raise UsageError(f"{run.folder}: has no {kept} yet; give its --{key} {old['model']} again")


def _told(file: dict | None) -> str:
    return "none" if file is None else f"{file['model']} (SHA-256 {file['sha256'][:8]}...)"


def precision_warning(recipe: Recipe, device: torch.device) -> str | None:
    """Return what to say of a precision that the processor only imitates; None where it has instructions for it."""
    if recipe.train.precision != "bf16" or device.type != "cpu":
        return None
    if not torch.backends.mkldnn.is_available() or torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return None  # without oneDNN PyTorch has no such question
    return "train.precision is bf16, for which this processor has no instructions: fp32 is several times faster here"
