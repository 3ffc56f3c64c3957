"""Measure the C runtime against ONNX Runtime, OpenVINO and ncnn on the six networks of its bars.

    python evidence/bench_runtime.py --shared ../shared --work build/bench --out results/bench-runtime.json
    python evidence/bench_runtime.py ... --network srelu-20-1      one network; the others in the file stay
    python evidence/bench_runtime.py ... --avx2                    every engine as on a processor with AVX2 alone
    python evidence/bench_runtime.py ... --undisturbed             beside other guests of the machine
    python evidence/bench_runtime.py ... --alone                   threads, batches, opening and memory once more

Networks and the peers' files are made once and kept in --work (--prepare makes them and measures nothing). The authors'
network is the released one; the others have random weights, seed 0: they say nothing of accuracy and all of speed.
Needs a C compiler for the peak memory of a program that only loads and runs. Measure with nothing else at work on the
machine.
"""

import argparse
import functools
import json
import math
import os
import platform
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from bitwren.atomic import write_json
from bitwren.cli import main as bitwren
from bitwren.deploy.runtime import FOLDER, Runtime
from bitwren.report.benchmark import Plan, benchmark, made_by, spread
from bitwren.report.benchmark_plot import plot_latency
from bitwren.report.benchmark_table import format_benchmark, format_steps
from bitwren.report.engines import PEERS
from bitwren.report.peers.processor import HELD_TO, processor
from bitwren.report.undisturbed import Cores
from bitwren.report.worker import OURS, time_runs

TOGETHER = 4  # pictures one by one in a turn
CLASSES = tuple(["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"])
BARS = {  # times faster than the best float peer, than the best int8 peer; at every number of threads
    "authors-20-10": (5.0, 3.0),
    "srelu-20-10": (5.0, 3.0),
    "srelu-20-4": (4.0, 2.5),
    "srelu-20-1": (2.0, 1.5),
    "srelu-14-0.5": (2.0, 1.5),
    "resnet18-2.5-224": (3.0, 2.0),
}
WIDE_RESNETS = {"srelu-20-10": (20, 10), "srelu-20-4": (20, 4), "srelu-20-1": (20, 1), "srelu-14-0.5": (14, 0.5)}
HIDING_SOURCE = Path(__file__).resolve().with_name("avx2_only.c")
CLOCK_SOURCE = Path(__file__).resolve().with_name("clock.c")
LARGE = 200_000_000  # multiply-accumulates of a layer of the 20-10; those that halve the picture have fewer
PEAK_SOURCE = Path(__file__).resolve().parents[1] / "runtime" / "tests" / "peak.c"


