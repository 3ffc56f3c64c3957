"""Repeating measurements that others disturb; speeds are made up, no time is asserted."""

import os

import pytest

from bitwren.report import undisturbed
from bitwren.report.undisturbed import Cores


@pytest.fixture
def cores(monkeypatch):
    """Return cores of speeds that a test gives, the next at each look, 1 once they are used up."""
    monkeypatch.setattr(undisturbed, "WAIT", 0)
    made = Cores()
    made.best, made.given = {0: 1.0, 1: 1.0}, []
    made.speeds = lambda: dict(enumerate(made.given.pop(0) if made.given else (1.0, 1.0)))
    return made


def test_speeds_are_of_every_core_and_leave_the_process_where_it_was():
    before = os.sched_getaffinity(0)
    measured = Cores()
    assert measured.speeds().keys() == measured.best.keys() == before
    assert os.sched_getaffinity(0) == before and min(measured.best.values()) > 0


def test_an_undisturbed_measurement_is_taken_at_once(cores):
    assert cores.measured(lambda: "taken") == "taken"
    assert cores.figures() == {"least_speed": 0.9, "kept": 1, "repeated": 0, "given_up": 0, "lost_s": 0.0}


def test_a_disturbed_measurement_is_repeated(cores):
    # Disturbed before, after, undisturbed; either core counts.
    cores.given = [(1.0, 0.89), (1.0, 1.0), (0.5, 1.0), (0.9, 0.9), (0.95, 1.1)]
    results = iter(["disturbed", "taken"])
    assert cores.measured(lambda: next(results)) == "taken"
    assert (cores.kept, cores.repeated, cores.given_up) == (1, 1, 0) and cores.lost > 0


def test_a_core_is_held_to_the_best_that_it_has_shown(cores):
    cores.given = [(2.0, 1.0)]
    assert cores.are_undisturbed() and cores.best == {0: 2.0, 1: 1.0}
    assert not cores.are_undisturbed()


def test_it_gives_up_in_the_end_and_says_so(cores, monkeypatch):
    monkeypatch.setattr(undisturbed, "PATIENCE", 1.5)
    seconds = iter(range(100))
    monkeypatch.setattr(undisturbed.time, "perf_counter", lambda: next(seconds))  # every look takes a second
    cores.given = [(0.1, 0.1)] * 3
    assert cores.measured(lambda: "taken") == "taken"
    assert (cores.kept, cores.repeated, cores.given_up, cores.lost) == (0, 0, 1, 2)
    assert cores.measured(lambda: "at once") == "at once"
    assert cores.given_up == 2 and len(cores.given) == 1
