"""The zoo: trained networks that come with the package, each a .bwn file and a card, in the folder zoo/."""

import os
import tomllib
from importlib import resources
from pathlib import Path

from bitwren.errors import unknown_name

ENDING = ".bwn"


def packaged_networks() -> dict[str, Path]:
    """Return the networks that come with the package, name to file, sorted by name."""
    folder = resources.files("bitwren") / "zoo"
    files = sorted(f.name for f in folder.iterdir() if f.name.endswith(ENDING))
    return {name.removesuffix(ENDING): Path(str(folder / name)) for name in files}


def read_card(name: str) -> dict:
    """Return the card of a packaged network (docs/zoo.md says what stands in it). Raises UsageError, as card_text."""
    return tomllib.loads(card_text(name))


def card_text(name: str) -> str:
    """Return the card of a packaged network as TOML. Raises UsageError for a name that is not one."""
    networks = packaged_networks()
    if name not in networks:
        raise unknown_name("network", name, networks)
    return networks[name].with_name(f"{name}.toml").read_text(encoding="utf-8")


def find_model(model: str | os.PathLike) -> Path:
    """Return the path that is meant: the one given, where something is there, else the packaged network of that name.

    A path with a folder in it, or with the ending .bwn, stays as it is: whoever opens it says that nothing is there.
    Raises UsageError for any other name.
    """
    path = Path(model)
    if os.path.exists(path):  # not Path.exists, which raises for names that no file can have
        return path
    networks = packaged_networks()
    if str(path) in networks:
        return networks[str(path)]
    if len(path.parts) != 1 or path.suffix == ENDING:
        return path
    raise unknown_name("path or zoo network", str(path), networks)


def is_model(path: Path) -> bool:
    """Return whether a path means an integer network: any file but a .toml, or a name in .bwn with nothing there.

    Anything else means a run or a recipe.
    """
    return (os.path.isfile(path) and path.suffix != ".toml") or (path.suffix == ENDING and not os.path.exists(path))
