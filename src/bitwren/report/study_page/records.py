"""The runs of a study as the page needs them: runs.jsonl, one JSON object a line, the last of a run's counts."""

import json
import math
from pathlib import Path

from bitwren.errors import DataError

RECORDS = "runs.jsonl"


def read_records(path: Path) -> list[dict]:
    """Return the last record of each run, in the order in which the runs first ended.

    A last line that is torn, as a loss of power leaves it, is passed over. Raises DataError for a file that cannot be
    read, for any other broken line, and where no run is left.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    lines = content.split(b"\n")
    records: dict[str, dict] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            if number == len(lines):
                break
            raise DataError(f"{path}: line {number} is not JSON: {error}") from None
        _check(record, f"{path}: line {number}")
        records[record["run"]] = record
    if not records:
        raise DataError(f"{path}: holds no run, expected at least 1")
    return list(records.values())


def _check(record: object, place: str) -> None:
    if not isinstance(record, dict) or not isinstance(record.get("run"), str):
        raise DataError(f"{place} has no text 'run', expected the record of a run")
    if record.get("status") not in ("done", "failed"):
        raise DataError(f"{place}: status is {record.get('status')!r}, expected 'done' or 'failed'")
    axes = record.get("axes")
    if not isinstance(axes, dict) or not all(isinstance(v, str | int | float) for v in axes.values()):
        raise DataError(f"{place}: axes is {axes!r}, expected a text or a number for each axis")
    if not isinstance(record.get("seed"), int):
        raise DataError(f"{place}: seed is {record.get('seed')!r}, expected an integer")
    for key, kind in (("accuracy", dict), ("cost", dict), ("seconds", dict), ("recipe", dict), ("curve", list)):
        if not isinstance(record.get(key) or kind(), kind):
            raise DataError(f"{place}: {key} is {type(record[key]).__name__}, expected {kind.__name__}")
    if not all(isinstance(epoch, dict) for epoch in record.get("curve") or []):
        raise DataError(f"{place}: curve holds what is no object, expected one for each epoch")


def number(record: dict, group: str, key: str) -> float | None:
    """Return a record's number, None where it has none or one that is not finite."""
    return finite((record.get(group) or {}).get(key))


def finite(value: object) -> float | None:
    """Return a finite number as it is and None for anything else."""
    fine = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return value if fine else None


def error_of(record: dict, part: str = "test") -> float | None:
    """Return a run's error in per cent. part: a key of "accuracy", or "train" for the last epoch of its curve."""
    if record["status"] != "done":
        return None
    if part == "train":
        curve = record.get("curve") or [{}]
        accuracy = finite(curve[-1].get("train_accuracy"))
    else:
        accuracy = number(record, "accuracy", part)
    return None if accuracy is None else 100.0 * (1.0 - accuracy)
