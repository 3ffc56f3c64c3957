"""One engine in a process of its own, so that its threads and memory disturb no other: `python -m bitwren.report.worker`.

The first line of stdin is a JSON job, every further one a JSON command; each is answered by one JSON line on stdout:

    {"engine", "kind", "threads", "batch", "folder", "model", "pixels"}  ->  {"open_s", "settings"} or {"error"}
    {"do": "time", "seconds": S, "most": N}   ->  {"seconds": [...]}    of each run of a batch
    {"do": "logits", "out": FILE}             ->  {}                    of all the pictures, as .npy
    {"do": "profile", "seconds": S}           ->  {"steps": [...]}      bitwren only
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


def _open(job: dict):
    if job["engine"] == OURS:
        from bitwren.deploy.runtime import Runtime

        network = Runtime(Path(job["model"]))
        threads = job["threads"]
        return lambda pixels: network.run(pixels, threads=threads), {"kernels": network.kernels}
    peer = importlib.import_module(f"bitwren.report.peers.{job['engine']}")
    return peer.load(job["kind"], Path(job["folder"]), job["threads"], job["batch"])


def serve(lines, answer) -> None:
    """Answer a job and its commands. lines: of JSON; answer: called with each reply, a dictionary."""
    lines = iter(lines)
    job = json.loads(next(lines))
    pixels = np.load(job["pixels"], mmap_mode="r")  # uint8 (N, C, H, W)
    batch = job["batch"]
    first = np.ascontiguousarray(np.resize(pixels, (batch, *pixels.shape[1:])))
    try:
        begin = time.perf_counter()
        run, settings = _open(job)
        opened = time.perf_counter() - begin
        run(first)
    except Exception as error:  # an engine may fail in ways of its own; the others are measured all the same
        answer({"error": f"{type(error).__name__}: {error}".splitlines()[0]})
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
            case "profile":
                from bitwren.deploy.runtime import Runtime

                answer({"steps": profile(Runtime(Path(job["model"])), first, job["threads"], command["seconds"])})
            case "peak":
                answer({"bytes": peak_bytes()})


def time_runs(run, seconds: float, most: int) -> list[float]:
    """Return the times of runs one after the other, seconds each: at least 2, at most `most`, no longer than `seconds`.

    The run before the first is not counted: it finds the caches cold and the threads asleep.
    """
    run()
    times, begin = [], time.perf_counter()
    while len(times) < 2 or (len(times) < most and time.perf_counter() - begin < seconds):
        before = time.perf_counter()
        run()
        times.append(time.perf_counter() - before)
    return times


def profile(network, pixels: np.ndarray, threads: int, seconds: float) -> list[dict]:
    """Return the steps of the runtime's plan with their time for a picture, measured for that many seconds."""
    return network.profile(pixels, threads, seconds)


def _main() -> None:
    # Libraries print to stdout; the answers keep it for themselves.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(reply: dict) -> None:
        print(json.dumps(reply), file=out, flush=True)

    serve(sys.stdin, answer)


if __name__ == "__main__":
    _main()
