"""Runs as tasks of a Ray cluster. The study's folder must be on a disk that all its machines see.

Ray's scheduler places the tasks and starts a task again when its process, or its machine, dies; a run so started again
goes on from its checkpoint.
"""

import contextlib
import os
import socket
from collections.abc import Iterator, Sequence

from bitwren.errors import StoppedError, ToolError, UsageError
from bitwren.study.task import RETRIES, Outcome, Task, failure

LOCAL = "ray"  # --on: a cluster of this machine alone, for the time of the command


def _carry_out(task: Task) -> Outcome | str:
    """Runs on a machine of the cluster; a run that was told to stop is said so by a text."""
    from bitwren.study.run import carry_out

    if not task.folder.parent.is_dir():
        return failure(task, f"{task.folder.parent}: not seen from {socket.gethostname()}, expected a shared disk")
    try:
        return carry_out(task, "auto")
    except StoppedError as error:
        return str(error)


class RayWorkers:
    """A cluster, and at most `jobs` runs on it at a time, each with that many processor threads.

    address: LOCAL, or ray://HOST:PORT. Leaving the context stops what is running; it is saved.
    Raises UsageError where Ray is not installed, ToolError where the cluster cannot be reached.
    """

    def __init__(self, address: str, jobs: int, threads: int):
        if address != LOCAL and not address.startswith("ray://"):
            raise UsageError(f"--on is {address!r}, expected local, ray or ray://HOST:PORT")
        try:
            import ray
        except ImportError:
            raise UsageError("--on ray needs Ray: pip install 'bitwren[ray]'") from None
        self._ray, self._address, self._jobs, self._threads = ray, address, jobs, threads
        self._pending: dict = {}

    def __enter__(self) -> "RayWorkers":
        options = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": False}
        if self._address == LOCAL:
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a study tells nobody
            options |= {"address": "local", "num_cpus": self._jobs * self._threads, "include_dashboard": False}
        else:
            options = {"address": self._address, "log_to_driver": False}
        try:
            self._ray.init(**options)
        except Exception as error:  # of its own, of gRPC's, of the system's
            raise ToolError(f"--on {self._address}: no cluster: {str(error).strip().partition(chr(10))[0]}") from None
        return self

    def __exit__(self, *_) -> None:
        for reference in self._pending:
            self._ray.cancel(reference)  # as Ctrl-C: the training loop finishes its step and saves
        with contextlib.suppress(KeyboardInterrupt):
            self._ray.wait(list(self._pending), num_returns=len(self._pending)) if self._pending else None
        self._ray.shutdown()

    def outcomes(self, tasks: Sequence[Task], seconds: float) -> Iterator[tuple[Outcome | None, list[Task]]]:
        """Yield (outcome, tasks in hand) when a run ends, and (None, tasks in hand) at least every so many seconds."""
        ray, waiting = self._ray, list(tasks)
        gpus = min(1, ray.cluster_resources().get("GPU", 0))
        remote = ray.remote(num_cpus=self._threads, num_gpus=gpus, max_retries=RETRIES)(_carry_out)
        while waiting or self._pending:
            while waiting and len(self._pending) < self._jobs:
                task = waiting.pop(0)
                self._pending[remote.options(name=task.run.id).remote(task)] = task
            yield None, list(self._pending.values())
            ready, _ = ray.wait(list(self._pending), timeout=seconds)
            for reference in ready:
                task = self._pending.pop(reference)
                yield self._outcome(reference, task), list(self._pending.values())

    def _outcome(self, reference, task: Task) -> Outcome:
        try:
            outcome = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            return failure(task, f"on the cluster, {RETRIES + 1} times: {str(error).strip().partition(chr(10))[0]}")
        return failure(task, outcome) if isinstance(outcome, str) else outcome
