"""One process or many: what the training loop needs to know of PyTorch's distributed engine, and nothing more.

Under `torchrun` each process finds its rank and the number of processes in the environment; without it there is one.
Gradients are averaged by DistributedDataParallel; rank 0 alone writes files and prints.
"""

import contextlib
import dataclasses
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch import Tensor, nn

from bitwren.errors import BitwrenError, TrainingError, UsageError

GRACE = 2.0  # seconds between SIGTERM and the end


@dataclasses.dataclass(frozen=True)
class World:
    """The processes of one run: this one's rank in 0..size-1, and the device it computes on."""

    rank: int
    size: int
    device: torch.device

    @property
    def writes(self) -> bool:
        """Whether this process is the one that writes files and prints."""
        return self.rank == 0

    def share(self, batch: int) -> slice:
        """Return this process's part of a batch; batch is a multiple of size."""
        part = batch // self.size
        return slice(self.rank * part, (self.rank + 1) * part)

    def wrap(self, network: nn.Module) -> nn.Module:
        """Return the network whose backward pass averages the gradients over the processes."""
        if self.size == 1:
            return network
        return nn.parallel.DistributedDataParallel(network)

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum over the processes, in place."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def copy_buffers(self, network: nn.Module) -> None:
        """Give every process the buffers of rank 0: batch norm's moments come from each process's own share."""
        if self.size > 1:
            for buffer in network.buffers():
                dist.broadcast(buffer, 0)

    def barrier(self) -> None:
        """Wait for all processes."""
        if self.size > 1:
            dist.barrier()

    @contextlib.contextmanager
    def first_before_others(self) -> Iterator[None]:
        """Let rank 0 go through a block before the others enter it."""
        if self.rank != 0:
            self.barrier()
        try:
            yield
        finally:  # after an error too: the others then meet the same one, instead of a process that is gone
            if self.rank == 0:
                self.barrier()


def find_device(name: str, local_rank: int = 0) -> torch.device:
    """Return the device that a name means ("auto" takes a GPU if there is one), or raise UsageError."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    kind, colon, number = name.partition(":")
    if kind not in ("cpu", "cuda") or (colon and not (kind == "cuda" and number.isascii() and number.isdigit())):
        raise UsageError(f"device is {name!r}, expected auto, cpu, cuda or cuda:N")
    if kind == "cpu":
        return torch.device("cpu")
    index, count = int(number) if colon else local_rank, torch.cuda.device_count()
    if index >= count:
        raise UsageError(f"device is {name!r} number {index}, but PyTorch finds {count} CUDA devices")
    return torch.device("cuda", index)


def use_threads(count: int) -> None:
    """Compute on that many processor threads, at least 1."""
    torch.set_num_threads(count)


def _from_environment(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    try:
        return int(text)
    except ValueError:
        raise UsageError(f"{name} is {text!r} in the environment, expected a whole number") from None


@contextlib.contextmanager
def world(device: str = "auto") -> Iterator[World]:
    """Join the run's other processes, if any, and yield the World.

    Raises UsageError for a device that is not there, and TrainingError, on the surviving processes, when a process
    dies. What goes wrong in the same way in all processes is raised in one; the others leave by SystemExit.
    """
    size, rank = _from_environment("WORLD_SIZE", 1), _from_environment("RANK", 0)
    where = find_device(device, _from_environment("LOCAL_RANK", 0))
    if where.type == "cuda":
        torch.cuda.set_device(where)
    if size == 1:
        yield World(0, 1, where)
        return
    try:
        store, rank, size = next(iter(dist.rendezvous("env://")))
        dist.init_process_group(
            "nccl" if where.type == "cuda" else "gloo",
            store=store,
            rank=rank,
            world_size=size,
            device_id=where if where.type == "cuda" else None,
        )
    except (RuntimeError, ValueError) as error:  # nobody there, or torchrun's variables are missing
        raise TrainingError(f"process {rank} of {size}: cannot reach the others: {_first_line(error)}") from None
    try:
        with _end_on_sigterm(rank, size):
            yield World(rank, size, where)
    except BitwrenError as error:
        if not _first_to_say(store, str(error)):
            raise SystemExit(error.exit_status) from None
        raise
    except RuntimeError as error:  # gloo and nccl report a lost connection as a plain RuntimeError
        if "connect" not in str(error).lower() and not isinstance(error, dist.DistError):
            raise
        if not _first_to_say(store, "died"):
            raise SystemExit(TrainingError.exit_status) from None
        raise TrainingError(
            f"process {rank} of {size}: another process of this run died ({_first_line(error)}); "
            "start again with --resume to go on from the last checkpoint"
        ) from None
    finally:
        with contextlib.suppress(Exception):  # after a death the group may be unable to close
            dist.destroy_process_group()


def _first_line(error: Exception) -> str:
    line = str(error).strip().partition("\n")[0]
    return re.sub(r"^\[[^]]*\] *", "", line).partition(". ")[0][:160]  # "[pair.cc:537] Read error ... by peer. This is"


def _first_to_say(store: dist.Store, what: str) -> bool:
    """Return whether no other process of this run has asked the same before; True where they cannot be asked."""
    try:
        return store.add(f"bitwren/{os.environ.get('TORCHELASTIC_RESTART_COUNT')}/{what}", 1) == 1
    except RuntimeError:
        return True


@contextlib.contextmanager
def _end_on_sigterm(rank: int, size: int) -> Iterator[None]:
    """Say why and leave when SIGTERM comes: with it `torchrun` ends the others when one process has died.

    This one may be waiting for the dead one inside a collective operation, where Python's own handlers never run; so
    a thread reads the signal, and gives this process GRACE seconds to find out for itself what happened.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    left = threading.Event()

    def wait() -> None:
        while (number := os.read(reading, 1)) not in (b"", bytes([signal.SIGTERM])):
            pass
        if number and not left.wait(GRACE):
            print(
                f"bitwren: process {rank} of {size}: stopped by SIGTERM, as when another process of this run died; "
                "start again with --resume to go on from the last checkpoint",
                file=sys.stderr,
                flush=True,
            )
            os._exit(TrainingError.exit_status)

    before = signal.signal(signal.SIGTERM, lambda *_: None)  # a handler of Python's, so that the pipe hears of it
    wakeup = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    try:
        yield
    finally:
        left.set()
        signal.set_wakeup_fd(wakeup)
        signal.signal(signal.SIGTERM, before)
        os.close(writing)
        thread.join()
        os.close(reading)
