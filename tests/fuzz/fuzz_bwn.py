"""Throw broken .bwn files at the reader: it must give a network that runs, or one ModelError, soon and in little room.

    python tests/fuzz/fuzz_bwn.py --executions 200000 --out results/fuzz-bwn.json

Each execution mutates a valid file: bits, lengths, numbers, tokens, whole parts of the JSON; in half of them the
checksum is made right again, so that the mutation gets past it. An execution depends on the seed and its own number
only: --only N repeats it.
"""

import argparse
import collections
import contextlib
import hashlib
import io
import json
import platform
import random
import re
import resource
import signal
import subprocess
import sys
import time
import tracemalloc
from importlib import metadata
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import hypothesis
import numpy as np
from fuzz.mutations import mutated
from network.strategies import networks

import bitwren
from bitwren.atomic import write_json
from bitwren.errors import ModelError
from bitwren.network import reference
from bitwren.network.container import CRC_AT, MAX_HEADER, checksum
from bitwren.network.description import MAX_NODES, MAX_SIDE
from bitwren.network.graph import Conv, Network, macs
from bitwren.network.pack import decode, encode

SECONDS = 5  # of processor time for one execution
ADDRESS_SPACE = 4 * 2**30
CORPUS = 60
RUNNABLE = 300_000  # multiply-accumulates, and values of all tensors, that the reference may be asked for


def corpus(seed: int, count: int) -> list[bytes]:
    """Return valid files of small networks of every kind."""
    files: list[bytes] = []

    @hypothesis.seed(seed)
    @hypothesis.settings(max_examples=count, database=None, deadline=None, phases=[hypothesis.Phase.generate])
    @hypothesis.given(networks())
    def collect(network: Network) -> None:
        files.append(encode(network))

    collect()
    return sorted(set(files), key=len)


# ------------------------------------------------------------------ one execution


class Failure(Exception):
    """The reader did what it must not."""


def _too_long(*_):
    raise Failure(f"took more than {SECONDS} s of processor time")


def allowed(data: bytes, result: Network | str) -> int:
    """Return the bytes of memory that reading a file may take, as docs/file-format.md says, and 32 KiB for any file.

    result: the network, or the refusal; of a refused file, as many nodes and channels count as it could have had.
    """
    if isinstance(result, str):
        weights, nodes, channels = 0, min(data.count(b"["), MAX_NODES), MAX_SIDE
    else:
        weights, nodes = result.weights, len(result.nodes)
        channels = max(tensor.shape[0] for tensor in result.tensors.values())
    header = min(int.from_bytes(data[:8], "little"), len(data), MAX_HEADER)
    return 2 * len(data) + weights + 40 * header + 512 * nodes + 64 * channels + 2**15


def run_one(data: bytes) -> tuple[Network | str, float]:
    """Return the network or the refusal, and the share of the allowed memory that it took. Raises Failure."""
    before = tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        result = decode(data, "file.bwn")
    except ModelError as error:
        result = str(error)
    except Failure:
        raise
    except BaseException as error:
        raise Failure(f"raised {type(error).__name__}: {error}") from error
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    peak = tracemalloc.get_traced_memory()[1] - before
    if isinstance(result, str) and not (result.startswith("file.bwn: ") and len(result) < 500 and "\n" not in result):
        raise Failure(f"message is not one short line with the file's name: {result[:600]!r}")
    room = allowed(data, result)
    if peak > room:
        raise Failure(f"took {peak} bytes, allowed {room} for a file of {len(data)}")
    return result, peak / room


def run_accepted(network: Network, seed: int) -> bool:
    """Write the network again, and run it if it is small; return whether it ran. Raises Failure."""
    values = sum(np.prod(tensor.shape, dtype=object) for tensor in network.tensors.values())
    work = sum(macs(node, network.tensors[node.name].shape) for node in network.nodes if isinstance(node, Conv))
    try:
        again = encode(network)
        if encode(decode(again, "again")) != again:
            raise Failure("accepted, but written again it differs")
        if values + work > RUNNABLE:
            return False
        shape = (network.channels, network.height, network.width)
        pixels = np.random.default_rng(seed).integers(0, 256, (3, *shape), dtype=np.uint8)
        pixels[1], pixels[2] = 0, 255
        logits = reference.run(network, pixels)
    except Failure:
        raise
    except Exception as error:  # not even ModelError: a value outside the range that the graph promised is a bug
        raise Failure(f"accepted, but then {type(error).__name__}: {error}") from error
    if logits.shape != (3, len(network.classes)):
        raise Failure(f"accepted, but logits are {logits.shape}")
    return True


