"""runs.jsonl: one JSON object a line, one for each run that ended; of several for a run the last counts.

A line is written whole and flushed to the disk. A machine that loses power in the middle may leave the last one torn:
it is passed over on reading, and cut off before the next is written.
"""

import json
import os
from pathlib import Path

from bitwren.errors import DataError, WriteError

RECORDS = "runs.jsonl"
DONE, FAILED = "done", "failed"


def read_records(path: Path) -> tuple[dict[str, dict], str | None]:
    """Return the last record of each run by its id, and what is wrong with a torn last line (None: nothing).

    A file that is not there holds no records. Raises DataError for a broken line before the last.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return {}, None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    lines = content.split(b"\n")  # the last is empty where the file ends as it should
    records: dict[str, dict] = {}
    for number, line in enumerate(lines, 1):
        if number == len(lines):
            torn = f"{path}: line {number} is torn ({len(line)} bytes) and passed over" if line else None
            return records, torn
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}: line {number} is not JSON: {error}") from None
        if not isinstance(record, dict) or not isinstance(record.get("run"), str):
            raise DataError(f"{path}: line {number} is {line[:40]!r}, expected the record of a run")
        records[record["run"]] = record
    raise AssertionError("a split has at least one part")


def append_record(path: Path, record: dict) -> None:
    """Write a record as the file's last line, on disk when this returns. Raises WriteError where the disk refuses."""
    line = json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n"
    try:
        with open(path, "ab") as file:
            size = file.tell()
            file.truncate(_whole(path, size))
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise WriteError(f"{path}: cannot be written: {error.strerror or error}") from None


def _whole(path: Path, size: int) -> int:
    """Return the bytes of a file of that size up to the end of its last whole line."""
    with open(path, "rb") as file:
        file.seek(max(size - 1, 0))
        if size == 0 or file.read(1) == b"\n":
            return size
    return path.read_bytes().rfind(b"\n") + 1
