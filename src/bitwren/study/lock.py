"""A folder that one process at a time works in."""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from bitwren.errors import UsageError


@contextlib.contextmanager
def alone(folder: Path, what: str, seconds: float = 0.0) -> Iterator[None]:
    """Keep a folder, which is made where it is not there, to this process; the lock goes with the process.

    what: is in the folder, for the message. seconds: to wait for another process that is just leaving.
    Raises UsageError where the folder cannot be made, or another process stays in it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise UsageError(f"{folder}: cannot be made: {error.strerror or error}") from None
    try:
        until = time.monotonic() + seconds
        while not _locked(held):
            if time.monotonic() > until:
                raise UsageError(f"{folder}: another process is at this {what}; wait for it, or end it")
            time.sleep(0.1)
        yield
    finally:
        os.close(held)


def _locked(held: int) -> bool:
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a network's file system that has no locks
        pass
    return True
