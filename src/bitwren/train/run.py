"""The folder of a training run: what it holds, and how a trained network comes back out of it.

    recipe.toml          the recipe as trained, settings applied
    run.json             what made the run: data set, classes, versions, commit, processor, command
    metrics.jsonl        one line per epoch
    tensorboard/         the same, for TensorBoard
    last.safetensors     the checkpoint to resume from
    best.safetensors     the network chosen on the validation pictures
    teacher.safetensors  a teacher's answers to the training pictures, where it has one
    result.json          accuracy on the test pictures, measured once, at the end
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
from bitwren.recipe import Recipe, known_keys, load_recipe
from bitwren.train.checkpoint import load_tensors, restore_network, write_atomic, write_json
from bitwren.train.networks import FAMILIES, ResidualNetwork

RECIPE, ABOUT, METRICS, LAST, BEST, ANSWERS, RESULT = (
    "recipe.toml",
    "run.json",
    "metrics.jsonl",
    "last.safetensors",
    "best.safetensors",
    "teacher.safetensors",
    "result.json",
)
CHECKPOINTS = {"best": BEST, "last": LAST}  # by the names that --checkpoint takes


def build_network(recipe: Recipe, channels: int, classes: int) -> ResidualNetwork:
    """Return the recipe's network for pictures of `channels` and that many classes, weights drawn from the seed.

    PyTorch's own generator is left as it was.
    """
    options = dataclasses.asdict(recipe.network)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.train.seed)
        network = FAMILIES[options.pop("family")](num_classes=classes, channels=channels, **options)
    return network.double() if recipe.train.precision == "fp64" else network


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
        "command": " ".join([Path(sys.argv[0]).name.replace("__main__.py", "bitwren"), *sys.argv[1:]]),
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


def create_run(run: Run) -> Run:
    """Make the folder of a new run and return the run with what made it. Raises UsageError where a run is there."""
    if (run.folder / RECIPE).exists():
        raise UsageError(f"{run.folder}: a run is there already; go on with it by --resume, or choose another --out")
    try:
        run.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{run.folder}: cannot be made: {error.strerror or error}") from None
    about = {"recipe": run.recipe.name, **run.about, **provenance()}
    write_json(run.folder / ABOUT, about)
    write_atomic(run.folder / RECIPE, tomli_w.dumps(run.recipe.tables()).encode())  # last: its presence marks a run
    return dataclasses.replace(run, about=about)


def open_run(folder: Path) -> Run:
    """Return the run in a folder. Raises CheckpointError where there is none, or it is broken."""
    if not folder.exists():
        raise CheckpointError(f"{folder}: no such file or folder")
    if not (folder / RECIPE).is_file():
        raise CheckpointError(f"{folder}: no run is there (expected {RECIPE} in it)")
    path = folder / ABOUT
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from None
    if not isinstance(about, dict):
        raise CheckpointError(f"{path}: holds a {type(about).__name__}, expected an object")
    for key, (expected, fits) in _ABOUT_CHECKS.items():
        if not fits(about.get(key)):
            raise CheckpointError(f"{path}: {key} is {about.get(key)!r}, expected {expected}")
    try:
        recipe = load_recipe(folder / RECIPE)
    except UsageError as error:
        raise CheckpointError(str(error)) from None
    return Run(folder, dataclasses.replace(recipe, name=about["recipe"]), about)


def _list_of(kind: type, count: int | None = None):
    return lambda value: (
        isinstance(value, list) and bool(value) and count in (None, len(value)) and {type(v) for v in value} == {kind}
    )




def _model_file(value) -> bool:
    return value is None or (isinstance(value, dict) and {type(value.get(k)) for k in ("model", "sha256")} == {str})


# What the rest of the program reads of run.json.
_ABOUT_CHECKS = {
    "recipe": ("a name", lambda value: isinstance(value, str)),
    "classes": ("a list of names", _list_of(str)),
    "size": ("[height, width]", lambda value: _list_of(int, 2)(value) and min(value) > 0),
    "channels": ("1 or 3", lambda value: type(value) is int and value in (1, 3)),
    "from": ("the model that the run was started from, and its sha256", _model_file),
    "teacher": ("the model that taught the run, and its sha256", _model_file),
}


def same_recipe(run: Run, recipe: Recipe) -> None:
    """Raise UsageError naming the first key in which a recipe differs from the run's."""
    for key in known_keys():
        table, _, name = key.partition(".")
        ours, theirs = (getattr(getattr(r, table), name) for r in (run.recipe, recipe))
        if ours != theirs:
            raise UsageError(
                f"{run.folder}: was started with {key} {ours!r}, not {theirs!r}; "
                "leave the recipe out, or choose another --out"
            )
