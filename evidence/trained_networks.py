"""Collect what runs of `bitwren train` gave, and what conversion to integers makes of them.

    python evidence/trained_networks.py runs/cifar10-20-1 ... --shared ../shared --out results/trained-networks.json

For each run: its recipe; its accuracy on the test pictures, float and integer, and for CIFAR-10 on the first 500 test
pictures without JPEG's losses; the integer network's bytes and multiplications; and the seconds that a whole-set
evaluation takes in float and in the PyTorch simulation, alternating, the medians of three. --methods compares the ways
to choose scales, on validation pictures. Runs that the file holds already and that are not named stay in it.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np
import torch

from bitwren.atomic import write_json
from bitwren.network.convert import METHODS, convert
from bitwren.network.pack import encode
from bitwren.network.simulate import Simulation
from bitwren.pictures import Pictures
from bitwren.train.loop import run_folder_metrics
from bitwren.train.predict import evaluation_pictures, logits_of
from bitwren.train.run import Run, open_run, provenance

CALIBRATION = 500  # training pictures
ROUNDS = 3


def lossless(shared: Path, run: Run) -> Pictures | None:
    """Return the first 500 CIFAR-10 test pictures as published, for a run on CIFAR-10's classes; else None."""
    path = shared / "data" / "cifar10-lossless-test500.npz"
    if run.classes[:2] != ("airplane", "automobile") or not path.exists():
        return None
    held = np.load(path)
    images = np.ascontiguousarray(held["images"].transpose(0, 3, 1, 2))
    return Pictures(images, held["labels"].astype(np.int64), run.classes)


def accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the share of rows whose largest logit is the label's."""
    return float((logits.argmax(1) == labels).mean())


def measure(run: Run, shared: Path, methods: bool) -> dict:
    """Return everything about one run."""
    cpu, network = torch.device("cpu"), run.network()
    training = evaluation_pictures(run, None, None, "training")
    test = evaluation_pictures(run, None, None, "test")
    chosen = np.sort(np.random.default_rng(0).permutation(len(training))[:CALIBRATION])
    validation = evaluation_pictures(run, None, None, "validation")
    real_validation, _ = logits_of(network, validation, cpu)
    by_method = {}
    for method in METHODS if methods else ():
        images = training.images[chosen[:100]] if method == "logits" else training.images[chosen]
        candidate = convert(network, images, run.classes, method=method)
        logits = Simulation(candidate).run(validation.images)
        by_method[method] = {
            "validation_accuracy": accuracy(logits, validation.labels),
            "rms_logit_change": float(np.sqrt(np.square(logits * candidate.logit_scale - real_validation).mean())),
        }
    integer = convert(network, training.images[chosen], run.classes)
    simulation = Simulation(integer)
    seconds: dict[str, list[float]] = {"float": [], "simulation": []}
    for _ in range(ROUNDS):
        began = time.monotonic()
        real, _ = logits_of(network, test, cpu)
        middle = time.monotonic()
        logits = simulation.run(test.images)
        seconds["float"].append(middle - began)
        seconds["simulation"].append(time.monotonic() - middle)
    size = len(encode(integer))
    told = {
        "run": run.folder.name,
        "recipe": run.recipe.name,
        "settings": run.recipe.tables(),
        "command": run.about["command"],
        "trained_by": {k: run.about[k] for k in ("commit", "versions", "processor", "threads", "device")},
        "epochs": run_folder_metrics(run.folder),
        "measured_by": provenance(),
        "seeds": 1,
        "test_pictures": len(test),
        "float": {
            "validation_accuracy": accuracy(real_validation, validation.labels),
            "test_accuracy": accuracy(real, test.labels),
        },
        "integer": {
            **({"by_choice_of_scales": by_method} if by_method else {}),
            "test_accuracy": accuracy(logits, test.labels),
            "predictions_changed": int((logits.argmax(1) != real.argmax(1)).sum()),
            "multiplications": integer.total_multiplications,
            "bwn_bytes": size,
            "weights": integer.weights,
        },
        "seconds_for_the_test_set": {name: round(statistics.median(values), 2) for name, values in seconds.items()},
    }
    exact = lossless(shared, run)
    if exact is not None:
        real, _ = logits_of(network, exact, cpu)
        told["lossless_test_pictures"] = len(exact)
        told["float"]["lossless_accuracy"] = accuracy(real, exact.labels)
        told["integer"]["lossless_accuracy"] = accuracy(simulation.run(exact.images), exact.labels)
    return told


def main() -> None:
    """Measure the runs named and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--methods", action="store_true", help="compare the ways to choose scales")
    parser.add_argument("--out", type=Path, default=Path("results/trained-networks.json"))
    arguments = parser.parse_args()
    kept = json.loads(arguments.out.read_text())["runs"] if arguments.out.exists() else []
    for folder in arguments.runs:  # written after each, so that little is lost where one takes long
        measured = measure(open_run(folder), arguments.shared, arguments.methods)
        kept = sorted([*(r for r in kept if r["run"] != measured["run"]), measured], key=lambda r: r["run"])
        write_json(arguments.out, {"runs": kept})


if __name__ == "__main__":
    main()
