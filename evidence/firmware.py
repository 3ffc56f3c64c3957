"""Measure firmware on emulated cores against the bars that it was built for.

    python evidence/firmware.py --shared ../shared --out results/firmware.json

The networks are those of the bars: the zoo's 20-1, and with random weights 20-4 of 32 x 32 pixels in colour and 8-0.5
of 28 x 28 in grey. 20-1 classifies the first 500 CIFAR-10 test pictures without JPEG's losses on a Cortex-M4 and on an
RV32 core without multiplier; all else runs on random pictures. Every logit of every run is compared with the
reference's. The count of instructions is compared with that of a trace of every instruction that the emulator executes,
for one picture on those two cores.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
from published_network import pictures as first_pictures

from bitwren.atomic import write_json
from bitwren.deploy.emulate.cores import CORES
from bitwren.deploy.emulate.emulation import emulate
from bitwren.deploy.emulate.tools import run_tool
from bitwren.deploy.emulate.trace import trace
from bitwren.deploy.generate_c import generate
from bitwren.deploy.zoo import packaged_networks
from bitwren.network.graph import Network
from bitwren.network.pack import read_bwn
from bitwren.network.untrained import untrained
from bitwren.recipe import load_recipe
from bitwren.report.emulation import describe_emulation
from bitwren.train.run import provenance

KIB = 1024
TRACED = ("cortex-m4", "rv32ic")
RUNS = [  # network, core, what is optimised, pictures: a number of random ones, or "lossless"
    *(("20-1", core, "speed", "lossless") for core in TRACED),
    *(("20-1", core, "speed", 10) for core in ("cortex-m0", "cortex-m3", "cortex-m7", "rv32imc", "rv64")),
    *(("20-1", core, "memory", 10) for core in ("cortex-m0", "cortex-m3", "cortex-m4", "cortex-m7", "rv32ic")),
    *(("20-1", core, "size", 10) for core in ("cortex-m0", "cortex-m3", "cortex-m4", "rv32ic")),
    ("20-4", "cortex-m7", "speed", 3),
    ("8-0.5", "cortex-m0", "memory", 100),
    ("8-0.5", "cortex-m0", "speed", 20),
]


def networks() -> dict[str, tuple[str, Network]]:
    """Return the bars' networks, by name: what the figures call each, and the network."""
    zoo = packaged_networks()["cifar10-20-1"]
    wide = load_recipe("cifar10-20-1", ["network.width=4"])
    grey = load_recipe("fashion-mnist", ["network.depth=8"])
    return {
        "20-1": (f"zoo/{zoo.name}", read_bwn(zoo)),
        "20-4": ("20-4, random weights", untrained(wide, 3, 10, (32, 32))),
        "8-0.5": ("8-0.5, random weights", untrained(grey, 1, 10, (28, 28))),
    }


def measure(network: Network, core: str, optimise: str, pictures: int | str, shared: Path) -> dict:
    """Return the figures of one run."""
    shape, labels = (network.channels, network.height, network.width), None
    if pictures == "lossless":
        pixels, labels = first_pictures(shared / "data" / "cifar10-lossless-test500.npz", 500)
    else:
        pixels = np.random.default_rng(0).integers(0, 256, (pictures, *shape), dtype=np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        emulation = emulate(
            network, generate(network, optimise=optimise), CORES[core], pixels, labels, folder=Path(folder)
        )
        told = describe_emulation(emulation)
        if pictures == "lossless":
            held = (Path(folder) / "pictures").read_bytes()
            (Path(folder) / "pictures").write_bytes(held[: len(held) // len(pixels)])
            counted = float(emulation.records.instructions[0])
            told["traced"] = {"picture": 0, "counted": round(counted), "traced": trace(emulation.image)}
    return {"optimise": optimise, "data": str(pictures), **told}


def bars(runs: dict[tuple[str, str, str], dict]) -> list[dict]:
    """Return each bar with what was reached. runs: by network, core, what is optimised."""
    found = []

    def bar(what: str, value: float | None, most: float) -> None:
        if value is not None:
            found.append({"bar": what, "reached": value, "at most": most, "met": value <= most})

    def of(key: tuple[str, str, str], *names: str):
        value = runs.get(key)
        for name in names:
            value = value and value[name]
        return value

    limits = [("20-1", "cortex-m3", 0.40), ("20-1", "cortex-m4", 0.40), ("20-1", "cortex-m0", 0.66)]
    for network, core, most in [*limits, ("20-1", "rv32ic", 0.45), ("20-4", "cortex-m7", 0.28)]:
        value = of((network, core, "speed"), "instructions", "per_mac")
        bar(f"{network} on {core}: instructions for a multiply-accumulate", value, most)
    for optimise, most in (("speed", 46 * KIB), ("memory", 36 * KIB)):
        bar(f"20-1, --optimise {optimise}: bytes of arena", of(("20-1", "cortex-m4", optimise), "ram", "arena"), most)
    for core in ("cortex-m0", "cortex-m3", "cortex-m4", "cortex-m7", "rv32ic"):
        quick, small = (of(("20-1", core, o), "instructions", "median") for o in ("speed", "memory"))
        if quick and small:
            bar(f"20-1 on {core}: instructions with --optimise memory, times those with speed", small / quick, 2.0)
    for key, run in runs.items():
        name = f"{key[0]} on {key[1]}, --optimise {key[2]}"
        if key[0] == "20-1" and key[2] in ("size", "speed"):
            bar(f"{name}: bytes of flash, the network's", run["flash"]["network"], 48 * KIB)
        bar(f"{name}: bytes of stack, bound", run["stack"]["bound"], 512)
        bar(f"{name}: bytes of stack, measured", run["stack"]["measured"], 512)
        bar(f"{name}: logits that differ, and other failures", len(run["failures"]), 0)
        bar(f"{name}: what the certificate refuses", len(run["certificate"]["refused"]), 0)
    small = runs.get(("8-0.5", "cortex-m0", "memory"))
    if small is not None:
        fits = small["machine"] == "microbit"  # the linker refuses what does not fit its 16 KiB
        found.append({"bar": "8-0.5 on cortex-m0: boots in 16 KiB of RAM", "reached": small["machine"], "met": fits})
        bar("8-0.5 on cortex-m0: bytes of flash, all told", small["flash"]["image"], 24 * KIB)
    return found


def main() -> None:
    """Measure and write, after each run anew."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--out", type=Path, default=Path("results/firmware.json"))
    arguments = parser.parse_args()
    models = networks()
    runs: dict[tuple[str, str, str], dict] = {}
    emulator = run_tool(["qemu-system-arm", "--version"]).splitlines()[0]
    for name, core, optimise, pictures in RUNS:
        model, network = models[name]
        told = measure(network, core, optimise, pictures, arguments.shared)
        runs[name, core, optimise] = {"network": name, "model": model, **told}
        print(name, core, optimise, told["instructions"], told["failures"], file=sys.stderr, flush=True)
        reached = bars(runs)
        write_json(arguments.out, {"bars": reached, "runs": list(runs.values()), "emulator": emulator, **provenance()})
    print(json.dumps([bar for bar in reached if not bar["met"]], indent=2))


if __name__ == "__main__":
    main()
