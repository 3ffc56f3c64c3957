"""The folder of a training run: what it holds, and how a trained network comes back out of it.

    recipe.toml        the recipe as trained, settings applied
    run.json           what made the run: data set, classes, versions, commit, processor, command
    metrics.jsonl      one line per epoch
    tensorboard/       the same, for TensorBoard
    last.safetensors   the checkpoint to resume from
    best.safetensors   the network chosen on the validation pictures
    result.json        accuracy on the test pictures, measured once, at the end
"""

import dataclasses
import json
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import tomli_w
import torch

from bitwren.errors import CheckpointError, UsageError
from bitwren.recipe import Recipe, load_recipe
from bitwren.train.checkpoint import load_tensors, restore_network, write_atomic, write_json
from bitwren.train.networks import FAMILIES, ResidualNetwork

RECIPE, ABOUT, METRICS, LAST, BEST, RESULT = (
    "recipe.toml",
    "run.json",
    "metrics.jsonl",
    "last.safetensors",
    "best.safetensors",
    "result.json",
)


def build_network(recipe: Recipe, channels: int, classes: int) -> ResidualNetwork:
    """Return the recipe's network for pictures of `channels` and that many classes, weights drawn from the seed."""
    torch.manual_seed(recipe.train.seed)
    options = dataclasses.asdict(recipe.network)
    return FAMILIES[options.pop("family")](num_classes=classes, channels=channels, **options)


def processor() -> str:
    """Return the processor's name, as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def commit() -> str | None:
    """Return the commit of bitwren's own checkout, "+" appended if it was changed; None where it is not a checkout."""

    def git(*words: str) -> str:
        here = Path(__file__).parent
        return subprocess.run(["git", "-C", here, *words], capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def provenance() -> dict:
    """Return what made a result: versions, commit, processor, threads, command."""
    versions = {name: metadata.version(name) for name in ("bitwren", "torch", "numpy", "pillow")}
    return {
        "command": " ".join(Path(word).name if i == 0 else word for i, word in enumerate(sys.argv)),
        "commit": commit(),
        "versions": {"python": platform.python_version(), **versions},
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }


@dataclasses.dataclass(frozen=True)
class Run:
    """A run folder with its recipe and what run.json says."""

    folder: Path
    recipe: Recipe
    about: dict

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the logits."""
        return tuple(self.about["classes"])

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the pictures that the network was trained on."""
        return tuple(self.about["size"])

    @property
    def channels(self) -> int:
        """1 for grey pictures, 3 for colour."""
        return self.about["channels"]

    def network(self, which: str = BEST) -> ResidualNetwork:
        """Return the trained network in evaluation mode. Raises CheckpointError for a missing or broken file."""
        network = build_network(self.recipe, self.channels, len(self.classes))
        path = self.folder / which
        if which == BEST and not path.exists():
            raise CheckpointError(f"{path}: not there yet: this run has not finished its first epoch")
        tensors, _ = load_tensors(path)
        restore_network(path, tensors, network)
        return network.eval().to(memory_format=torch.channels_last)


def create_run(folder: Path, recipe: Recipe, about: dict) -> Run:
    """Make the folder of a new run. Raises UsageError where a run is there already."""
    if (folder / RECIPE).exists():
        raise UsageError(f"{folder}: a run is there already; go on with it by --resume, or choose another --out")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder}: cannot be made: {error.strerror}") from None
    write_json(folder / ABOUT, {"recipe": recipe.name, **about, **provenance()})
    write_atomic(folder / RECIPE, tomli_w.dumps(recipe.tables()).encode())  # last: its presence marks a run
    return open_run(folder)


def open_run(folder: Path) -> Run:
    """Return the run in a folder. Raises CheckpointError where there is none, or it is broken."""
    if not (folder / RECIPE).is_file():
        raise CheckpointError(f"{folder}: no run is there (expected {RECIPE} in it)")
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        wanted = {"recipe": str, "classes": list, "size": list, "channels": int}
        for key, kind in wanted.items():
            if not isinstance(about.get(key) if isinstance(about, dict) else None, kind):
                raise CheckpointError(f"{folder / ABOUT}: {key} is missing or not a {kind.__name__}")
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder / ABOUT}: cannot be read: {error}") from None
    recipe = dataclasses.replace(load_recipe(folder / RECIPE), name=about["recipe"])
    return Run(folder, recipe, about)


def same_recipe(run: Run, recipe: Recipe) -> None:
    """Raise UsageError naming the first key in which a recipe differs from the run's."""
    ours, theirs = run.recipe.tables(), recipe.tables()
    for table in theirs:
        if ours.get(table) != theirs[table]:
            pair = f"{table} is {theirs[table]!r}, expected {ours.get(table)!r}"
            if isinstance(theirs[table], dict):
                key = next(k for k in {**ours[table], **theirs[table]} if ours[table].get(k) != theirs[table].get(k))
                pair = f"{table}.{key} is {theirs[table].get(key)!r}, expected {ours[table].get(key)!r}"
            raise UsageError(f"{run.folder}: was started with another recipe: {pair}; leave it out, or start a new run")


