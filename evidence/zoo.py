"""Put a finished training run into the package: src/bitwren/zoo/NAME.bwn, its card NAME.toml, and results/zoo.json.

    python evidence/zoo.py runs/digits digits --intended-use "..." --limits "..."

The network is what `bitwren convert RUN` makes: the epoch chosen on validation pictures, scales on training pictures.
It is then measured on the run's test pictures, once, as float network and, by the C runtime, as integers; with --also
on a second test set too. results/zoo.json holds every card.
"""

import argparse
import hashlib
import json
import shlex
import tempfile
import textwrap
from pathlib import Path

import tomli_w
import torch

from bitwren.atomic import write_atomic, write_json
from bitwren.cli import main as bitwren
from bitwren.deploy.model import Model, load
from bitwren.errors import BitwrenError, CheckpointError, DataError
from bitwren.network.pack import read_bwn
from bitwren.pictures import load_dataset
from bitwren.pictures.registry import find_dataset
from bitwren.recipe import Recipe, load_recipe, packaged_recipes
from bitwren.report.evaluation import wilson_interval
from bitwren.train.predict import evaluation_pictures, logits_of
from bitwren.train.run import RESULT, Run, open_run, provenance

ROOT = Path(__file__).resolve().parents[1]
ZOO = ROOT / "src" / "bitwren" / "zoo"


def measure(run: Run, model: Model, pictures) -> dict:
    """Return accuracy, float and integer, on pictures in memory. Raises DataError for other classes than the run's."""
    if tuple(pictures.classes) != run.classes:
        raise DataError(f"the pictures' classes are {list(pictures.classes)}, expected {list(run.classes)}")
    real, labels = logits_of(run.network(), pictures, torch.device("cpu"))
    answers = model.predict(pictures.images)
    right = int((answers == labels).sum())
    return {
        "pictures": len(labels),
        "float": float((real.argmax(1) == labels).mean()),
        "integer": right / len(labels),
        "integer_interval_95": list(wilson_interval(right, len(labels))),
        "predictions_changed": int((answers != real.argmax(1)).sum()),
    }


def finished(folder: Path) -> tuple[Run, dict]:
    """Return a run and its result. Raises CheckpointError where it has no end or no validation pictures."""
    run = open_run(folder)
    if not (folder / RESULT).is_file():
        raise CheckpointError(f"{folder / RESULT}: not there, expected a run that has come to its end")
    if not run.about["validation_pictures"]:
        raise CheckpointError(f"{folder}: data.validation is 0, expected pictures to choose the epoch on")
    return run, json.loads((folder / RESULT).read_text(encoding="utf-8"))


def given(arguments) -> list[str]:
    """Return the options that decide what is measured, as they were given; texts for people are left out."""
    options = {"--data-dir": arguments.data_dir, "--also": arguments.also}
    return [str(word) for option, value in options.items() if value is not None for word in (option, value)]


def title_of(recipe: Recipe) -> str:
    """Return a recipe's title; without one, that of the packaged recipe that trains the same network the same way."""

    def way(one: Recipe) -> dict:
        tables = one.tables()
        tables["train"].pop("seed")
        return {key: tables[key] for key in ("network", "augment", "train")}

    packaged = map(load_recipe, packaged_recipes())
    return recipe.title or next((p.title for p in packaged if way(p) == way(recipe)), recipe.name)


