"""Calibrate the estimates of `bitwren fit` on emulated cores, and measure how far they are off.

    python evidence/fit.py --out results/fit.json [--jobs 2]

Networks of many shapes with random weights are generated, cross compiled and run in QEMU as `bitwren emulate` does, one
random picture each. Factors are those with the least squares of relative errors, none negative. An error is of a
network that the factors were not fitted to: each network, with all objectives, is left out in turn. How long a library
multiplies or divides, on a core that cannot, hangs on the numbers, so networks that do are told apart.
"""

import argparse
import json
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from scipy.optimize import nnls

from bitwren.atomic import write_json
from bitwren.deploy.calibration import CALIBRATION
from bitwren.deploy.emulate.boot import boot
from bitwren.deploy.emulate.build import build
from bitwren.deploy.emulate.cores import CORES
from bitwren.deploy.fit import OBJECTIVES, counts
from bitwren.deploy.generate_c.emit import c_files, write_steps
from bitwren.deploy.generate_c.plan import plan
from bitwren.network.untrained import untrained
from bitwren.recipe import load_recipe
from bitwren.train.run import provenance

CLASSES = 10
PRODUCTS = (3, 5, 6)  # of a Calibration's instructions: Multiply steps, multiplications, divisions
NETWORKS = [  # depth, width, (height, width), channels, other settings of the recipe cifar10-20-1
    (8, 0.5, (8, 8), 1, {}),
    (8, 0.25, (28, 28), 1, {}),
    (8, 0.5, (28, 28), 1, {}),
    (14, 0.5, (32, 32), 3, {}),
    (8, 1, (32, 32), 3, {}),
    (20, 0.75, (32, 32), 3, {}),
    (20, 1, (32, 32), 3, {}),
    (8, 0.5, (96, 96), 3, {}),
    (14, 1, (48, 48), 3, {"skip": "false"}),
    (14, 2, (32, 32), 3, {}),
    (8, 0.3, (37, 41), 3, {}),
    (26, 0.5, (24, 24), 3, {}),
    (20, 4, (32, 32), 3, {}),
    (14, 0.5, (32, 32), 3, {"activation": "bn"}),
    (20, 1, (32, 32), 3, {"activation": "bn", "layer_scale": "he", "downsample": "avg3"}),
    (14, 0.5, (32, 32), 3, {"downsample": "avg3", "layer_scale": "he"}),
    (8, 0.5, (28, 28), 1, {"downsample": "avg3", "padding": "same"}),
    (8, 0.25, (28, 28), 1, {"weight_bits": "32"}),
    (8, 0.5, (16, 16), 3, {"weight_bits": "32"}),
]


def measure(number: int) -> list[dict]:
    """Return what each core took for a network, with each objective."""
    depth, width, size, channels, more = NETWORKS[number]
    changes = {"depth": depth, "width": width, **more}
    recipe = load_recipe("cifar10-20-1", [f"network.{key}={value}" for key, value in changes.items()])
    network = untrained(recipe, channels, CLASSES, size)
    pixels = np.random.default_rng(number).integers(0, 256, (1, channels * size[0] * size[1]), dtype=np.uint8)
    found = []
    for optimise in OBJECTIVES:
        made = plan(network, optimise)
        work, text = counts(network, made, write_steps(network, made).code)
        sources = {name: content.encode() for name, content in c_files(network, made, "evidence", "fit").items()}
        about = {"network": {**changes, "size": size, "channels": channels}, "optimise": optimise}
        about |= {"constants": write_steps(network, made).constant_bytes, "work": work, "text": text}
        for core in CALIBRATION:
            with tempfile.TemporaryDirectory() as folder:
                image = build(CORES[core], sources, Path(folder))
                records = boot(image, pixels, CLASSES)
            measured = {
                "instructions": round(float(records.instructions[0])),
                "code": image.span("at_network_start", "at_network_code_end"),
                "constants": image.span("at_network_constants", "at_network_end"),
                "stack": int(records.stack[0]),
            }
            found.append({**about, "core": core, "compiler": image.compiler, "measured": measured})
    return found


def shifts_only(row: dict) -> bool:
    """Return whether a program neither multiplies nor divides."""
    return not any(row["work"][k] for k in PRODUCTS)


def least_squares(x: np.ndarray, y: np.ndarray, rest: np.ndarray) -> np.ndarray:
    """Return the factors, none negative, with the least squares of (x @ factors - rest) / y."""
    return nnls(x / y[:, None], rest / y)[0]


def fitted(rows: list[dict], of: str, what: str) -> np.ndarray:
    """Return the factors, of `of` ("work" or "text"), that give what was measured.

    Those of products and quotients are fitted last, to what the others leave of the programs that have any.
    """
    x, y = np.array([row[of] for row in rows], float), np.array([row["measured"][what] for row in rows], float)
    if of == "text":
        return least_squares(x, y, y)
    plain, others = np.array([shifts_only(row) for row in rows]), [k for k in range(x.shape[1]) if k not in PRODUCTS]
    factors = np.zeros(x.shape[1])
    factors[others] = least_squares(x[plain][:, others], y[plain], y[plain])
    left = (y - x @ factors)[~plain]
    factors[list(PRODUCTS)] = least_squares(x[~plain][:, PRODUCTS], y[~plain], left)
    return factors


def errors(rows: list[dict], of: str, what: str) -> dict:
    """Return the relative errors, each of a network that was left out: of those that only shift, and of the others."""
    found = []
    for row in rows:
        factors = fitted([other for other in rows if other["network"] != row["network"]], of, what)
        found.append(float(factors @ np.array(row[of], float) / row["measured"][what] - 1))
    groups = {
        name: [error for error, row in zip(found, rows, strict=True) if shifts_only(row) == shifts]
        for name, shifts in (("shifts only", True), ("others", False))
    }
    return {
        name: {
            "mean": round(float(np.abs(some).mean()), 3),
            "least": round(min(some), 3),
            "greatest": round(max(some), 3),
        }
        for name, some in groups.items()
    }


def main() -> None:
    """Measure, fit, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/fit.json"))
    parser.add_argument("--jobs", type=int, default=1, help="networks measured at a time")
    arguments = parser.parse_args()
    rows = []
    with ProcessPoolExecutor(arguments.jobs) as pool:  # counts of instructions do not hang on what else runs
        for measured in pool.map(measure, range(len(NETWORKS))):
            rows += measured
            print(*map(json.dumps, measured), sep="\n", file=sys.stderr, flush=True)
    cores = {}
    for core in CALIBRATION:
        own = [row for row in rows if row["core"] == core]
        cores[core] = {
            "instructions": [round(float(f), 3) for f in fitted(own, "work", "instructions")],
            "code": [round(float(f), 3) for f in fitted(own, "text", "code")],
            "errors": {"instructions": errors(own, "work", "instructions"), "code": errors(own, "text", "code")},
        }
    apart = [row["measured"]["constants"] - row["constants"] for row in rows]
    told = {
        "estimates": cores,
        "constants": {"least": min(apart), "greatest": max(apart)},
        "runs": rows,
        **provenance(),
    }
    write_json(arguments.out, told)
    print(json.dumps(cores, indent=2))


if __name__ == "__main__":
    main()
