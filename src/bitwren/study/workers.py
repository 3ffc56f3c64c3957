"""Processes on this machine that carry out runs, one after another: PyTorch and the pictures are loaded once in each.

A process that dies takes the run in hand with it and no other; a new one goes on with it from its checkpoint.
"""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from multiprocessing import connection

from bitwren.study.task import RETRIES, Outcome, Task, failure


def _serve(pipe: connection.Connection, slot: int) -> None:
    """Carry out the tasks that come through the pipe, and answer each with its outcome, until None comes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the first decides, by SIGTERM
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    from tqdm import tqdm

    tqdm.set_lock(threading.RLock())  # not its semaphore of the system's, which a process that is killed leaves behind
    from bitwren.errors import StoppedError
    from bitwren.study.run import carry_out, device_of

    with contextlib.suppress(StoppedError, EOFError, OSError):  # told to stop, or nobody is left to answer
        while (task := pipe.recv()) is not None:
            pipe.send(carry_out(task, device_of(slot)))
    os._exit(0)  # all is on the disk; taking PyTorch down in order would take a second


def _end_with_parent() -> None:
    """Stop as by SIGTERM, after the step in hand, when the process that started this one is gone."""
    connection.wait([multiprocessing.parent_process().sentinel])
    os.kill(os.getpid(), signal.SIGTERM)


class _Worker:
    """One process, and the task that it has in hand."""

    def __init__(self, slot: int):
        self.slot = slot
        self.task: Task | None = None
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, slot))
        self.process.start()
        theirs.close()

    def give(self, task: Task | None) -> None:
        """Hand it a task, or None to leave."""
        self.task = task
        with contextlib.suppress(OSError):  # it died; the end of the pipe says so when it is read
            self.pipe.send(task)

    def answer(self) -> Outcome | None:
        """Return the outcome that came, or None where the process is gone."""
        try:
            return self.pipe.recv()
        except (EOFError, OSError):
            self.process.join()
            return None

    @property
    def end(self) -> str:
        """How the process ended."""
        code = self.process.exitcode
        return f"its process was ended by {signal.Signals(-code).name}" if code < 0 else f"its process left with {code}"


class LocalWorkers:
    """`jobs` processes on this machine. Leaving the context stops them; a run in hand finishes its step and saves."""

    def __init__(self, jobs: int):
        self.jobs = jobs
        self._workers: list[_Worker] = []

    def __enter__(self) -> "LocalWorkers":
        return self

    def __exit__(self, *_) -> None:
        for worker in self._workers:
            if worker.task is None:
                worker.give(None)
            else:
                worker.process.terminate()
        try:
            for worker in self._workers:
                worker.process.join()
        except KeyboardInterrupt:  # again: not even the step in hand
            for worker in self._workers:
                worker.process.kill()
            raise

    def outcomes(self, tasks: Sequence[Task], seconds: float) -> Iterator[tuple[Outcome | None, list[Task]]]:
        """Yield (outcome, tasks in hand) when a run ends, and (None, tasks in hand) at least every so many seconds."""
        waiting, deaths = list(tasks), dict.fromkeys((task.run.id for task in tasks), 0)
        self._workers = [_Worker(slot) for slot in range(min(self.jobs, len(waiting)))]
        for worker in self._workers:
            worker.give(waiting.pop(0))
        while busy := [worker for worker in self._workers if worker.task is not None]:
            yield None, [worker.task for worker in busy]
            ready = connection.wait([worker.pipe for worker in busy], seconds)
            for worker in busy:
                if worker.pipe not in ready:
                    continue
                task, outcome = worker.task, worker.answer()
                if outcome is None:
                    deaths[task.run.id] += 1
                    if deaths[task.run.id] <= RETRIES:
                        waiting.insert(0, task)
                    else:
                        outcome = failure(task, f"{worker.end}, {deaths[task.run.id]} times")
                    worker = self._workers[worker.slot] = _Worker(worker.slot)
                worker.task = None
                if waiting:
                    worker.give(waiting.pop(0))
                yield outcome, [w.task for w in self._workers if w.task is not None]