def kind_of(message: str) -> str:
    """Return a refusal without its names and numbers."""
    message = re.sub(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"", "'x'", message.removeprefix("file.bwn: "))
    message = re.sub(r"an object of .*?(?=, expected)|a list of \d+|\[[^\]]*\]|\([^)]*\)", "...", message)
    return re.sub(r"0x[0-9a-f]+|\b[0-9a-f]{8}\b|-?\d[\d.e+-]*", "N", message)


# ------------------------------------------------------------------ the command


def fuzz(executions: int, seed: int, files: list[bytes], first: int = 0, failed: Path | None = None) -> dict:
    """Run executions first..first + executions - 1 and return figures.

    Raises Failure; failed: where the file that did it is kept.
    """
    own = set(files)
    refused: collections.Counter[str] = collections.Counter()
    accepted = new = ran = passed_checksum = 0
    share = slowest = 0.0
    old_handler = signal.signal(signal.SIGPROF, _too_long)
    started, processor = time.perf_counter(), time.process_time()
    was_tracing = tracemalloc.is_tracing()
    tracemalloc.start()
    try:
        for execution in range(first, first + executions):
            if execution % 20_000 == 0 and execution > first:
                print(f"{execution} executions, {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
            data = mutated(seed, execution, files)
            began = time.process_time()
            try:
                result, used = run_one(data)
                slowest = max(slowest, time.process_time() - began)
                share = max(share, used)
                if isinstance(result, str):
                    refused[kind_of(result)] += 1
                else:
                    accepted += 1
                    new += data not in own
                    ran += run_accepted(result, execution)
            except Failure as failure:
                if failed is not None:
                    failed.write_bytes(data)
                raise Failure(f"seed {seed}, execution {execution}: {failure}") from failure
            passed_checksum += len(data) >= CRC_AT + 8 and data[CRC_AT : CRC_AT + 8] == checksum(data).encode()
    finally:
        signal.signal(signal.SIGPROF, old_handler)
        if not was_tracing:
            tracemalloc.stop()
    seconds = time.perf_counter() - started
    return {
        "executions": executions,
        "seed": seed,
        "crashes": 0,
        "accepted": accepted,
        "accepted_and_changed": new,
        "accepted_and_run_in_the_reference": ran,
        "checksum_right": passed_checksum,
        "refused": executions - accepted,
        "kinds_of_refusal": len(refused),
        "seconds": round(seconds, 1),
        "processor_seconds": round(time.process_time() - processor, 1),
        "slowest_read_processor_s": round(slowest, 4),
        "largest_share_of_allowed_memory": round(share, 3),
        "peak_memory_of_the_process_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "corpus": {"files": len(files), "smallest_bytes": len(files[0]), "largest_bytes": len(files[-1])},
        "refused_by_kind": dict(refused.most_common()),
    }


def provenance() -> dict:
    """Return what makes the figures: as train/run.py does, without PyTorch, and the reader's own sources."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], capture_output=True, text=True, cwd=Path(__file__).parent).stdout.strip()

    sources = sorted((Path(bitwren.__file__).parent / "network").glob("*.py"))
    models = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text()) if sys.platform == "linux" else []
    return {
        "command": " ".join(["python", *sys.argv]),
        "commit": git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else ""),
        "sha256_of_network_sources": hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest(),
        "versions": {
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in ("bitwren", "numpy", "hypothesis")},
        },
        "processor": models[0] if models else platform.processor(),
    }


def main() -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(description="mutate valid .bwn files and read them")
    parser.add_argument("--executions", type=int, default=200_000, metavar="N")
    parser.add_argument("--seed", type=int, default=None, help="default: a new one, printed")
    parser.add_argument("--only", type=int, default=None, metavar="N", help="repeat one execution of a seed")
    parser.add_argument("--out", type=Path, default=None, metavar="FILE", help="figures, JSON")
    arguments = parser.parse_args()
    seed = random.SystemRandom().randrange(2**32) if arguments.seed is None else arguments.seed
    print(f"seed {seed}", file=sys.stderr, flush=True)
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    first, executions = (0, arguments.executions) if arguments.only is None else (arguments.only, 1)
    failed, made_by = Path("fuzz-bwn-failed.bwn"), provenance()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            figures = fuzz(executions, seed, corpus(seed, CORPUS), first, failed)
    except Failure as failure:
        print(f"FAILED, file kept as {failed}: {failure}", file=sys.stderr)
        return 1
    if arguments.out is not None:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        write_json(arguments.out, {**figures, "made_by": made_by})
    print(json.dumps(figures, indent=2, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
