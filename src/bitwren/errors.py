"""Every error that bitwren raises on purpose.

BitwrenError
├── UsageError        the command line, a recipe or an argument is wrong      exit status 2
├── DataError         a picture, a data set or a download is missing or broken exit status 1
├── CheckpointError   a run folder or a checkpoint is missing or broken        exit status 1
├── TrainingError     training cannot go on (loss not finite, a worker died)   exit status 1
│   └── StoppedError  a signal stopped it; everything is saved                 exit status 1
├── WriteError        a file cannot be written (disk full, no permission)      exit status 1
├── ToolError         a compiler or an emulator is missing or failed           exit status 1
└── ModelError        an integer network or its file is not well formed        exit status 1

A message is one line: what, the value got, the value expected. The command line prints it without a traceback.
"""

import difflib
from collections.abc import Iterable


class BitwrenError(Exception):
    """Base of all errors that a user can cause and mend."""

    exit_status = 1

    def __str__(self) -> str:
        """Return the message on one line, even where it quotes a file name or a library that has several."""
        return super().__str__().replace("\n", "\\n")


class UsageError(BitwrenError):
    """A command, a recipe or an argument that cannot be carried out as written."""

    exit_status = 2


class DataError(BitwrenError):
    """A picture, a data set or a download that is missing or broken."""


class CheckpointError(BitwrenError):
    """A run folder or a checkpoint that is missing, broken or of another network."""


class TrainingError(BitwrenError):
    """Training that cannot go on."""


class StoppedError(TrainingError):
    """Training that a signal stopped, saved to go on with."""


class WriteError(BitwrenError):
    """A file that cannot be written."""


class ToolError(BitwrenError):
    """A program of the system's, such as a cross compiler or an emulator, that is missing or failed."""


class ModelError(BitwrenError):
    """An integer network, or the file that should hold one, that is not well formed."""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """Return the error for a name that does not exist, with the nearest name that does.

    kind: what the name should have named ("recipe", "data set", "key").
    """
    known = sorted(known)
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {nearest[0]!r}?" if nearest else f"known: {', '.join(known)}"
    return UsageError(f"unknown {kind} {name!r}; {hint}")
