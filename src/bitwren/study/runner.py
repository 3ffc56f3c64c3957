"""A study carried out: its folder made or found, its runs handed out, their records kept.

    study.toml       the study file
    runs.jsonl       a record for each run that ended (records.py)
    sessions.jsonl   a line for each time the command ran: what it did, and its overhead in seconds if not stopped
    RUN/             the folder of a run, and in it model.bwn
"""

import dataclasses
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from bitwren.atomic import write_atomic
from bitwren.errors import UsageError, unknown_name
from bitwren.study.grid import Study, StudyRun, expand, read_source
from bitwren.study.lock import alone
from bitwren.study.records import DONE, RECORDS, append_record, read_records
from bitwren.study.task import Outcome, Task, now

STUDY, SESSIONS = "study.toml", "sessions.jsonl"
LOOK_SECONDS = 1.0  # between two looks at the runs in hand


@dataclasses.dataclass
class State:
    """Where a study stands. records: the last of each run that ended. running: tasks in hand. torn: see records.py."""

    study: Study
    folder: Path
    records: dict[str, dict]
    torn: str | None = None
    running: list[Task] = dataclasses.field(default_factory=list)
    seconds: float = 0.0  # since the command began
    overhead: float = 0.0  # of them, over all processes, those that neither train nor evaluate

    @property
    def done(self) -> list[StudyRun]:
        """The runs that are done."""
        return [run for run in self.study.runs if self.records.get(run.id, {}).get("status") == DONE]

    @property
    def failed(self) -> list[dict]:
        """The records of the runs that failed, in the study's order."""
        records = [self.records[run.id] for run in self.study.runs if run.id in self.records]
        return [record for record in records if record["status"] != DONE]


def open_study(path: Path, folder: Path | None, resume: bool) -> State:
    """Return the study of a file with what was done of it; nothing is written.

    folder: None takes runs/NAME. Raises UsageError where one is there and resume is False, or is another study.
    """
    source = read_source(path)
    study = expand(source, path)
    folder = folder or Path("runs") / study.name
    if not (folder / STUDY).exists():
        return State(study, folder, {})
    if not resume:
        raise UsageError(f"{folder}: a study is there already; go on with it by --resume, or choose another --out")
    difference = _difference(read_source(folder / STUDY), source)
    if difference:
        raise UsageError(f"{path}: {difference}; put it back as it was, or choose another --out")
    records, torn = read_records(folder / RECORDS)
    known = {run.id: run for run in study.runs}
    for run_id, record in records.items():
        if record.get("status") == DONE and record.get("recipe") != _plain(known[run_id].recipe.tables()):
            raise UsageError(
                f"{folder}: run {run_id} was made from another recipe than it has now: a recipe file was changed? "
                "Put it back as it was, or choose another --out"
            )
    return State(study, folder, records, torn)


def _plain(tables: dict) -> dict:
    return json.loads(json.dumps(tables))


def _difference(old: dict, new: dict) -> str | None:
    """Return the first difference of two study files as a text, None where they say the same."""
    for key in (*old, *(k for k in new if k not in old)):
        if old.get(key) != new.get(key):
            if isinstance(old.get(key), dict) and isinstance(new.get(key), dict):
                return f"{key}.{_difference(old[key], new[key])}"
            return f"{key} is {new.get(key)!r}, expected {old.get(key)!r} as when the study was started"
    return None


def data_dirs(study: Study, options: list[str]) -> dict[str, Path]:
    """Return the folder of pictures by the name of the data: --data-dir DIR for all, NAME=DIR for one of them.

    Raises UsageError for a name that no run has.
    """
    names = list(dict.fromkeys(run.data for run in study.runs))
    found: dict[str, Path] = {}
    for option in options:
        name, equals, folder = option.partition("=")
        if equals and name not in names:
            raise UsageError(f"--data-dir {option}: {unknown_name('data', name, names)}")
        found |= {name: Path(folder)} if equals else {n: Path(option) for n in names if n not in found}
    return found


def tasks(state: State, folders: Mapping[str, Path], threads: int, command: str) -> list[Task]:
    """Return what is left to do, in the study's order; a run that failed is tried again."""
    done = {run.id for run in state.done}
    left = [run for run in state.study.runs if run.id not in done]
    made = []
    for run in left:
        data_dir = folders.get(run.data, run.data_dir)
        folder = (state.folder / run.id).resolve()
        made.append(
            Task(state.study.name, run, folder, None if data_dir is None else data_dir.resolve(), threads, command)
        )
    return made


def carry_out_study(
    state: State, path: Path, left: list[Task], workers, show: Callable[[State, Outcome | None], None]
) -> None:
    """Carry out the tasks that are left and keep their records in the folder.

    workers: a context with `outcomes`, see workers.py. show: called at each look, and with each outcome.
    Raises UsageError where another process is at this study.
    """
    began = looked = time.monotonic()
    busy = worked = 0.0
    ended = 0
    with alone(state.folder, "study"):
        if not (state.folder / STUDY).exists():
            write_atomic(state.folder / STUDY, path.read_bytes())
        try:
            with workers:
                for outcome, running in workers.outcomes(left, LOOK_SECONDS):
                    looked, before = time.monotonic(), looked
                    busy += (looked - before) * max(len(state.running), 1)
                    if outcome is not None:
                        append_record(state.folder / RECORDS, outcome.record)
                        state.records[outcome.record["run"]] = outcome.record
                        worked, ended = worked + outcome.worked, ended + 1
                    state.running, state.seconds = running, looked - began
                    show(state, outcome)
        finally:  # stopped too; what the runs then in hand worked is not known
            state.seconds = time.monotonic() - began
            state.overhead = max(busy - worked, 0.0) + time.monotonic() - looked
            session = {
                "date": now(),
                "command": left[0].command if left else None,
                "stopped": bool(state.running),
                "runs": ended,
                "seconds": round(state.seconds, 3),
                "training_and_evaluation_seconds": round(worked, 3),
                "overhead_seconds": None if state.running else round(state.overhead, 3),
            }
            append_record(state.folder / SESSIONS, session)
