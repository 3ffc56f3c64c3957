"""Commands about C for microcontrollers: generate, fit."""

import json
import math
import shlex
import sys
from pathlib import Path

from bitwren.atomic import write_atomic
from bitwren.commands.printing import make_folder
from bitwren.errors import UsageError


def generate(arguments) -> int:
    """bitwren generate model.bwn -o DIR."""
    from bitwren.deploy.generate_c import generate as make_files
    from bitwren.network.pack import read_bwn

    network = read_bwn(arguments.model)
    options = ["--layout", arguments.layout, "--optimise", arguments.optimise]
    words = ["bitwren", "generate", arguments.model.name, *options]
    files = make_files(network, arguments.layout, arguments.optimise, shlex.join(words))
    for name, content in files.items():
        path = arguments.out / name
        make_folder(path.parent)
        write_atomic(path, content)
        print(f"{len(content):>9,} bytes  {path}")
    return 0


def fit(arguments) -> int:
    """bitwren fit MODEL_OR_RECIPE --flash 256K --ram 64K."""
    from bitwren.deploy.fit import OBJECTIVES, Budget, best_needs, largest
    from bitwren.report.fit import describe_largest, describe_needs, format_fit

    if not (math.isfinite(arguments.mhz) and arguments.mhz > 0):
        raise UsageError(f"--mhz is {arguments.mhz:g}, expected a positive number")
    budget = Budget(arguments.core, arguments.flash, arguments.ram)
    objectives = OBJECTIVES if arguments.optimise is None else (arguments.optimise,)
    name, network, family = _network_of(arguments.target, arguments.settings)
    needs = best_needs(network, budget, objectives)
    told = {"network": name, **describe_needs(needs, budget, arguments.mhz)}
    if family is not None and arguments.search:

        def progress(trial: str) -> None:
            if sys.stderr.isatty():
                print(f"\rtrying {trial:<20}", end="", file=sys.stderr, flush=True)

        told["largest"] = describe_largest(largest(*family, budget, objectives, progress), budget)
        if sys.stderr.isatty():
            print("\r" + " " * 30, end="\r", file=sys.stderr, flush=True)
    print(json.dumps(told) if arguments.json else format_fit(told))
    return 0 if told["fits"] else 1


def _network_of(target: str, settings: list[str]):
    """Return what to call a model or a recipe's network, the network, and (recipe, pictures) where they are known."""
    from bitwren.deploy.zoo import is_model

    path = Path(target)
    if is_model(path):
        from bitwren.network.pack import read_bwn

        if settings:
            raise UsageError("--set belongs to a recipe; a .bwn file stays as it is")
        network = read_bwn(path)
        return _described(path.name, network), network, _family_of(network)
    from bitwren.commands.training import recipe_and_pictures, require_torch

    require_torch(None)
    from bitwren.network.untrained import untrained

    recipe, pictures = recipe_and_pictures(target, settings)
    network = untrained(recipe, *pictures)
    return _described(f"{recipe.name}, random weights", network), network, (recipe, pictures)


def _described(name: str, network) -> str:
    pixels = f"{network.channels} x {network.height} x {network.width}"
    return f"{name}: {network.weights:,} weights, {pixels} pixels, {len(network.classes)} classes"


def _family_of(network):
    """Return the recipe of a network that bitwren trained and its pictures; None for others, or without PyTorch."""
    from bitwren.recipe import from_tables

    try:
        import bitwren.train  # noqa: F401  makes the networks that are tried

        settings = network.about["settings"]
        recipe = from_tables(network.about["recipe"], settings, "model")
    except (ImportError, LookupError, TypeError, AttributeError, UsageError):
        return None
    return recipe, (network.channels, len(network.classes), (network.height, network.width))
