"""One process or many: what the training loop needs to know of PyTorch's distributed engine, and nothing more.

Under `torchrun` each process finds its rank and the number of processes in the environment; without it there is one.
Gradients are averaged by DistributedDataParallel; rank 0 alone writes files and prints.
"""

import contextlib
import dataclasses
import os

import torch
import torch.distributed as dist
from torch import Tensor, nn

from bitwren.errors import TrainingError, UsageError


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


def find_device(name: str, local_rank: int = 0) -> torch.device:
    """Return the device that a name means ("auto" takes a GPU if there is one), or raise UsageError."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.partition(":")[0] not in ("cpu", "cuda"):
        raise UsageError(f"device is {name!r}, expected auto, cpu, cuda or cuda:N")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError(f"device is {name!r}, but this PyTorch finds no CUDA device")
    return torch.device(f"cuda:{local_rank}" if name == "cuda" else name)


@contextlib.contextmanager
def world(device: str = "auto"):
    """Join the run's other processes, if any, and yield the World.

    Raises UsageError for a device that is not there, and TrainingError, on the surviving processes, when a process
    dies.
    """
    size, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
    where = find_device(device, int(os.environ.get("LOCAL_RANK", 0)))
    if where.type == "cuda":
        torch.cuda.set_device(where)
    if size == 1:
        yield World(0, 1, where)
        return
    dist.init_process_group("nccl" if where.type == "cuda" else "gloo")
    try:
        yield World(rank, size, where)
    except RuntimeError as error:  # gloo and nccl report a lost connection as a plain RuntimeError
        if "Connection" in str(error) or "connection" in str(error) or isinstance(error, dist.DistError):
            reason = str(error).splitlines()[0][:120]
            raise TrainingError(
                f"process {rank} of {size}: another process of this run died ({reason}); "
                "start again with --resume to go on from the last checkpoint"
            ) from None
        raise
    finally:
        with contextlib.suppress(Exception):  # after a death the group may be unable to close
            dist.destroy_process_group()
