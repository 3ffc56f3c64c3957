"""Files written so that a reader sees the old content or the new, never half."""

import contextlib
import json
import os
from pathlib import Path

from bitwren.errors import WriteError


def write_atomic(path: Path, content: bytes) -> None:
    """Replace the file's content as one step, on disk when this returns.

    Raises WriteError naming the file (disk full, no permission); the old content is then still there.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        with open(partial, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # the new name itself survives a power cut
        finally:
            os.close(folder)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise WriteError(f"{path}: cannot be written: {error.strerror or error}; the previous one is kept") from None


def write_json(path: Path, content: object) -> None:
    """Write JSON atomically, readable and with a stable layout."""
    write_atomic(path, (json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())
