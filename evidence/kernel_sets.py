"""Time the kernel sets of the C runtime beside each other: which is the quickest on this processor.

    python evidence/kernel_sets.py --out results/kernel-sets.json [MODEL.bwn ...]

The zoo's networks, and any other file named. The sets take turns, in another order each round, one picture at a time on
one thread; what is compared are medians.
"""

import argparse
import statistics
import time
from pathlib import Path

import numpy as np

from bitwren.atomic import write_json
from bitwren.deploy.runtime import Runtime, kernel_sets
from bitwren.deploy.zoo import packaged_networks
from bitwren.report.peers.processor import processor
from bitwren.train.run import provenance

ROUNDS, SECONDS = 21, 0.05  # of each set in a round


def seconds_of(runtime: Runtime, pixels: np.ndarray) -> float:
    """Return the median seconds of a picture, uint8 (1, C, H, W), run again and again for SECONDS."""
    times, end = [], time.perf_counter() + SECONDS
    while not times or time.perf_counter() < end:
        start = time.perf_counter()
        runtime.run(pixels, threads=1)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def measure(path: Path) -> dict:
    """Return of every set the median seconds over all rounds, and the quartiles."""
    sets = [name for name in kernel_sets() if name != "portable"] or ["portable"]
    runtimes = {name: Runtime(path, name) for name in sets}
    first = runtimes[sets[0]]
    shape = (1, first.channels, first.height, first.width)
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    for runtime in runtimes.values():
        runtime.run(pixels, threads=1)
    times = {name: [] for name in sets}
    for number in range(ROUNDS):
        for name in sets[number % len(sets) :] + sets[: number % len(sets)]:
            times[name].append(seconds_of(runtimes[name], pixels))
    quartiles = {name: statistics.quantiles(one, n=4) for name, one in times.items()}
    return {name: {"median_s": q[1], "quartiles_s": [q[0], q[2]]} for name, q in quartiles.items()}


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/kernel-sets.json"))
    parser.add_argument("models", nargs="*", type=Path, metavar="MODEL.bwn")
    arguments = parser.parse_args()
    networks = {}
    for path in [*packaged_networks().values(), *arguments.models]:
        networks[path.stem] = measure(path)
        print(path.stem, {name: f"{one['median_s'] * 1e3:.3f} ms" for name, one in networks[path.stem].items()})
    own = {"default": kernel_sets()[0], "rounds": ROUNDS, "networks": networks}
    write_json(arguments.out, {**own, **provenance(), "processor": processor()})


if __name__ == "__main__":
    main()