def make_card(arguments, run: Run, result: dict, file: Path, convert: list[str]) -> dict:
    """Return the card of a network that was just converted."""
    network, model, made = read_bwn(file), load(file), provenance()
    test = evaluation_pictures(run, None, arguments.data_dir, "test")
    if len(test) != run.about["test_pictures"]:
        raise DataError(f"{len(test)} test pictures, expected {run.about['test_pictures']} as in {run.folder}")
    entry = find_dataset(arguments.data_set or run.recipe.data.name)
    recipe = run.recipe.tables()
    seed = recipe["train"].pop("seed")
    recipe.pop("title", None)
    card = {
        "name": arguments.name,
        "title": title_of(run.recipe),
        "intended_use": textwrap.fill(arguments.intended_use, 100),
        "limits": textwrap.fill(arguments.limits, 100),
        "data": {
            "name": arguments.data or entry.name,
            "about": entry.summary,
            "citation": entry.citation,
            "terms": entry.terms,
            **{key: run.about[key] for key in ("training_pictures", "validation_pictures", "test_pictures")},
            "classes": list(run.classes),
        },
        "accuracy": {"validation_float": result["validation_accuracy"], **measure(run, model, test)},
        "network": {
            "input": [network.channels, network.height, network.width],
            "weights": network.weights,
            "multiplications": network.total_multiplications,
            "bytes": file.stat().st_size,
            "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        },
        "recipe": {"name": run.recipe.name, "seeds": [seed], "epoch_chosen": result["epoch"], **recipe},
        "made_by": {
            "train": run.about["command"],
            "train_commit": run.about["commit"] or "unknown",
            **({"processes": run.about["processes"]} if run.about["processes"] > 1 else {}),
            **{key: run.about[key] for key in ("from", "teacher") if key in run.about},
            "convert": shlex.join(["bitwren", *convert]),
            "convert_commit": made["commit"] or "unknown",
            "card": shlex.join(["python", "evidence/zoo.py", str(arguments.run), arguments.name, *given(arguments)]),
            "versions": run.about["versions"],
            "processor": run.about["processor"],
        },
    }
    if arguments.also is not None:
        other = load_dataset("folder", arguments.also, size=run.size, channels=run.channels).test
        card["accuracy"]["also"] = {"data": arguments.also_name, **measure(run, model, other)}
    return card


def main() -> None:
    """Convert, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", metavar="RUN", type=Path, help="folder of a run that has come to its end")
    parser.add_argument("name", metavar="NAME", help="of the network in the zoo")
    parser.add_argument("--intended-use", metavar="TEXT", required=True)
    parser.add_argument("--limits", metavar="TEXT", required=True)
    parser.add_argument("--data", metavar="TEXT", help="what the pictures are called (default: the set's name)")
    parser.add_argument("--data-set", metavar="NAME", help="whose citation and terms hold, for a run on a folder")
    parser.add_argument("--data-dir", metavar="DIR", type=Path, help="the run's pictures (default: where they were)")
    parser.add_argument("--also", metavar="DIR", type=Path, help="a second test set: the test pictures of a folder")
    parser.add_argument("--also-name", metavar="TEXT", help="what that set is called (default: the folder's name)")
    parser.add_argument("--zoo", metavar="DIR", type=Path, default=ZOO)
    parser.add_argument("--results", metavar="FILE", type=Path, default=ROOT / "results" / "zoo.json")
    arguments = parser.parse_args()
    arguments.also_name = arguments.also_name or (arguments.also and arguments.also.name)
    try:
        run, result = finished(arguments.run)
        where = [] if arguments.data_dir is None else ["--data-dir", str(arguments.data_dir)]
        with tempfile.TemporaryDirectory() as scratch:  # nothing comes into the zoo before its card is there
            file = Path(scratch) / f"{arguments.name}.bwn"
            if bitwren(["convert", str(arguments.run), "-o", str(file), *where]):
                parser.exit(1)
            convert = ["convert", str(arguments.run), "-o", file.name, *where]
            card, content = make_card(arguments, run, result, file, convert), file.read_bytes()
        arguments.zoo.mkdir(parents=True, exist_ok=True)
        write_atomic(arguments.zoo / file.name, content)
        write_atomic(arguments.zoo / f"{arguments.name}.toml", tomli_w.dumps(card, multiline_strings=True).encode())
    except BitwrenError as error:
        parser.exit(1, f"zoo: {error}\n")
    kept = json.loads(arguments.results.read_text())["networks"] if arguments.results.exists() else []
    networks = [*(other for other in kept if other["name"] != arguments.name), card]
    write_json(arguments.results, {"networks": sorted(networks, key=lambda other: other["name"])})
    print(f"{arguments.name}: float {card['accuracy']['float']:.2%}, integer {card['accuracy']['integer']:.2%}")


if __name__ == "__main__":
    main()
