"""A run that is killed, at any moment, and resumed ends exactly like a run that was never stopped."""

import json
import random
import signal

import pytest
from safetensors import safe_open
from train_runs import TINY, contents, train

NETWORKS = {
    "srelu": ("network.activation='srelu'", "network.layer_scale='pow2'"),
    "bn": (
        "network.activation='bn'",
        "network.bn_affine=true",
        "train.reestimate_bn=true",
        "train.schedule='restarts'",
        "train.first_cycle=1",
    ),
}
EPOCHS = 3


@pytest.fixture(scope="module", params=NETWORKS)
def network(request):
    return request.param


@pytest.fixture(scope="module")
def command(network, photos):
    """The words of a training command, without --out."""
    return train(photos, *TINY, f"train.epochs={EPOCHS}", *NETWORKS[network])


@pytest.fixture(scope="module")
def whole(command, launcher, tmp_path_factory):
    """A run never stopped."""
    out = tmp_path_factory.mktemp("whole") / "run"
    ended = launcher.run(*command, "--out", out)
    assert ended.returncode == 0, ended.stderr
    return out


def resume_to_the_end(launcher, command, out):
    """Resume once; return what the process gave."""
    ended = launcher.run(*command, "--out", out, "--resume")
    assert ended.returncode == 0, ended.stderr
    return ended


def test_same_command_same_run(launcher, command, whole, tmp_path):
    assert launcher.run(*command, "--out", tmp_path / "again").returncode == 0
    assert contents(tmp_path / "again") == contents(whole)


# 1 is recipe.toml, then come best and last of the first epoch, and of the second (best only where it is).
@pytest.mark.parametrize(
    ("count", "point"),
    [(1, "half"), (1, "after"), (2, "half"), (3, "half"), (3, "place"), (3, "after"), (4, "place"), (5, "half")],
)
def test_killed_while_writing_a_file(launcher, command, whole, tmp_path, count, point):
    out = tmp_path / "run"
    assert launcher.run(*command, "--out", out, kill_at_write=[count, point]).returncode == -signal.SIGKILL
    resume_to_the_end(launcher, command, out)
    assert contents(out) == contents(whole)
    assert not list(out.glob("*.partial"))


def test_killed_at_random_moments_again_and_again(launcher, command, whole, tmp_path, seed):
    out, generator = tmp_path / "run", random.Random(seed)
    # Half the steps end with a checkpoint, so that many of the moments lie inside one.
    kills, ended = 0, None
    while ended is None or ended.returncode != 0:
        how = {"kill_after": generator.uniform(0.02, 0.7)} if kills < 6 else {}
        ended = launcher.run(*command, "--out", out, "--resume", checkpoint_seconds=0.01, **how)
        assert ended.returncode in (0, -signal.SIGKILL), ended.stderr
        kills += ended.returncode != 0
    assert contents(out) == contents(whole)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("step", [3, 5])  # an epoch has 6
def test_a_signal_finishes_the_step_and_saves(launcher, command, whole, tmp_path, name, step):
    out = tmp_path / "run"
    ended = launcher.run(*command, "--out", out, "--quiet", signal_at_step=[getattr(signal, name), 6 + step])
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == f"bitwren: stopped by {name}; everything is saved, go on with --resume\n"
    with safe_open(out / "last.safetensors", "pt") as file:
        state = json.loads(file.metadata()["bitwren"])
    assert (state["epoch"], state["step"]) in ((1, step + 1), (2, 0))
    resume_to_the_end(launcher, command, out)
    assert contents(out) == contents(whole)
