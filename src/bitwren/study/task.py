"""What a process is given to carry out a run, what it says of a run that failed, and how far a run is. No PyTorch."""

import dataclasses
import datetime
import json
from pathlib import Path

from bitwren.study.grid import StudyRun
from bitwren.study.records import FAILED

METRICS = "metrics.jsonl"  # of a run's folder, a line an epoch
RETRIES = 2  # of a run whose process died; it goes on from its checkpoint


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The record of a run that ended, and how many seconds it trained and evaluated in the process that ended it."""

    record: dict
    worked: float


@dataclasses.dataclass(frozen=True)
class Task:
    """A run, and how to carry it out.

    study: the name. folder: the run's. data_dir: of the pictures, None for where data sets are kept.
    threads: of the processor. command: that the user gave.
    """

    study: str
    run: StudyRun
    folder: Path
    data_dir: Path | None
    threads: int
    command: str


def now() -> str:
    """Return the date and time, UTC, ISO 8601."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def heading(task: Task) -> dict:
    """Return what every record of a run begins with."""
    run = task.run
    return {
        "study": task.study,
        "run": run.id,
        "status": FAILED,
        "error": None,
        "axes": run.axes,
        "seed": run.seed,
        "data": run.data,
        "recipe": run.recipe.tables(),
    }


def failure(task: Task, reason: str) -> Outcome:
    """Return the outcome of a run that failed. What it worked is not known, and counts as nothing."""
    record = {
        **heading(task),
        "error": " ".join(reason.split()),
        "accuracy": {"validation": None, "test": None, "integer_test": None},
        "curve": epochs_done(task.folder),
        "made": {"command": task.command, "date": now()},
    }
    return Outcome(record, 0.0)


def epochs_done(folder: Path) -> list[dict]:
    """Return what a run's folder says of its epochs so far; a line that is being written is not yet one."""
    try:
        content = (folder / METRICS).read_bytes()
    except OSError:
        return []
    epochs = []
    for line in content.split(b"\n")[:-1]:
        try:
            epochs.append(json.loads(line))
        except ValueError:
            break
    return epochs
