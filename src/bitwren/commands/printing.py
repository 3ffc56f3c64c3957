"""What several commands print or write in the same form."""

import json
import sys
from pathlib import Path

import numpy as np

from bitwren.atomic import write_json
from bitwren.errors import BitwrenError, UsageError


def print_prediction(path: Path, outcome: np.ndarray | BitwrenError, classes: tuple[str, ...], arguments) -> None:
    """Print a picture's most probable classes, a line of text or JSON; an error goes to stderr.

    outcome: probabilities (classes,), or the error that kept the picture from being read.
    arguments: of the command: top, json, pictures.
    """
    if isinstance(outcome, BitwrenError):
        print(f"bitwren: {outcome}", file=sys.stderr)
        return
    best = np.argsort(-outcome, kind="stable")[: arguments.top]  # stable: of equals the first class
    if arguments.json:
        named = [{"class": classes[k], "probability": float(outcome[k])} for k in best]
        print(json.dumps({"picture": str(path), "classes": named}))
    else:
        width = max(len(str(p)) for p in arguments.pictures)
        print(f"{path!s:<{width}}  " + "  ".join(f"{classes[k]} {outcome[k]:.1%}" for k in best))


def data_source(data: str, data_dir: Path | None) -> tuple[str, Path | None]:
    """Return name and folder of the data set that a user names: by its name, or by a folder of pictures."""
    from bitwren.pictures import DATASETS

    if data not in DATASETS and Path(data).is_dir():
        if data_dir is not None:
            raise UsageError(f"{data} is a folder of pictures already, expected no --data-dir")
        return "folder", Path(data)
    return data, data_dir


def make_folder(folder: Path) -> None:
    """Make a folder where it is not there. Raises UsageError where it cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder}: cannot be made: {error.strerror}") from None


def write_evaluation(evaluation, out: Path, about: dict) -> list[Path]:
    """Write evaluation.json and confusion.png into a folder, and return them."""
    from bitwren.report.plots import plot_confusion

    make_folder(out)
    files = [out / "evaluation.json", out / "confusion.png"]
    write_json(files[0], {**about, **evaluation.to_json()})
    plot_confusion(evaluation, files[1])
    return files
