"""Measuring only while nothing else is at work on the processor's cores.

Other programs, and other guests of a shared machine, slow a core for moments that the system does not tell of. A fixed
loop does: it is timed on every core before a measurement and after it.
"""

import os
import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np

LEAST_SPEED = 0.9  # of the best that a core has shown, for it to be undisturbed
PATIENCE = 900  # seconds, for all measurements together, to wait and to measure in vain
WAIT = 0.05  # seconds, where a core is disturbed before it
BLOCKS, CALLS = 3, 60  # of a loop on a core: some 200 microseconds

Result = TypeVar("Result")


class Cores:
    """The cores that this process may use, and the best speed of the loop on each so far, calls a second.

    kept, repeated: measurements so far that were undisturbed, and that were thrown away. given_up: that were taken as
    they came, for the patience was at its end. lost: seconds of it that are gone.
    """

    def __init__(self):
        """Time the loop on every core for a second, to know what each can do."""
        self.best: dict[int, float] = {}
        self.kept = self.repeated = self.given_up = 0
        self.lost = 0.0
        self._values = [np.ones(4096, np.int16) for _ in range(3)]
        end = time.perf_counter() + 1
        while time.perf_counter() < end:
            self.are_undisturbed()

    def speeds(self) -> dict[int, float]:
        """Return the speed of the loop on each core now: the best of a few blocks."""
        if not hasattr(os, "sched_getaffinity"):
            return {0: self._speed()}
        cores, speeds = os.sched_getaffinity(0), {}
        try:
            for core in cores:
                os.sched_setaffinity(0, {core})
                speeds[core] = self._speed()
        finally:
            os.sched_setaffinity(0, cores)
        return speeds

    def _speed(self) -> float:
        first, second, out = self._values
        best = 0.0
        for _ in range(BLOCKS):
            begin = time.perf_counter()
            for _ in range(CALLS):
                np.add(first, second, out=out)
            best = max(best, CALLS / (time.perf_counter() - begin))
        return best

    def are_undisturbed(self) -> bool:
        """Return whether every core is about as quick as it has ever been."""
        now = self.speeds()
        for core, speed in now.items():
            self.best[core] = max(self.best.get(core, 0.0), speed)
        return all(speed >= LEAST_SPEED * self.best[core] for core, speed in now.items())

    def measured(self, measure: Callable[[], Result]) -> Result:
        """Return what a measurement gives that is undisturbed before and after; once PATIENCE is lost, of any."""
        while self.lost < PATIENCE:
            begin = time.perf_counter()
            if self.are_undisturbed():
                result = measure()
                if self.are_undisturbed():
                    self.kept += 1
                    return result
                self.repeated += 1
            else:
                time.sleep(WAIT)
            self.lost += time.perf_counter() - begin
        self.given_up += 1
        return measure()

    def figures(self) -> dict:
        """Return what was done, as JSON."""
        return {
            "least_speed": LEAST_SPEED,
            "kept": self.kept,
            "repeated": self.repeated,
            "given_up": self.given_up,
            "lost_s": round(self.lost, 1),
        }
