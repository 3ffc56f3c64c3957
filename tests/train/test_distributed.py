"""Two processes on the processor: the same weights as one, one that writes, and a death that is noticed.

The launcher forks what torchrun would start (importing PyTorch costs seconds); the last test uses torchrun itself.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from train_runs import TINY, contents, train

import bitwren
from bitwren.errors import UsageError
from bitwren.train.distributed import World, find_device

EPOCHS, STEPS, BATCH = 3, 6, 10
SRELU = ("train.precision='fp64'", "network.width=0.5", f"train.epochs={EPOCHS}")
BATCH_NORM = (*SRELU, "network.activation='bn'", "train.reestimate_bn=true")
WIDE = ("network.width=2", "train.batch=12", "train.epochs=3")


def succeed(ended):
    for process in ended:
        assert process.returncode == 0, process.stderr
    return ended


@pytest.fixture(scope="module")
def runs(launcher, photos, tmp_path_factory):
    """A function that returns the folder of a run with these settings, by so many processes; each is made once."""
    made = {}

    def run(processes, settings):
        key = processes, settings
        if key not in made:
            made[key] = tmp_path_factory.mktemp("runs") / "run"
            words = (*train(photos, *TINY, *settings), "--out", made[key])
            succeed(launcher.run_together(processes, *words))
        return made[key]

    return run


def test_two_processes_train_the_weights_of_one(runs):
    """With shifted ReLU no picture depends on another, so only the order of floating-point sums may differ.

    One process sums a weight's gradient over N = 10 pictures x up to 64 pixels, two processes over 5 x 64 each and then
    the two halves. Two orders of summing n terms differ by at most 2 n eps sum |terms|, eps = 2^-53 (Higham, Accuracy
    and Stability, 4.2). Along the way forward and back the sums are the same ones for every picture, except that the
    libraries may block them otherwise for 5 pictures than for 10: at most n = 9 x 32 = 288 terms in each of the 8
    convolutions, twice. So a gradient's relative error, to sum |terms|, is at most 2 eps (640 + 2 x 8 x 288) < 1.2e-12.
    sum |terms| is at most kappa times the largest gradient of the tensor; kappa <= 100 is generous for terms that
    cancel as pictures of three classes do. Momentum 0.9 sums the errors of steps to at most 10 times, over 18 steps at
    a rate of at most 0.1: 18 x 0.1 x 10 x 1.2e-12 x 100 = 2.2e-9 times the largest gradient, which is below 1 here
    (the logits are divided by the temperature). The bound holds as long as no sign of a latent weight differs, which
    would change the network: so no latent weight may come within the bound of 0.
    """
    bound = 2.2e-9
    one, two = (load_file(runs(n, SRELU) / "last.safetensors") for n in (1, 2))
    assert one.keys() == two.keys()
    latent = torch.cat([t.flatten() for name, t in one.items() if name.startswith("network.") and t.dim() == 4])
    assert latent.abs().min() > 100 * bound
    for name, tensor in one.items():
        assert tensor.dtype == torch.float64
        assert (tensor - two[name]).abs().max() <= bound, name
    assert any(not torch.equal(one[name], two[name]) for name in one)  # they did compute it in different ways
    first, second = (json.loads((runs(n, SRELU) / "result.json").read_text()) for n in (1, 2))
    assert first.pop("test_loss") == pytest.approx(second.pop("test_loss"), rel=1e-6)
    assert first == second


def test_batch_norm_is_the_exception(runs):
    """Each process normalises by the moments of its own half of the batch: that is another function."""
    one, two = (load_file(runs(n, BATCH_NORM) / "last.safetensors") for n in (1, 2))
    assert max((one[name] - two[name]).abs().max() for name in one) > 1e-3
    # But what is re-estimated is the mean over all processes: of the pixels themselves it is the same.
    one, two = (load_file(runs(n, BATCH_NORM) / "best.safetensors")["network.input.running_mean"] for n in (1, 2))
    assert (one - two).abs().max() < 1e-9


@pytest.mark.parametrize(("processes", "settings"), [(2, BATCH_NORM), (3, WIDE)])
def test_resumed_by_as_many_processes_it_ends_alike(launcher, photos, runs, tmp_path, processes, settings):
    """Rank 0 is killed while it writes the checkpoint of epoch 2; the others find out, and one says so.

    Of three processes the order in which a gradient is summed depends on how gradients are grouped for sending, which
    PyTorch changes after the first step of a wrapped network.
    """
    words = (*train(photos, *TINY, *settings), "--out", tmp_path / "run")
    first, *others = launcher.run_together(processes, *words, kill_at_write=[5, "place"])
    assert first.returncode == -signal.SIGKILL
    assert {other.returncode for other in others} == {1}
    line = r"bitwren: process \d of \d: another process of this run died \([^\n]*\); start again with --resume [^\n]*\n"
    said = "".join(other.stderr for other in others)
    assert re.fullmatch(line, said), said
    first, *_ = succeed(launcher.run_together(processes, *words, "--resume"))
    assert first.stdout.startswith("accuracy   ")
    assert contents(tmp_path / "run") == contents(runs(processes, settings))


def test_one_process_writes_and_prints(launcher, photos, tmp_path):
    words = (*train(photos, *TINY, *SRELU), "--out", tmp_path / "run")
    first, second = succeed(launcher.run_together(2, *words, log_writes=True))
    assert (second.stdout, second.stderr) == ("", "")
    assert first.stdout.count("accuracy") == 1
    assert first.stderr.count("wrote last.safetensors") == EPOCHS
    assert json.loads((tmp_path / "run" / "run.json").read_text())["processes"] == 2
    assert len(list((tmp_path / "run" / "tensorboard").iterdir())) == 1


@pytest.mark.parametrize(
    ("setting", "line"),
    [
        ("train.batch=11", "train.batch is 11, expected a multiple of the 2 processes"),
        ("network.depth=9", "depth is 9, expected 6n + 2: 8, 14, 20, 26, ..."),
    ],
)
def test_what_all_processes_refuse_is_said_once(launcher, photos, tmp_path, setting, line):
    words = (*train(photos, *TINY, setting), "--out", tmp_path / "run")
    ended = launcher.run_together(2, *words)
    assert [p.returncode for p in ended] == [2, 2]
    assert "".join(p.stderr for p in ended) == f"bitwren: {line}\n"
    assert not (tmp_path / "run").exists()


def test_missing_pictures_are_said_once(launcher, tmp_path):
    ended = launcher.run_together(2, *train(tmp_path / "none", *TINY), "--out", tmp_path / "run")
    assert [p.returncode for p in ended] == [1, 1]
    assert "".join(p.stderr for p in ended).count("\n") == 1


def test_a_checkpoint_of_one_process_is_resumed_by_two(launcher, photos, runs, tmp_path):
    """Also within an epoch: the sums so far are counted once."""
    words = (*train(photos, *TINY, *SRELU), "--out", tmp_path / "run")
    stopped = launcher.run(*words, signal_at_step=[signal.SIGTERM, STEPS + 2])
    assert stopped.returncode == 1
    succeed(launcher.run_together(2, *words, "--resume"))
    ours, whole = (
        [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for folder in (tmp_path / "run", runs(1, SRELU))
    )
    for one, other in zip(ours, whole, strict=True):
        assert one["train_loss"] == pytest.approx(other["train_loss"], rel=1e-6)
        assert one["train_accuracy"] == other["train_accuracy"]


def test_each_process_takes_its_share():
    shares = [World(rank, 4, torch.device("cpu")).share(12) for rank in range(4)]
    assert [i for share in shares for i in range(12)[share]] == list(range(12))


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "cpu:0", "cuda:", "cuda:99", "cuda:-1", "", "cuda:1:2"])
def test_devices_that_are_not_there(name):
    with pytest.raises(UsageError, match=r"^device is "):
        find_device(name)


def children_of(number):
    return [int(n) for n in Path(f"/proc/{number}/task/{number}/children").read_text().split()]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the workers in /proc")
def test_torchrun_and_a_worker_that_is_killed(photos, tmp_path):
    """The other worker says so in one line; torchrun itself ends, with a report of its own, within seconds."""
    words = train(photos, *TINY, "train.epochs=100000")
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    process = subprocess.Popen(
        [sys.executable, *torchrun, "-m", "bitwren", *map(str, words), "--quiet", "--out", str(tmp_path / "run")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (tmp_path / "run" / "last.safetensors").exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    # A worker says in its environment which one it is.
    workers = {rank: n for n in children_of(process.pid) for rank in "01" if f"\0RANK={rank}\0" in environment(n)}
    os.kill(workers["1"], signal.SIGKILL)
    output, errors = process.communicate(timeout=120)
    assert process.returncode != 0
    assert output == ""
    ours = [line for line in errors.splitlines() if line.startswith("bitwren: ")]
    assert len(ours) == 1, errors
    assert ours[0].startswith("bitwren: process 0 of 2: ")
    assert "another process of this run died" in ours[0]
    # The only traceback is torchrun's own. By the package's folder: a clone's may be called bitwren too.
    assert f'File "{Path(bitwren.__file__).parent}' not in errors, errors
    shutil.rmtree(tmp_path / "run")


def environment(number):
    try:
        return Path(f"/proc/{number}/environ").read_bytes().decode(errors="replace")
    except OSError:  # it has ended
        return ""
