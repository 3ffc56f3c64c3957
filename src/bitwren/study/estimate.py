"""How long the runs of a study would take: from records of equal runs, else from a few steps of each network."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from bitwren.errors import BitwrenError, DataError
from bitwren.pictures import find_dataset, list_folder
from bitwren.recipe import Recipe
from bitwren.study.records import DONE
from bitwren.study.task import Task

# What a picture takes: seconds to train on and to classify, by recipe, channels, classes, size.
Measure = Callable[[Recipe, int, int, tuple[int, int]], tuple[float, float]]


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Runs that differ in nothing but the seed: their ids, the seconds of one of them, and what tells that.

    seconds: None where nothing does; `source` then says why.
    """

    runs: tuple[str, ...]
    seconds: float | None
    source: str


def estimate(tasks: Sequence[Task], records: Mapping[str, dict], measure: Measure) -> list[Estimate]:
    """Return the estimates of runs, those of equal recipes together, in the order of the tasks."""
    groups: dict[str, list[Task]] = {}
    for task in tasks:
        groups.setdefault(_without_seed(task.run.recipe.tables()), []).append(task)
    earlier: dict[str, list[float]] = {}
    for record in records.values():
        if record.get("status") == DONE:
            earlier.setdefault(_without_seed(record["recipe"]), []).append(record["seconds"]["all"])
    measured: dict[str, tuple[float, float]] = {}
    estimates = []
    for same, group in groups.items():
        ids = tuple(task.run.id for task in group)
        if same in earlier:
            mean = sum(earlier[same]) / len(earlier[same])
            estimates.append(Estimate(ids, mean, f"{len(earlier[same])} earlier"))
            continue
        try:
            estimates.append(Estimate(ids, _seconds(group[0], measured, measure), "measured"))
        except BitwrenError as error:
            estimates.append(Estimate(ids, None, str(error)))
    return estimates


def _without_seed(recipe: dict) -> str:
    """Return what decides how long a run takes, as a key."""
    train = {k: v for k, v in recipe["train"].items() if k != "seed"}
    return repr([sorted(table.items()) for table in (recipe["data"], recipe["network"], recipe["augment"], train)])


def _seconds(task: Task, measured: dict[str, tuple[float, float]], measure: Measure) -> float:
    recipe = task.run.recipe
    training, held, test, classes, channels, size = _pictures(recipe, task.data_dir)
    key = repr((recipe.network, recipe.train.batch, recipe.train.precision, channels, classes, size))
    if key not in measured:
        measured[key] = measure(recipe, channels, classes, size)
    step, forward = measured[key]
    return recipe.train.epochs * (training * step + held * forward) + test * forward


def _pictures(recipe: Recipe, data_dir: Path | None) -> tuple[int, int, int, int, int, tuple[int, int]]:
    """Return how many pictures train, are held out, and test; classes, channels, and size."""
    options, entry = recipe.data, find_dataset(recipe.data.name)
    training, test, classes = entry.train_count, entry.test_count, len(entry.classes or ())
    if training is None:
        if data_dir is None:
            raise DataError("needs --data-dir: only the folder tells how many pictures there are")
        listing = list_folder(data_dir)
        training, test, classes = len(listing.train_files), len(listing.test_files), len(listing.classes)
    held = round(options.validation if options.validation >= 1 else options.validation * training)
    size = options.image_size or entry.size
    if size is None:
        raise DataError("needs data.image_size: only the pictures tell their size")
    return training - held, held, test, classes or 1000, options.channels or entry.channels or 3, size
