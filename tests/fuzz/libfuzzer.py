"""Fuzz the C runtime with libFuzzer, coverage-guided, under the sanitizers for addresses and undefined behaviour.

    python tests/fuzz/libfuzzer.py --seconds 700 --out results/fuzz-runtime.json

The corpus is made here, valid files of small networks of every kind, and thrown away. A crash leaves its input beside.
"""

import argparse
import json
import random
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fuzz.fuzz_bwn import CORPUS, corpus, provenance

from bitwren.atomic import write_json

RUNTIME = Path(__file__).resolve().parents[2] / "runtime"
INTRINSICS = {"kernels_avx2", "kernels_avx512", "kernels_neon"}
LARGEST = 8192  # bytes of an input
WORDS = ["nodes", "classes", "offsets", "multipliers", "weights", "bits", "data_offsets", "null", "-1"]


def build(folder: Path) -> Path:
    """Compile runtime/fuzz/open.c with the portable kernels and return the program. Raises CalledProcessError."""
    program = folder / "fuzz_open"
    sources = [path for path in sorted((RUNTIME / "source").glob("*.c")) if path.stem not in INTRINSICS]
    subprocess.run(
        ["clang", "-std=c11", "-O1", "-g", "-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all",
         "-pthread", f"-I{RUNTIME}/include", f"-I{RUNTIME}/source", RUNTIME / "fuzz" / "open.c", *sources,
         "-lm", "-o", program],
        check=True,
    )  # fmt: skip
    return program


def fuzz(program: Path, seconds: int, seed: int, files: list[bytes], artifacts: Path) -> dict:
    """Run the fuzzer for that time and return its figures; raises CalledProcessError where it finds something."""
    with tempfile.TemporaryDirectory() as folder:
        seeds = Path(folder) / "seeds"
        seeds.mkdir()
        for k, data in enumerate(files):
            (seeds / f"{k}.bwn").write_bytes(data)
        words = Path(folder) / "words"
        words.write_text("".join(f'"{word}"\n' for word in WORDS))
        run = subprocess.run(
            [program, seeds, f"-max_total_time={seconds}", f"-seed={seed % 2**31 or 1}", f"-max_len={LARGEST}",
             f"-dict={words}", "-print_final_stats=1", "-rss_limit_mb=2048", "-timeout=10",
             f"-artifact_prefix={artifacts}/"],
            capture_output=True, text=True, errors="replace", check=False,
        )  # fmt: skip
        if run.returncode != 0:
            print(run.stderr[-6000:], file=sys.stderr)
            raise subprocess.CalledProcessError(run.returncode, run.args)
    stats = dict(re.findall(r"stat::(\w+):\s+(\d+)", run.stderr))
    coverage = re.findall(r"cov: (\d+) ft: (\d+) corp: (\d+)", run.stderr)
    return {
        "executions": int(stats["number_of_executed_units"]),
        "seconds": seconds,
        "seed": seed,
        "crashes": 0,
        "edges_at_the_start": int(coverage[0][0]),
        "edges": int(coverage[-1][0]),
        "features": int(coverage[-1][1]),
        "inputs_kept": int(coverage[-1][2]),
        "peak_rss_mb": int(stats["peak_rss_mb"]),
        "corpus": {"files": len(files), "largest_bytes": max(map(len, files))},
    }


def main() -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(description="fuzz the C runtime with libFuzzer")
    parser.add_argument("--seconds", type=int, default=700)
    parser.add_argument("--seed", type=int, default=None, help="default: a new one, printed")
    parser.add_argument("--out", type=Path, default=None, metavar="FILE", help="figures, JSON")
    arguments = parser.parse_args()
    if shutil.which("clang") is None:
        print("no clang with libFuzzer: install the packages clang and libclang-rt-14-dev", file=sys.stderr)
        return 1
    seed = random.SystemRandom().randrange(2**32) if arguments.seed is None else arguments.seed
    print(f"seed {seed}", file=sys.stderr, flush=True)
    made_by = provenance()
    with tempfile.TemporaryDirectory() as folder:
        try:
            figures = fuzz(build(Path(folder)), arguments.seconds, seed, corpus(seed, CORPUS), Path.cwd())
        except subprocess.CalledProcessError as error:
            print(f"FAILED with exit status {error.returncode}; the input is kept here", file=sys.stderr)
            return 1
    if arguments.out is not None:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        write_json(arguments.out, {**figures, "made_by": made_by})
    print(json.dumps(figures, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
