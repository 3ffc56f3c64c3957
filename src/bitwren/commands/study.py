"""bitwren study STUDY.toml: a grid of training runs."""

import importlib.util
import os
import sys
from pathlib import Path

from bitwren.errors import TrainingError, UsageError


def study(arguments) -> int:
    """Carry out the study, or with --dry-run say what it would do."""
    from bitwren.study.runner import data_dirs, open_study, tasks

    for option in ("jobs", "threads"):
        if getattr(arguments, option) is not None and getattr(arguments, option) < 1:
            raise UsageError(f"--{option} is {getattr(arguments, option)}, expected at least 1")
    state = open_study(arguments.study, arguments.out, arguments.resume or arguments.dry_run)
    folders = data_dirs(state.study, arguments.data_dir)
    cores = os.cpu_count() or 1
    threads = arguments.threads or max(1, cores // arguments.jobs)
    command = " ".join([Path(sys.argv[0]).name.replace("__main__.py", "bitwren"), *sys.argv[1:]])
    left = tasks(state, folders, threads, command)
    if importlib.util.find_spec("torch") is None:  # the processes that carry out the runs import it, this one not
        raise UsageError("this command needs PyTorch: pip install 'bitwren[train]'")
    if state.torn:
        print(f"bitwren: {state.torn}", file=sys.stderr)
    carry_out = _dry_run if arguments.dry_run else _carry_out
    return carry_out(arguments, state, left, threads)


def _dry_run(arguments, state, left, threads: int) -> int:
    from bitwren.commands.training import require_torch
    from bitwren.study.display import duration
    from bitwren.study.estimate import estimate
    from bitwren.terminal import aligned, ruled

    require_torch(threads)
    from bitwren.train.timing import picture_seconds

    estimates = estimate(left, state.records, picture_seconds)
    rows = [("runs left", "seeds", "each", "from")]
    for group in estimates:
        name = group.runs[0].rpartition("-seed")[0] if len(group.runs) > 1 else group.runs[0]
        time = "?" if group.seconds is None else duration(group.seconds)
        rows.append((name, str(len(group.runs)), time, group.source))
    print(ruled([f"{line}  {source}" for line, source in _last_column_left(rows, aligned)]))
    known = [(len(group.runs), group.seconds) for group in estimates if group.seconds is not None]
    seconds = sum(count * each for count, each in known) / arguments.jobs
    unknown = len(left) - sum(count for count, _ in known)
    more = f", and {unknown} runs of unknown length" if unknown else ""
    print(f"\n{len(left)} of {len(state.study.runs)} runs left: {duration(seconds)} at --jobs {arguments.jobs}{more}")
    print("measured: a few steps of each network on random pictures, on this machine; earlier: this study's records")
    return 0


def _last_column_left(rows, aligned) -> list[tuple[str, str]]:
    return list(zip(aligned([row[:-1] for row in rows], left=1), (row[-1] for row in rows), strict=True))


def _carry_out(arguments, state, left, threads: int) -> int:
    from bitwren.study.display import duration, shown
    from bitwren.study.runner import carry_out_study

    skipped = len(state.done)
    try:
        workers = _workers(arguments, threads)
        with shown() as show:
            carry_out_study(state, arguments.study, left, workers, show)
    except KeyboardInterrupt:
        done, runs = len(state.done), len(state.study.runs)
        raise TrainingError(
            f"stopped with {done} of {runs} runs done; everything is saved, go on with --resume"
        ) from None
    for record in state.failed:
        print(f"failed     {record['run']}: {record['error']}")
    there = f", {skipped} of them before" if skipped else ""
    print(f"runs       {len(state.done)} of {len(state.study.runs)} done{there}, {len(state.failed)} failed")
    print(f"time       {duration(state.seconds)}; overhead, summed over processes, {state.overhead:.1f} s")
    print(f"saved      {state.folder}: runs.jsonl, and a folder a run")
    return 1 if state.failed else 0


def _workers(arguments, threads: int):
    if arguments.on == "local":
        from bitwren.study.workers import LocalWorkers

        return LocalWorkers(arguments.jobs)
    from bitwren.study.ray_jobs import RayWorkers

    return RayWorkers(arguments.on, arguments.jobs, threads)
