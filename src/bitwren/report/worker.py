"""One engine in a process of its own, `python -m bitwren.report.worker`: its threads and memory disturb no other.

The first line of stdin is a JSON job, every further one a JSON command; each is answered by one JSON line on stdout:

    {"engine", "kind", "threads", "batch", "folder", "model", "pixels"}  ->  {"open_s", "settings"} or {"error"}
    {"engine", "kind", "folder", "model", "calibration"}                 ->  {"settings"} or {"error"}: files written
    {"do": "time", "seconds": S, "most": N}   ->  {"seconds": [...]}    of each run of a batch
    {"do": "logits", "out": FILE}             ->  {}                    of all the pictures, as .npy
    {"do": "peak"}                            ->  {"bytes": N}          resident memory at its highest, now

The end of stdin ends it.
"""

import importlib
import json
import os
import sys
import time
from pathlib import Path

import numpy as np

OURS = "bitwren"


def peak_bytes() -> int | None:
    """Return the highest resident memory of this process so far; None where the system does not tell (Linux does)."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    return int(fields["VmHWM"].split()[0]) * 1024 if "VmHWM" in fields else None


def _opener(job: dict):
    """Return what opens the network, its libraries loaded: a function without arguments -> run, settings."""
    threads = job["threads"]
    if job["engine"] == OURS:
        from bitwren.deploy.runtime import Runtime, kernel_sets

        kernel_sets()  # loads the library

        def open_ours():
            network = Runtime(job["model"])
            return lambda pixels: network.run(pixels, threads=threads), {"kernels": network.kernels}

        return open_ours
    peer = importlib.import_module(f"bitwren.report.peers.{job['engine']}")
    importlib.import_module(peer.PACKAGES[0])
    return lambda: peer.load(job["kind"], Path(job["folder"]), threads, job["batch"])


def _prepare(job: dict) -> dict:
    from bitwren.deploy.float_form import float_form
    from bitwren.network.pack import read_bwn

    peer = importlib.import_module(f"bitwren.report.peers.{job['engine']}")
    form = float_form(read_bwn(Path(job["model"])))
    return peer.prepare(form, job["kind"], np.load(job["calibration"]), Path(job["folder"]))


def _reason(error: Exception) -> str:
    """Return an error as one line; an engine may fail in ways of its own, and the others are measured all the same."""
    return f"{type(error).__name__}: {error}".splitlines()[0]


def serve(lines, answer) -> None:
    """Answer a job and its commands. lines: of JSON; answer: called with each reply, a dictionary."""
    lines = iter(lines)
    job = json.loads(next(lines))
    if "calibration" in job:
        try:
            answer({"settings": _prepare(job)})
        except Exception as error:
            answer({"error": _reason(error)})
        return
    pixels = np.load(job["pixels"], mmap_mode="r")  # uint8 (N, C, H, W)
    batch = job["batch"]
    first = np.ascontiguousarray(np.resize(pixels, (batch, *pixels.shape[1:])))
    try:
        opener = _opener(job)
        begin = time.perf_counter()
        run, settings = opener()
        opened = time.perf_counter() - begin
        run(first)
    except Exception as error:
        answer({"error": _reason(error)})
        return
    answer({"open_s": opened, "settings": settings})
    for line in lines:
        command = json.loads(line)
        match command["do"]:
            case "time":
                answer({"seconds": time_runs(lambda: run(first), command["seconds"], command["most"])})
            case "logits":
                parts = [run(np.ascontiguousarray(pixels[i : i + 1])) for i in range(len(pixels))]
                np.save(command["out"], np.concatenate(parts))
                answer({})
            case "peak":
                answer({"bytes": peak_bytes()})


def time_runs(run, seconds: float, most: int) -> list[float]:
    """Return the times of runs one after the other, seconds each: at least 1, at most `most`, no longer than `seconds`.

    The run before the first is not counted: it finds the caches cold and the threads asleep.
    """
    run()
    times, begin = [], time.perf_counter()
    while not times or (len(times) < most and time.perf_counter() - begin < seconds):
        before = time.perf_counter()
        run()
        times.append(time.perf_counter() - before)
    return times


def _main() -> None:
    # Libraries print to stdout; the answers keep it for themselves.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(reply: dict) -> None:
        print(json.dumps(reply), file=out, flush=True)

    serve(sys.stdin, answer)


if __name__ == "__main__":
    _main()
