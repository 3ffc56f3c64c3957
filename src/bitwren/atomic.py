"""Files written so that a reader sees the old content or the new, never half."""

import contextlib
import json
import os
import stat
import sys
from pathlib import Path

from bitwren.errors import WriteError


def write_atomic(path: Path, content: bytes) -> None:
    """Replace the file's content as one step, on disk when this returns.

    A link stays; what it leads to is replaced. A device, a pipe and what this process prints to (/dev/stdout) hold
    nothing to be kept: they are written to. Raises WriteError naming the file (disk full, no permission); the old
    content is then still there.
    """
    stream = _stream(path)
    try:
        if stream is not None:
            with open(stream, "wb") as file:
                file.write(content)
        else:
            _replace(Path(os.path.realpath(path)), content)
    except OSError as error:
        kept = "; the previous one is kept" if stream is None else ""
        raise WriteError(f"{path}: cannot be written: {error.strerror or error}{kept}") from None


def _stream(path: Path) -> Path | int | None:
    """Return what to open to write to a device, a pipe or this process's own output, None where a file is meant."""
    try:
        found = path.stat()
    except OSError:
        return None  # to be made, or refused when that is tried
    for output in (sys.__stdout__, sys.__stderr__):
        # By its own descriptor: opened anew, a file would be written from its start.
        with contextlib.suppress(AttributeError, OSError, ValueError):  # closed, or none at all
            if os.path.samestat(found, os.fstat(output.fileno())):
                output.flush()
                return os.dup(output.fileno())
    return None if stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode) else path


def _replace(path: Path, content: bytes) -> None:
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
    except OSError:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise


def write_json(path: Path, content: object) -> None:
    """Write JSON atomically, readable and with a stable layout."""
    write_atomic(path, (json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())
