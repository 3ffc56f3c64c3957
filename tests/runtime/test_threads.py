"""Threads: no data race, the same integers however many there are, and an end even where the machine is busy."""

import multiprocessing
import os

import pytest
from runtime.cases import write_cases
from runtime.directed import GROUPS
from runtime.program import built


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    chosen = [
        *list(GROUPS["convolutions"](1))[::10],
        *GROUPS["many readers"](1),
        *list(GROUPS["whole networks"](1))[::4],
    ]
    return write_cases(tmp_path_factory.mktemp("cases") / "cases", chosen)


def test_no_data_race(builds, file):
    built("threads", builds).agrees("--threads", "2,3", file)


def spin(stop):
    while not stop.is_set():
        pass


def test_more_threads_than_cores_on_a_busy_machine(builds, file):
    stop = multiprocessing.Event()
    others = [multiprocessing.Process(target=spin, args=(stop,), daemon=True) for _ in range(os.cpu_count() or 1)]
    for other in others:
        other.start()
    try:
        cores = os.cpu_count() or 1
        built("host", builds).agrees("--threads", f"{cores + 1},{2 * cores + 3}", file)
    finally:
        stop.set()
        for other in others:
            other.join()
