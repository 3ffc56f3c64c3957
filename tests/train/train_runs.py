"""Tiny training runs, and processes that can be killed without importing PyTorch anew (seconds) for each.

Run as a program, this file imports everything once and forks children for each line on its standard input; a child is
like `python -m bitwren WORDS`, and can be told at which moment it shall end by SIGKILL.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

# The smallest network, 6 steps of 10 an epoch; augmentation so that the randomness counts.
TINY = (
    "data.image_size=[8,8]",
    "network.depth=8",
    "network.width=0.25",
    "train.batch=10",
    "train.learning_rate=0.1",
    "augment.shift=1",
    "augment.flip=true",
    "data.validation=12",
)


def train(pictures: Path, *settings: str) -> list:
    """Return the words that train on a folder of pictures with these settings."""
    return ["train", "folder", "--data-dir", pictures, *(word for s in settings for word in ("--set", s))]


def losing(mapping: dict, key: str) -> None:
    """Take an entry out of a mapping, which must have it."""
    del mapping[key]


def contents(run: Path) -> dict:
    """Return all that a run folder says of the run's outcome: every tensor's bytes, the state, the metrics, the result.

    Not how long it took, and not how it was called.
    """
    from safetensors import safe_open

    found = {"files": sorted(path.name for path in run.iterdir())}
    for name in ("best.safetensors", "last.safetensors"):
        with safe_open(run / name, "pt") as file:
            state = json.loads(file.metadata()["bitwren"])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
        state.pop("seconds", None)
        state.pop("metrics_bytes", None)  # the seconds are in the metrics
        found[name] = state, {k: (str(t.dtype), tuple(t.shape), t.numpy().tobytes()) for k, t in tensors.items()}
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    found["metrics"] = [{k: v for k, v in line.items() if k != "seconds"} for line in lines]
    found["result"] = json.loads((run / "result.json").read_text())
    return found


class Launcher:
    """The tests' side: `run(words, ...)` returns when that process, or those processes, have ended."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.server = subprocess.Popen(
            [sys.executable, __file__, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, *words, **how) -> subprocess.CompletedProcess:
        """Run one process to its end; returncode is -9 where SIGKILL ended it. how: see _child and _serve."""
        return self.run_together(1, *words, **how)[0]

    def run_together(self, processes: int, *words, **how) -> list[subprocess.CompletedProcess]:
        """Run the processes of one distributed run to their ends, by rank."""
        request = {"words": [str(w) for w in words], "processes": processes, **how}
        self.server.stdin.write(json.dumps(request) + "\n")
        self.server.stdin.flush()
        statuses = json.loads(self.server.stdout.readline())
        return [
            subprocess.CompletedProcess(words, status, *(self._output(rank, n).read_text() for n in (1, 2)))
            for rank, status in enumerate(statuses)
        ]

    def _output(self, rank: int, number: int) -> Path:
        return self.folder / f"{rank}.{number}"

    def close(self):
        self.server.stdin.close()
        self.server.wait(30)
        self.server.stdout.close()


def _die(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def _child(words, signal_at_step=None, kill_at_write=None, checkpoint_seconds=None, log_writes=False):
    """Run the command line. Arrange first for one of:

    signal_at_step: [number, step], a signal that comes during the step, counted from the start of this process.
    kill_at_write: [count, point], end in the count-th replacement of a file (from 0): "half" its bytes written, all of
        them but the file not yet in "place", or "after" it.
    log_writes: say "wrote NAME" on standard error for each file replaced.
    checkpoint_seconds: at least that long between checkpoints within an epoch.
    """
    from bitwren.cli import main
    from bitwren.commands import training
    from bitwren.train import loop

    training._draw_curve = lambda run: None  # two thirds of the time of a tiny run, and not what is tested here
    if checkpoint_seconds is not None:
        loop.CHECKPOINT_SECONDS = checkpoint_seconds
    if signal_at_step:
        number, step = signal_at_step
        make, steps = loop.make_optimiser, iter(range(10**9))

        def make_optimiser(*arguments):
            optimiser = make(*arguments)
            optimiser.register_step_pre_hook(lambda *_: os.kill(os.getpid(), number) if next(steps) == step else None)
            return optimiser

        loop.make_optimiser = make_optimiser
    if kill_at_write:
        count, point = kill_at_write
        seen, replace = iter(range(10**9)), os.replace

        def killing_replace(source, target):
            last = next(seen) == count
            if last and point == "half":
                os.truncate(source, os.path.getsize(source) // 2)
            if last and point != "after":
                _die()
            replace(source, target)
            if last:
                _die()

        os.replace = killing_replace
    if log_writes:
        move = os.replace

        def logging_replace(source, target):
            print(f"wrote {Path(target).name}", file=sys.stderr)
            move(source, target)

        os.replace = logging_replace
    return main(words)


def _serve(folder: Path):
    """Run the requests on standard input, and answer each with the list of its processes' exit statuses.

    processes: more than one is as under torchrun. kill_after: seconds until SIGKILL, wherever the processes then are.
    """
    import torch._dynamo  # every optimiser imports it
    import torch.utils.tensorboard  # noqa: F401
    from torch.distributed import TCPStore

    import bitwren.train.start  # noqa: F401

    for line in sys.stdin:
        request = json.loads(line)
        kill_after, processes = request.pop("kill_after", None), request.pop("processes")
        if processes > 1:  # torchrun keeps the store that outlives its workers
            store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        children = []
        for rank in range(processes):
            children.append(os.fork())
            if children[-1] == 0:
                if processes > 1:
                    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
                    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port)}
                    os.environ |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0"}
                _output_and_exit(folder, rank, request)
        if kill_after is not None:
            time.sleep(kill_after)
            for child in children:
                os.kill(child, signal.SIGKILL)  # a child that has ended keeps its id until it is waited for
        print([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children], flush=True)


def _output_and_exit(folder: Path, rank: int, request: dict):
    for number in (1, 2):
        os.dup2(os.open(folder / f"{rank}.{number}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
    status = 70
    try:
        status = _child(**request)
    except SystemExit as error:
        status = error.code
    except BaseException:
        sys.excepthook(*sys.exc_info())
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    _serve(Path(sys.argv[1]))
