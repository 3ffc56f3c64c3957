"""Throw broken .bwn files at both readers, Python's and C's: they must agree on what they refuse and what they read.

    python tests/fuzz/fuzz_runtime.py --executions 200000 --out results/fuzz-readers.json

The C reader is compiled with the sanitizers for addresses and undefined behaviour. Executions are those of fuzz_bwn.py.
"""

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fuzz.fuzz_bwn import CORPUS, corpus, provenance
from fuzz.mutations import mutated

from bitwren.atomic import write_json
from bitwren.errors import ModelError
from bitwren.network.graph import Network
from bitwren.network.pack import decode

RUNTIME = Path(__file__).resolve().parents[2] / "runtime"
READER = ("check", "container", "description", "error", "json", "memory", "tensors")
BATCH = 500  # files sent at once: few enough that the answers fit the pipe


class Disagreement(Exception):
    """The readers differ."""


def compiler() -> str | None:
    """Return the system's C compiler, or None."""
    return next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)


def build(folder: Path) -> Path:
    """Compile runtime/fuzz/open_files.c and return the program."""
    program = folder / "open_files"
    sources = [RUNTIME / "source" / f"{name}.c" for name in READER]
    subprocess.run(
        [compiler(), "-std=c11", "-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all",
         f"-I{RUNTIME}/include", f"-I{RUNTIME}/source", RUNTIME / "fuzz" / "open_files.c", *sources,
         "-lm", "-o", program],
        check=True,
    )  # fmt: skip
    return program


def described(network: Network) -> str:
    """Return a network as open_files prints it."""
    words = ["ok"]
    for tensor in network.tensors.values():
        zeros = set() if tensor.zero is None else set(tensor.zero.tolist())
        zero = zeros.pop() if len(zeros) == 1 else -1
        words.append(f"{'x'.join(map(str, tensor.shape))} {tensor.low} {tensor.high} {zero}")
    return " ".join(words)


def expected(data: bytes) -> str:
    """Return what the Python reader says, as open_files would print it; a refusal without its message."""
    try:
        return described(decode(data, "file"))
    except ModelError:
        return "refused"


def answers(program: Path, files: list[bytes]) -> list[str]:
    """Return the C reader's line for each file. Raises Disagreement where it dies."""
    stream = b"".join(len(data).to_bytes(4, "little") + data for data in files)
    run = subprocess.run([program], input=stream, capture_output=True, check=False)
    lines = run.stdout.decode(errors="replace").split("\n")[:-1]
    if run.returncode != 0 or len(lines) != len(files):
        why = run.stderr.decode(errors="replace")[:2000]
        raise Disagreement(f"file {len(lines)} of the batch: exit status {run.returncode}: {why}")
    return lines


def compare(program: Path, executions: int, seed: int, files: list[bytes]) -> dict:
    """Run executions and return figures. Raises Disagreement, which names the execution."""
    started, accepted = time.perf_counter(), 0
    for first in range(0, executions, BATCH):
        batch = [mutated(seed, k, files) for k in range(first, min(first + BATCH, executions))]
        for k, (data, line) in enumerate(zip(batch, answers(program, batch), strict=True)):
            wanted = expected(data)
            got = "refused" if line.startswith("refused 1 ") else line
            if got != wanted:
                says = f"C says {line[:500]!r}, Python {wanted[:500]!r}"
                raise Disagreement(f"seed {seed}, execution {first + k}: {says}")
            accepted += wanted != "refused"
        if first % 20_000 == 0 and first:
            print(f"{first} executions, {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
    return {
        "executions": executions,
        "seed": seed,
        "disagreements": 0,
        "crashes": 0,
        "accepted": accepted,
        "refused": executions - accepted,
        "seconds": round(time.perf_counter() - started, 1),
    }


def main() -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(description="compare the Python and the C reader on mutated .bwn files")
    parser.add_argument("--executions", type=int, default=200_000, metavar="N")
    parser.add_argument("--seed", type=int, default=None, help="default: a new one, printed")
    parser.add_argument("--out", type=Path, default=None, metavar="FILE", help="figures, JSON")
    arguments = parser.parse_args()
    if compiler() is None:
        print("no C compiler: install gcc", file=sys.stderr)
        return 1
    seed = random.SystemRandom().randrange(2**32) if arguments.seed is None else arguments.seed
    print(f"seed {seed}", file=sys.stderr, flush=True)
    made_by = provenance()
    with tempfile.TemporaryDirectory() as folder:
        try:
            figures = compare(build(Path(folder)), arguments.executions, seed, corpus(seed, CORPUS))
        except Disagreement as problem:
            print(f"FAILED: {problem}", file=sys.stderr)
            return 1
    if arguments.out is not None:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        write_json(arguments.out, {**figures, "made_by": made_by})
    print(json.dumps(figures, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
