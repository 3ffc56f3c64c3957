"""What a study shows while it runs: a live table on a terminal (the library rich), else a line for each run."""

import contextlib
import sys
from collections.abc import Callable, Iterator

from bitwren.errors import UsageError
from bitwren.study.records import DONE
from bitwren.study.runner import State
from bitwren.study.task import Outcome, Task, epochs_done

RECENT = 12  # runs that ended, below those in hand


def percent(share: float | None) -> str:
    """Return an accuracy 0..1 for a person."""
    return "-" if share is None else f"{share:.2%}"


def duration(seconds: float) -> str:
    """Return a time for a person, in the largest unit of which it is 2 or more."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} s"


def ended(record: dict) -> str:
    """Return one line about a run that ended."""
    if record["status"] != DONE:
        return f"{record['run']}  FAILED: {record['error']}"
    accuracy = record["accuracy"]
    line = f"{record['run']}  validation {percent(accuracy['validation'])}  test {percent(accuracy['test'])}"
    integer = f"  integer {percent(accuracy['integer_test'])}"
    return f"{line}{integer}  {duration(record['seconds']['all'])}"


def _counts(state: State) -> str:
    done, failed = len(state.done), len(state.failed)
    left = len(state.study.runs) - done - failed
    return f"{state.study.name}: {done} done, {failed} failed, {left} left, {duration(state.seconds)}"


@contextlib.contextmanager
def shown() -> Iterator[Callable[[State, Outcome | None], None]]:
    """Yield the function that shows a study's state. Raises UsageError where rich is missing on a terminal."""
    if not sys.stderr.isatty():
        yield _line
        return
    try:
        from rich.console import Console
        from rich.live import Live
    except ImportError:
        raise UsageError("the live table needs rich: pip install 'bitwren[study]'") from None
    with Live(console=Console(stderr=True), refresh_per_second=4) as live:
        yield lambda state, outcome: live.update(_table(state))


def _line(state: State, outcome: Outcome | None) -> None:
    if outcome is not None:
        print(f"{ended(outcome.record)}  ({_counts(state)})", file=sys.stderr, flush=True)


def _table(state: State):
    from rich.table import Table

    table = Table(title=_counts(state), title_justify="left", box=None, pad_edge=False, expand=True)
    table.add_column("run", no_wrap=True)
    for column in ("epoch", "validation", "test", "integer", "time"):
        table.add_column(column, justify="right", no_wrap=True, min_width=max(len(column), 8))
    table.add_column("", overflow="ellipsis", no_wrap=True, ratio=1)  # why a run failed
    for task in state.running:
        table.add_row(*_running(task))
    over = [record for record in state.records.values() if record["run"] not in {t.run.id for t in state.running}]
    for record in over[-RECENT:][::-1]:
        table.add_row(*_over(record))
    return table


def _running(task: Task) -> tuple[str, ...]:
    epochs = epochs_done(task.folder)
    validation = epochs[-1].get("validation_accuracy") if epochs else None
    seconds = sum(epoch["seconds"] for epoch in epochs)
    stands = f"{len(epochs)}/{task.run.recipe.train.epochs}"
    return task.run.id, stands, percent(validation), "", "", duration(seconds)


def _over(record: dict) -> tuple[str, ...]:
    from rich.text import Text

    if record["status"] != DONE:
        return record["run"], Text("failed", style="red"), "", "", "", "", Text(record["error"], style="red")
    accuracy = record["accuracy"]
    shares = (percent(accuracy[key]) for key in ("validation", "test", "integer_test"))
    return record["run"], str(len(record["curve"])), *shares, duration(record["seconds"]["all"])
