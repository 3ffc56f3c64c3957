"""A network's speed and memory on this machine, beside other engines that run the same network in the same run.

Every engine has a process of its own for each number of threads and each batch; they take turns, a short time each, in
every round, so that whatever slows the machine for a while slows them all, or each turn is repeated until nothing does
(undisturbed.py). Medians and quartiles over all rounds.
"""

import dataclasses
import functools
import json
import os
import platform
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np

from bitwren.atomic import write_json
from bitwren.deploy.runtime import Runtime
from bitwren.errors import UsageError
from bitwren.network.graph import Network
from bitwren.network.pack import read_bwn
from bitwren.report.engines import Engine, EngineError, Worker, engines_for, missing_packages, versions
from bitwren.report.peers.processor import processor
from bitwren.report.undisturbed import Cores, Result
from bitwren.report.worker import OURS

MOST_RUNS = 50  # of an engine in its turn
PROFILED_PICTURES, PROFILED_A_TURN, PROFILES = 20, 4, 9
CALIBRATION_PICTURES, TEST_PICTURES = 300, 500


@dataclasses.dataclass(frozen=True)
class Plan:
    """What to measure. rounds: turns of each engine; seconds: of each turn. batches: for throughput, 1 comes anyway.

    folder: where the peers' files are kept, made where they are missing; None: made anew, and removed at the end.
    cores: turns that others disturb are repeated, as it says; None: they are not.
    """

    peers: tuple[str, ...] = ()
    threads: tuple[int, ...] = (1, 2)
    batches: tuple[int, ...] = (1, 2, 4, 8, 16)
    rounds: int = 5
    seconds: float = 0.3
    folder: Path | None = None
    cores: Cores | None = None

    def turn(self, measure: Callable[[], Result]) -> Result:
        """Return what a measurement gives."""
        return measure() if self.cores is None else self.cores.measured(measure)


def spread(seconds: Sequence[float]) -> dict:
    """Return median and quartiles of measured times, seconds, and how many there are."""
    first, median, third = np.percentile(seconds, (25, 50, 75)).tolist()
    return {"median_s": median, "quartiles_s": [first, third], "runs": len(seconds)}


