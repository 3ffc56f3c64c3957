"""Data flows down the page: a module imports only from its own room and from the rooms above it."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import bitwren

PACKAGE = Path(bitwren.__file__).parent
ROOMS = [
    *("errors", "atomic", "terminal", "recipe", "pictures", "train", "network", "deploy", "study", "report"),
    *("commands", "cli", "__main__"),
]
TORCH_ROOM, TORCH_FILES = "train", {"network/convert.py", "network/simulate.py", "study/run.py"}
TORCH = ("torch", "torchvision", "safetensors.torch")
WITHOUT_TORCH = [
    "bitwren",
    "bitwren.recipe",
    "bitwren.pictures",
    "bitwren.network.pack",
    "bitwren.network.reference",
    "bitwren.deploy.export_onnx",
    "bitwren.deploy.fit",
    "bitwren.deploy.verify",
    "bitwren.report.evaluation",
    "bitwren.cli",
]
FILES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))


def imported(file, source):
    """Return the dotted name of everything that a file imports, at the top or inside a function."""
    names = set()
    package = ["bitwren", *Path(file).parts[:-1]]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*start, *([node.module] if node.module else [])])
            names |= {f"{module}.{alias.name}" for alias in node.names}
    return names


def room_of(file):
    return Path(file).parts[0].removesuffix(".py")


def wrong_imports(file, source):
    """Return what a file imports from a room below its own, and PyTorch where it has no place."""
    room, wrong = room_of(file), []
    for name in sorted(imported(file, source)):
        parts = name.split(".")
        if parts[0] == "bitwren" and len(parts) > 1 and parts[1] != "__version__":
            if parts[1] not in ROOMS or room not in ROOMS or ROOMS.index(parts[1]) > ROOMS.index(room):
                wrong.append(name)
        elif any(name == t or name.startswith(f"{t}.") for t in TORCH) and not (
            room == TORCH_ROOM or file in TORCH_FILES
        ):
            wrong.append(name)
    return wrong


@pytest.mark.parametrize("file", FILES)
def test_imports_go_one_way(file):
    assert wrong_imports(file, (PACKAGE / file).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("file", FILES)
def test_every_file_is_in_a_room(file):
    assert file == "__init__.py" or room_of(file) in ROOMS


@pytest.mark.parametrize(
    ("file", "source", "wrong"),
    [
        ("errors.py", "from bitwren.recipe import Recipe", ["bitwren.recipe.Recipe"]),
        ("pictures/a.py", "from bitwren.train.layers import x", ["bitwren.train.layers.x"]),
        ("pictures/a.py", "def f():\n    import bitwren.cli", ["bitwren.cli"]),
        ("pictures/a.py", "from .. import train", ["bitwren.train"]),
        ("pictures/a.py", "from bitwren import report", ["bitwren.report"]),
        ("pictures/a.py", "from . import b\nfrom ..errors import DataError", []),
        ("train/a.py", "import torch\nfrom bitwren.train.b import c", []),
        ("report/a.py", "import torch.nn", ["torch.nn"]),
        ("report/a.py", "from torch import nn", ["torch.nn"]),
        ("pictures/a.py", "from safetensors.torch import save", ["safetensors.torch.save"]),
        ("pictures/a.py", "import torchlike", []),
        ("network/convert.py", "import torch", []),
        ("network/graph.py", "import torch", ["torch"]),
        ("train/a.py", "import bitwren.utils", ["bitwren.utils"]),
    ],
)
def test_the_rule_itself(file, source, wrong):
    assert wrong_imports(file, source) == wrong


BLOCK = """
import importlib, sys
class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchvision"):
            raise ImportError(f"{name} is blocked")
sys.meta_path.insert(0, NoTorch())
importlib.import_module(sys.argv[1])
"""


@pytest.mark.parametrize("module", WITHOUT_TORCH)
def test_imports_without_torch(module):
    environment = os.environ | {"PYTHONPATH": str(PACKAGE.parent)}
    result = subprocess.run(
        [sys.executable, "-c", BLOCK, module], env=environment, capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr


def test_the_block_blocks():
    environment = os.environ | {"PYTHONPATH": str(PACKAGE.parent)}
    result = subprocess.run(
        [sys.executable, "-c", BLOCK, "bitwren.train"], env=environment, capture_output=True, text=True, timeout=120
    )
    assert result.returncode != 0 and "is blocked" in result.stderr