def pictures(path: Path, count: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the first pictures of a file as uint8 (N, 3, size, size), each pixel repeated, and their labels."""
    held = np.load(path)
    images = held["images"][:count].transpose(0, 3, 1, 2).repeat(size // 32, 2).repeat(size // 32, 3)
    return np.ascontiguousarray(images), held["labels"][:count].astype(np.int64)


def make_model(name: str, out: Path, shared: Path) -> None:
    """Write the network of that name."""
    if name == "authors-20-10":
        (source,) = (shared / "published").glob("*20-10*.mat")
        if bitwren(["import", str(source), "-o", str(out)]):
            raise SystemExit(f"{source} could not be imported")
        return
    import torch

    from bitwren.network.convert import convert
    from bitwren.network.pack import write_bwn
    from bitwren.train import WideResNet
    from bitwren.train.networks import ResNet18

    torch.manual_seed(0)
    options = {"activation": "srelu", "weight_bits": 1, "layer_scale": "pow2", "downsample": "binomial"}
    train = shared / "data" / "cifar10-lossless-train4000.npz"
    if name in WIDE_RESNETS:
        depth, width = WIDE_RESNETS[name]
        float_network = WideResNet(depth=depth, width=width, num_classes=10, temperature=10.0, **options)
        images, classes = pictures(train, 32, 32)[0], CLASSES
    else:
        float_network = ResNet18(width=2.5, num_classes=1000, temperature=10.0, **options)
        images, classes = pictures(train, 4, 224)[0], tuple(f"class {k}" for k in range(1000))
    write_bwn(out, convert(float_network.eval(), images, classes, bits=8, about={}))


def hold_to_avx2(folder: Path) -> None:
    """Hide what this processor can do beyond AVX2 from the engines' processes, which inherit this one's environment."""
    if not {"avx512bw", "avx_vnni"} & set(processor()["flags"]):
        return
    library = folder.resolve() / "avx2_only.so"
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cc", "-shared", "-fPIC", "-O2", HIDING_SOURCE, "-o", library], check=True)
    os.environ |= {"LD_PRELOAD": str(library), HELD_TO: "avx2 fma", "BITWREN_KERNELS": "avx2"}
    seen = subprocess.run(["true"], stderr=subprocess.PIPE, text=True)
    if seen.returncode:
        raise SystemExit(seen.stderr.strip())


def told_by_c(source: Path, options: list[str], words: list, plan: Plan) -> list[dict] | None:
    """Return what five runs of a C program tell, as JSON; None without cc."""
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / source.stem
        plain = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}  # ends compilers
        try:
            subprocess.run(["cc", "-std=c11", "-O2", str(source), *options, "-o", str(program)], check=True, env=plain)
            run = functools.partial(subprocess.run, check=True, capture_output=True, text=True, env=plain)
            return [json.loads(plan.turn(functools.partial(run, [program, *words])).stdout) for _ in range(5)]
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"nothing told by {source.name}: {error}")
            return None


def peak_in_c(model: Path, plan: Plan) -> dict | None:
    """Return peak bytes and seconds to open of a C program that only loads and runs the network; None without cc.

    The largest and the median of five runs.
    """
    include = PEAK_SOURCE.parents[1] / "include"
    told = told_by_c(PEAK_SOURCE, [f"-I{include}", f"-L{FOLDER}", "-lbitwren", f"-Wl,-rpath,{FOLDER}"], [model], plan)
    if told is None:
        return None
    peak, opened = (sorted(one[name] for one in told) for name in ("peak_bytes", "open_s"))
    commit = made_by(plan)["commit"]
    return told[0] | {"peak_bytes": peak[-1], "open_s": opened[len(opened) // 2], "commit": commit}


def clock_hertz(plan: Plan) -> float | None:
    """Return the cycles a second of these cores, the most of five runs of a C program; None without cc."""
    told = told_by_c(CLOCK_SOURCE, [], [], plan)
    return told and max(one["hertz"] for one in told)


def large_layers(steps: list[dict], hertz: float) -> float:
    """Return the multiply-accumulates a cycle of the slowest large 3x3 layer, tables and what follows included."""
    return min(step["macs"] / step["seconds"] / hertz for step in steps if step["macs"] > LARGE)


def bars(name: str, figures: dict) -> list[dict]:
    """Return each bar with the ratio reached: the best peer's median over ours.

    "machine": everything as fast as this processor can. "AVX2": ours and OpenVINO keep to AVX2; ONNX Runtime and ncnn
    have no setting for it and run as they are: this ratio is below that of a machine without AVX-512, never above.
    With --avx2 every engine keeps to AVX2, and "machine" is that.
    """
    float_bar, int8_bar = BARS[name]
    rows = []
    wide = any(row["avx2"] for row in figures["engines"])
    for limit in ("machine", "AVX2") if wide else ("machine",):
        kept = {row["engine"] for row in figures["engines"] if row["avx2"]} if limit == "AVX2" else set()
        chosen = [row for row in figures["engines"] if row["avx2"] == (row["engine"] in kept)]
        for what, kinds, least in (
            ("float", ("fp32",), float_bar),
            ("float or bfloat16", ("fp32", "bf16"), None),
            ("int8", ("int8", "int8-s8s8"), int8_bar),
        ):
            times = [
                (one["threads"], one["median_s"], row)
                for row in chosen
                for one in row["latency"]
                if row["engine"] == OURS or row["kind"] in kinds
            ]
            for threads in sorted({count for count, *_ in times}):
                ours = min((t for n, t, row in times if n == threads and row["engine"] == OURS), default=math.nan)
                peers = [(t, row["label"]) for n, t, row in times if n == threads and row["engine"] != OURS]
                if not peers or math.isnan(ours):
                    continue
                best, label = min(peers)
                row = {"limit": limit, "against": what, "threads": threads, "best": label, "ratio": best / ours}
                rows.append(row if least is None else row | {"bar": least, "met": best / ours >= least})
    return rows


def scaling_run(model: Path, pixels: np.ndarray, plan: Plan) -> dict:
    """Return how speed grows with threads and batches, and what that was measured by."""
    cores = Cores() if plan.cores is not None else None  # counts the turns of this run alone
    times = scaling(model, pixels, replace(plan, cores=cores), 3 * plan.rounds)
    return {"made_by": made_by(plan), "undisturbed": cores and cores.figures(), "scaling": times}


def least_disturbed(runs: list[dict]) -> dict:
    """Return the run of which the smallest share of turns was never free of other guests; of equals the latest."""

    def share(run: dict) -> float:
        counts = run["undisturbed"]
        return counts["given_up"] / (counts["kept"] + counts["given_up"]) if counts else 1.0

    return min(reversed(runs), key=share)


def scaling(model: Path, pixels: np.ndarray, plan: Plan, rounds: int) -> list[dict]:
    """Return the runtime's seconds for a picture, in turns: on one thread and on two, one at a time and all at once.

    What is compared has the same pictures, and as many in a turn, for a long turn is seldom undisturbed: a few where
    threads are compared, all of them where batches are.
    """
    lots = np.split(pixels, range(TOGETHER, len(pixels), TOGETHER))
    with Runtime(model) as runtime:
        ways = {(1, 1, TOGETHER): lots, (2, 1, TOGETHER): lots}
        ways |= {(1, batch, len(pixels)): [pixels] for batch in (1, len(pixels))}
        times = {way: [] for way in ways}
        for _ in range(rounds):
            for (threads, batch, a_turn), turns in ways.items():
                for lot in turns:
                    parts = np.split(lot, range(batch, len(lot), batch))
                    run = functools.partial(lambda parts, n: [runtime.run(p, n) for p in parts], parts, threads)
                    taken = plan.turn(functools.partial(time_runs, run, plan.seconds / len(turns), 1000))
                    times[threads, batch, a_turn] += [t / len(lot) for t in taken]
    names = "threads", "batch", "pictures_a_turn"
    return [dict(zip(names, way, strict=True)) | spread(times[way]) for way in ways]


def own_bars(name: str, figures: dict) -> list[dict]:
    """Return the bars that concern the runtime alone."""
    times = least_disturbed(figures["scaling_runs"])["scaling"]
    seconds = {(one["threads"], one["batch"], one["pictures_a_turn"]): one["median_s"] for one in times}
    rows = []

    def bar(what: str, value: float | None, *, least: float | None = None, most: float | None = None) -> None:
        if value is not None:
            met = value >= least if least is not None else value <= most
            rows.append({"what": what, "value": value, "bar": least if least is not None else most, "met": met})

    if name == "authors-20-10":
        steps = figures["steps"]
        total = sum(step["seconds"] for step in steps)
        rest = sum(step["seconds"] - step["lookups_s"] for step in steps)
        hertz = figures["clock_hertz"]
        bar("multiply-accumulates a cycle, large 3x3 layers", hertz and large_layers(steps, hertz), least=0.6 * 160)
        bar("threads 1 -> 2, times faster", seconds[1, 1, TOGETHER] / seconds[2, 1, TOGETHER], least=1.9)
        bar("share of time outside lookups", rest / total, most=0.12)
        told = figures["c_program"] or {}
        bar("peak memory of a C program, bytes", told.get("peak_bytes"), most=10e6)
        bar("opening, seconds", told.get("open_s"), most=0.030)
    bar("batch 16 against batch 1, pictures a second", seconds[1, 1, 16] / seconds[1, 16, 16], least=1.0)
    return rows


def main() -> None:
    """Measure and write, a network at a time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--work", type=Path, default=Path("build/bench"))
    parser.add_argument("--out", type=Path, default=Path("results/bench-runtime.json"))
    parser.add_argument("--network", choices=tuple(BARS), action="append", help="default: all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.2)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--avx2", action="store_true", help="hide what the processor can do beyond AVX2 (Intel, Linux)")
    parser.add_argument("--undisturbed", action="store_true", help="repeat turns during which others used the cores")
    parser.add_argument("--alone", action="store_true", help="the runtime alone; what the file holds else stays")
    parser.add_argument("--prepare", action="store_true", help="make networks and the peers' files only")
    arguments = parser.parse_args()
    held = json.loads(arguments.out.read_text()) if arguments.out.is_file() else {"networks": {}}
    data = arguments.shared / "data"
    if arguments.avx2:
        hold_to_avx2(arguments.work)
    for name in arguments.network or BARS:
        folder = arguments.work / name
        folder.mkdir(parents=True, exist_ok=True)
        model = folder / f"{name}.bwn"
        if not model.is_file():
            make_model(name, model, arguments.shared)
        size = 224 if name.endswith("224") else 32
        calibration, _ = pictures(data / "cifar10-lossless-train4000.npz", 300 if size == 32 else 20, size)
        test = pictures(data / "cifar10-lossless-test500.npz", 500, size) if name == "authors-20-10" else None
        batches = tuple(arguments.batches) if size == 32 else (1,)  # more of these would take minutes
        cores = Cores() if arguments.undisturbed else None
        plan = Plan(PEERS, (1, 2), batches, arguments.rounds, arguments.seconds, folder, cores)
        if arguments.prepare:
            plan, test = Plan(PEERS, (1,), (1,), 1, 0.01, folder), None
        print(name, flush=True)
        if arguments.alone:
            if name not in held["networks"]:
                raise SystemExit(f"{arguments.out}: holds no {name} to add to, expected one measured without --alone")
            figures = held["networks"][name]
        else:
            figures = benchmark(model, plan, calibration, test, print)
            print(format_benchmark(figures))
            print(format_steps(figures["steps"]))
        figures |= {"c_program": peak_in_c(model, plan), "clock_hertz": clock_hertz(plan)}
        if arguments.prepare:
            continue
        figures.setdefault("scaling_runs", []).append(scaling_run(model, calibration[:16], plan))
        figures["bars"] = bars(name, figures) + own_bars(name, figures)
        for row in figures["bars"]:
            print(row)
        held["networks"][name] = figures
        held["system"] = platform.platform()
        write_json(arguments.out, held)
        plot_latency(figures, arguments.out.with_name(f"{arguments.out.stem}-{name}.svg"))


if __name__ == "__main__":
    main()
