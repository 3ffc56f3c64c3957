"""The runs of a study, checked for what the page needs of them."""

import math
from pathlib import Path

from bitwren.errors import DataError
from bitwren.study.records import read_records

# What a record may lack, or have as null: a run that failed has no cost.
_OPTIONAL = {
    **dict.fromkeys(("error", "data"), str),
    **dict.fromkeys(("pictures", "accuracy", "cost", "seconds", "made", "recipe"), dict),
    "curve": list,
}


def checked_records(path: Path) -> list[dict]:
    """Return the last record of each run, in the order in which the runs first ended, as the page can take them.

    What a record lacks is there and empty. A last line that is torn is passed over. Raises DataError for a file that
    cannot be read or is broken before its last line, for a record that is none, and where no run is left.
    """
    records, _ = read_records(path)
    for record in records.values():
        _check(record, f"{path}: run {record['run']}")
    if not records:
        raise DataError(f"{path}: holds no run, expected at least 1")
    return [record | {key: record.get(key) or kind() for key, kind in _OPTIONAL.items()} for record in records.values()]


def _check(record: dict, place: str) -> None:
    if record.get("status") not in ("done", "failed"):
        raise DataError(f"{place}: status is {record.get('status')!r}, expected 'done' or 'failed'")
    axes = record.get("axes")
    if not isinstance(axes, dict) or not all(isinstance(v, str | int | float) for v in axes.values()):
        raise DataError(f"{place}: axes is {axes!r}, expected a text or a number for each axis")
    if not isinstance(record.get("seed"), int):
        raise DataError(f"{place}: seed is {record.get('seed')!r}, expected an integer")
    for key, kind in _OPTIONAL.items():
        if not isinstance(record.get(key) or kind(), kind):
            raise DataError(f"{place}: {key} is {type(record[key]).__name__}, expected {kind.__name__}")
    if not all(isinstance(epoch, dict) for epoch in record.get("curve") or []):
        raise DataError(f"{place}: curve holds what is no object, expected one for each epoch")


def number(record: dict, group: str, key: str) -> float | None:
    """Return a record's number, None where it has none or one that is not finite."""
    return finite(record[group].get(key))


def finite(value: object) -> float | None:
    """Return a finite number as it is and None for anything else."""
    fine = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return value if fine else None


def error_of(record: dict, part: str = "test") -> float | None:
    """Return a run's error in per cent. part: a key of "accuracy", or "train" for the last epoch of its curve."""
    if record["status"] != "done":
        return None
    if part == "train":
        curve = record["curve"] or [{}]
        accuracy = finite(curve[-1].get("train_accuracy"))
    else:
        accuracy = number(record, "accuracy", part)
    return None if accuracy is None else 100.0 * (1.0 - accuracy)
