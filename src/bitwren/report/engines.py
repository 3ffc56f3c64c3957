"""The engines of a benchmark: which there are, which can run here, and the process that each one runs in."""

import dataclasses
import importlib
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from bitwren.errors import BitwrenError, unknown_name
from bitwren.report.peers.processor import processor
from bitwren.report.worker import OURS

PEERS = ("onnxruntime", "openvino", "ncnn")
# Nothing starts more threads than it was told to, and idle ones sleep, those of libgomp some milliseconds after a run.
QUIET = {"KMP_BLOCKTIME": "0", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
AVX2 = {"ONEDNN_MAX_CPU_ISA": "AVX2", "DNNL_MAX_CPU_ISA": "AVX2"}  # OpenVINO's kernels ask oneDNN what there is


@dataclasses.dataclass(frozen=True)
class Engine:
    """An engine, the form of the network it runs, and whether it is held to AVX2 on a processor that can do more."""

    name: str
    kind: str
    avx2: bool = False

    @property
    def label(self) -> str:
        """What the table calls it."""
        words = [self.name] if self.name == OURS else [self.name, self.kind]
        return " ".join([*words, "AVX2"] if self.avx2 else words)

    @property
    def environment(self) -> dict[str, str]:
        """Variables that its process is started with."""
        if not self.avx2:
            return QUIET
        return QUIET | ({"BITWREN_KERNELS": "avx2"} if self.name == OURS else AVX2)


def parse_peers(text: str | None) -> list[str]:
    """Return the peers that a user names, separated by commas. Raises UsageError for one that does not exist."""
    names = [] if text is None else list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    for name in names:
        if name not in PEERS:
            raise unknown_name("engine", name, PEERS)
    return names


def missing_packages(name: str) -> list[str]:
    """Return the packages, as pip names them, that a peer needs and that are not installed."""
    peer = importlib.import_module(f"bitwren.report.peers.{name}")
    return [package for package in peer.PACKAGES if importlib.util.find_spec(package) is None]


def versions(names: list[str]) -> dict[str, str]:
    """Return the version of every package that the peers use."""
    packages = {p for name in names for p in importlib.import_module(f"bitwren.report.peers.{name}").PACKAGES}
    return {package: importlib.metadata.version(package) for package in sorted(packages)}


def engines_for(peers: list[str]) -> list[Engine]:
    """Return the engines to measure, ours first; held to AVX2 too where there is AVX-512 and they can be told."""
    wide = "avx512bw" in processor()["flags"]
    engines = [Engine(OURS, "1-bit"), *([Engine(OURS, "1-bit", avx2=True)] if wide else [])]
    for name in peers:
        for kind in importlib.import_module(f"bitwren.report.peers.{name}").FORMS:
            if kind == "bf16" and "avx512_bf16" not in processor()["flags"]:
                continue
            engines.append(Engine(name, kind))
            if wide and name == "openvino" and kind != "bf16":
                engines.append(Engine(name, kind, avx2=True))
    return engines


class EngineError(BitwrenError):
    """An engine that does not start, fails or ends early; the benchmark goes on without it."""


class Worker:
    """A process of its own for an engine; a context manager that ends it."""

    def __init__(self, engine: Engine, job: dict):
        """Start the process and wait until its job is done. Raises EngineError where that fails."""
        self.engine = engine
        environment = os.environ | engine.environment | {"OMP_NUM_THREADS": str(job.get("threads", 1))}
        source = Path(__file__).resolve().parents[2]  # this package, wherever it was imported from
        environment["PYTHONPATH"] = os.pathsep.join([str(source), *filter(None, [os.environ.get("PYTHONPATH")])])
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bitwren.report.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=environment,
        )
        try:
            self.opened = self.ask({"engine": engine.name, "kind": engine.kind} | job)
            if "error" in self.opened:
                raise EngineError(f"{engine.label}: {self.opened['error']}")
        except BaseException:
            self.close()
            raise

    def ask(self, command: dict) -> dict:
        """Return the answer to a command. Raises EngineError where the process has ended."""
        try:
            print(json.dumps(command), file=self._process.stdin, flush=True)
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self._errors.seek(0)
            last = self._errors.read().decode(errors="replace").strip().splitlines()[-1:]
            raise EngineError(f"{self.engine.label}: its process ended, status {self._process.wait()}: {''.join(last)}")
        return json.loads(line)

    def time(self, seconds: float, most: int) -> list[float]:
        """Return the seconds of runs of a batch, one after the other."""
        return self.ask({"do": "time", "seconds": seconds, "most": most})["seconds"]

    def logits(self, folder: Path) -> np.ndarray:
        """Return the logits (N, classes) of all its pictures."""
        out = folder / "logits.npy"
        self.ask({"do": "logits", "out": str(out)})
        return np.load(out)

    def processor_seconds(self) -> float | None:
        """Return the processor time that the process has used so far; None where the system does not tell."""
        try:
            fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        """End the process."""
        self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._errors.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