def benchmark(
    model: Path,
    plan: Plan,
    calibration: np.ndarray | None = None,
    test: tuple[np.ndarray, np.ndarray] | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> dict:
    """Return the figures, as JSON, of the network in a .bwn file and of the peers.

    calibration: uint8 (N, C, H, W) for int8 peers; None: random ones, which is enough for speed. test: pictures and
    labels (N,) to measure accuracy on. tell: gets a line about what goes on.
    Raises ModelError for a file that holds no network, RuntimeMissing, EngineError where no engine runs at all.
    """
    network = read_bwn(model)
    runtime = Runtime(model)
    profiled = _pictures(network, PROFILED_PICTURES) if test is None else test[0][:PROFILED_PICTURES]
    figures = {
        "model": _about(model, network),
        "made_by": made_by(plan),
        "engines": [],
        "skipped": [],
        "steps": profile(runtime, profiled, plan),
    }
    with tempfile.TemporaryDirectory() as scratch:
        bench = _Bench(model, network, plan, Path(scratch), figures, tell)
        bench.save_pictures(calibration, test)
        engines = bench.prepared_engines(calibration is not None)
        for threads in plan.threads:
            bench.measure_latency(engines, threads, test)
        for batch in plan.batches:
            for threads in plan.threads:
                bench.measure_throughput(engines, threads, batch)
        figures["engines"] = [row for row in bench.rows.values() if row["latency"]]
    if plan.cores is not None:
        figures["undisturbed"] = plan.cores.figures()
    if not figures["engines"]:
        raise EngineError(f"no engine could be measured; the last: {figures['skipped'][-1]['reason']}")
    return figures


class _Bench:
    def __init__(self, model: Path, network: Network, plan: Plan, scratch: Path, figures: dict, tell):
        self.model, self.network, self.plan, self.scratch = model, network, plan, scratch
        self.figures, self.tell = figures, tell
        self.folder = plan.folder or scratch
        self.rows: dict[Engine, dict] = {}

    def save_pictures(self, calibration: np.ndarray | None, test) -> None:
        random = _pictures(self.network, 16)
        np.save(self.scratch / "pixels.npy", random if test is None else test[0])
        np.save(self.scratch / "calibration.npy", random if calibration is None else calibration)

    def skip(self, label: str, reason: str) -> None:
        self.figures["skipped"].append({"engine": label, "reason": reason})
        self.tell(f"skipped: {reason}")

    def prepared_engines(self, real_pictures: bool) -> list[Engine]:
        """Return the engines that can run, their files made."""
        peers = []
        for name in self.plan.peers:
            if missing := missing_packages(name):
                self.skip(name, f"{name}: not installed: pip install {' '.join(missing)}")
            else:
                peers.append(name)
        self.figures["made_by"]["versions"] |= versions(peers)
        engines = []
        for engine in engines_for(peers):
            row = {"engine": engine.name, "kind": engine.kind, "avx2": engine.avx2, "label": engine.label}
            try:
                files, settings = self.prepare(engine, real_pictures)
            except EngineError as error:
                self.skip(engine.label, str(error))
                continue
            row |= {"model_bytes": sum(file.stat().st_size for file in files), "prepared": settings}
            self.rows[engine] = row | {"latency": [], "throughput": []}
            engines.append(engine)
        return engines

    def prepare(self, engine: Engine, real_pictures: bool) -> tuple[list[Path], dict]:
        if engine.name == OURS:
            return [self.model], {}
        from importlib import import_module

        files = import_module(f"bitwren.report.peers.{engine.name}").files(engine.kind, self.folder)
        settings = self.folder / f"{engine.name}-{engine.kind}.json"
        key = {"network": self.figures["model"]["crc32"], "calibrated": real_pictures}
        if settings.is_file() and all(file.is_file() for file in files):
            kept = json.loads(settings.read_text())
            if {name: kept.pop(name, None) for name in key} == key:
                return files, kept
        self.tell(f"preparing {engine.name} {engine.kind}")
        pictures = self.scratch / "calibration.npy"
        job = {"folder": str(self.folder), "model": str(self.model), "calibration": str(pictures)}
        with Worker(engine, job) as worker:
            told = worker.opened["settings"]
        if not real_pictures and "int8" in engine.kind:
            told["calibration pictures"] = "random: for speed, not for accuracy"
        write_json(settings, key | told)
        return files, told

    def start(self, engines: list[Engine], threads: int, batch: int) -> list[Worker]:
        workers = []
        for engine in engines:
            job = {"threads": threads, "batch": batch, "folder": str(self.folder), "model": str(self.model)}
            try:
                workers.append(Worker(engine, job | {"pixels": str(self.scratch / "pixels.npy")}))
            except EngineError as error:
                self.skip(engine.label, f"{error} ({threads} threads, batch {batch})")
        return workers

    def interleaved(self, workers: list[Worker], rounds: int) -> dict[Engine, list[float]]:
        """Return the times of each engine's runs, all rounds together; one that fails is left out."""
        times: dict[Engine, list[float]] = {worker.engine: [] for worker in workers}
        for _ in range(rounds):
            for worker in workers:
                if worker.engine in times:
                    try:
                        turn = functools.partial(worker.time, self.plan.seconds, MOST_RUNS)
                        times[worker.engine] += self.plan.turn(turn)
                    except EngineError as error:
                        del times[worker.engine]
                        self.skip(worker.engine.label, str(error))
        return times

    def measure_latency(self, engines: list[Engine], threads: int, test) -> None:
        self.tell(f"latency, {threads} threads")
        workers = self.start(engines, threads, 1)
        try:
            times = self.interleaved(workers, self.plan.rounds)
            for worker in workers:
                if worker.engine not in times:
                    continue
                row = self.rows[worker.engine]
                row["latency"].append(
                    {"threads": threads, **spread(times[worker.engine])}
                    | {"open_s": worker.opened["open_s"], "peak_bytes": worker.ask({"do": "peak"})["bytes"]}
                    | {"settings": worker.opened["settings"]}
                )
                if test is not None and threads == self.plan.threads[-1] and not worker.engine.avx2:
                    logits = worker.logits(self.scratch)
                    row["accuracy"] = {"top1": float((logits.argmax(1) == test[1]).mean()), "pictures": len(test[1])}
        finally:
            for worker in workers:
                worker.close()

    def measure_throughput(self, engines: list[Engine], threads: int, batch: int) -> None:
        """Pictures a second; those of batch 1 follow from the latency."""
        if batch == 1:
            times = {e: r["median_s"] for e in engines for r in self.rows[e]["latency"] if r["threads"] == threads}
        else:
            self.tell(f"throughput, {threads} threads, batch {batch}")
            workers = self.start([e for e in engines if self.rows[e]["latency"]], threads, batch)
            try:
                measured = self.interleaved(workers, min(self.plan.rounds, 2))
                times = {engine: float(np.median(seconds)) for engine, seconds in measured.items()}
            finally:
                for worker in workers:
                    worker.close()
        for engine, seconds in times.items():
            row = {"threads": threads, "batch": batch, "pictures_per_s": batch / seconds}
            self.rows[engine]["throughput"].append(row)


def profile(runtime: Runtime, pixels: np.ndarray, plan: Plan) -> list[dict]:
    """Return the steps of the runtime's plan, one thread, with their times for a picture in seconds.

    Medians over the few pictures of a turn, and of many turns, part by part; a step's time is the sum of its parts.
    """
    lots = [pixels[first : first + PROFILED_A_TURN] for first in range(0, len(pixels), PROFILED_A_TURN)]
    turns = [plan.turn(functools.partial(runtime.steps, lot, threads=1)) for _ in range(PROFILES) for lot in lots]
    rows = []
    for same in zip(*turns, strict=True):
        step, parts = same[0], np.median([step.parts for step in same], axis=0)
        row = {"layers": step.layers, "kernel": step.kernel, "choice": step.choice, "macs": step.macs}
        times = dict(zip(("tables_s", "lookups_s", "spills_s", "finishing_s"), parts.tolist(), strict=True))
        rows.append(row | {"seconds": float(parts.sum()), **times})
    return rows


def made_by(plan: Plan) -> dict:
    """Return what a figure depends on beside the network: program, commit, versions, processor, plan."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "commit": _commit(),
        "processor": processor() | {"cores": cores},
        "system": platform.platform(),
        "versions": {"bitwren": version("bitwren"), "python": platform.python_version(), "numpy": np.__version__},
        "rounds": plan.rounds,
        "seconds_a_turn": plan.seconds,
    }


def _commit() -> str | None:
    """Return the commit that the package's own folder is at, with a + where it was changed; None outside a checkout."""
    folder = Path(__file__).resolve().parents[3]
    if not (folder / ".git").exists():
        return None
    try:
        told = [
            subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()
            for words in (("rev-parse", "HEAD"), ("status", "--porcelain", "--untracked-files=no"))
        ]
    except (OSError, subprocess.CalledProcessError):
        return None
    return told[0] + ("+" if told[1] else "")


def _about(model: Path, network: Network) -> dict:
    content = model.read_bytes()
    return {
        "file": model.name,
        "bytes": len(content),
        "crc32": zlib.crc32(content),
        "weights": network.weights,
        "multiplications": network.total_multiplications,
        "input": [network.channels, network.height, network.width],
        "classes": len(network.classes),
    }


def _pictures(network: Network, count: int) -> np.ndarray:
    """Return random pictures, uint8 (count, C, H, W), always the same."""
    shape = (count, network.channels, network.height, network.width)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def parse_counts(what: str, text: str) -> tuple[int, ...]:
    """Return whole numbers of 1 or more, separated by commas, each once. Raises UsageError."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and 1 <= int(part) <= 1024 for part in parts):
        raise UsageError(f"{what} is {text!r}, expected numbers of 1 to 1024 separated by commas")
    return tuple(dict.fromkeys(map(int, parts)))
