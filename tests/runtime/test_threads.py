"""Threads: no data race, the same integers however many there are, and an end even where the machine is busy."""

import multiprocessing
import os

import pytest
from runtime.graphs import shared
from runtime.program import built

from bitwren.deploy.runtime import Runtime
from bitwren.network.pack import encode


@pytest.mark.parametrize(("group", "sample"), [("convolutions", 9), ("many readers", 1), ("shared", 1)])
def test_no_data_race(builds, case_file, group, sample):
    built("threads", builds).agrees("--threads", "2,3", "--sample", sample, case_file(group))


def test_the_group_shared_is_shared():
    whole, lookups = [], 0
    for _, made, pictures in shared():
        with Runtime(encode(made)) as runtime:
            steps = runtime.steps(pictures[:1], threads=2)
        steps = [step for step in steps if step.kernel == "lookup"]
        whole += [step.layers for step in steps if not step.choice.endswith("shared")]
        lookups += len(steps)
    stem = "conv1+requantise2+requantise3"  # of three channels: one set, and two items
    assert whole == [stem] and lookups > 10


def spin(stop):
    while not stop.is_set():
        pass


def test_more_threads_than_cores_on_a_busy_machine(builds, case_file):
    program, files = built("host", builds), [case_file("many readers"), case_file("shared")]
    cores, stop = os.cpu_count() or 1, multiprocessing.Event()
    others = [multiprocessing.Process(target=spin, args=(stop,), daemon=True) for _ in range(cores)]
    for other in others:
        other.start()
    try:
        program.agrees("--threads", f"{cores + 1},{2 * cores + 3}", *files)
    finally:
        stop.set()
        for other in others:
            other.join()
