"""What a run folder that is broken, or the wrong one, gives: one line that names the file, and the run untouched."""

import json
import shutil
import struct
import subprocess
import sys

import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from train_runs import TINY, contents, losing, train


@pytest.fixture(scope="module")
def command(photos):
    """The words of a training command, without --out."""
    return train(photos, *TINY, "train.epochs=2")


@pytest.fixture(scope="module")
def whole(command, launcher, tmp_path_factory):
    """A finished run."""
    out = tmp_path_factory.mktemp("whole") / "run"
    ended = launcher.run(*command, "--out", out)
    assert ended.returncode == 0, ended.stderr
    return out


@pytest.fixture
def run(whole, tmp_path):
    """A copy of the finished run that a test may spoil."""
    return shutil.copytree(whole, tmp_path / "run")


def refused(launcher, words, status, *parts):
    """Check that a command ends with one line that has the parts, and return that line."""
    ended = launcher.run(*words)
    assert ended.returncode == status, ended.stderr
    assert ended.stderr.startswith("bitwren: ") and len(ended.stderr.splitlines()) == 1, ended.stderr
    for part in parts:
        assert str(part) in ended.stderr
    return ended.stderr


def test_resuming_a_finished_run_prints_the_result_again(launcher, command, run, whole):
    first = launcher.run(*command, "--out", run, "--resume")
    assert first.returncode == 0, first.stderr
    without_recipe = launcher.run("train", "--resume", "--out", run)
    assert first.stdout == without_recipe.stdout
    assert first.stdout.startswith("accuracy   ")
    assert contents(run) == contents(whole)


def test_a_run_is_not_overwritten(launcher, command, run, whole):
    refused(launcher, [*command, "--out", run], 2, run, "a run is there already", "--resume")
    assert contents(run) == contents(whole)


@pytest.mark.parametrize(
    ("setting", "key"),
    [
        ("train.learning_rate=0.2", "train.learning_rate 0.1, not 0.2"),
        ("network.width=0.5", "network.width 0.25, not 0.5"),
        ("data.channels=1", "data.channels 3, not 1"),
        ("data.image_size=[9,9]", "data.image_size (8, 8), not (9, 9)"),
    ],
)
def test_another_recipe_is_refused(launcher, command, run, whole, setting, key):
    refused(launcher, [*command, "--set", setting, "--out", run, "--resume"], 2, run, key)
    assert contents(run) == contents(whole)


def test_nothing_to_resume(launcher, tmp_path):
    refused(launcher, ["train", "--resume", "--out", tmp_path / "none"], 2, tmp_path / "none", "no run to resume")


def test_other_pictures_are_refused(launcher, command, run, photos, tmp_path):
    fewer = shutil.copytree(photos, tmp_path / "photos")
    (fewer / "test" / "cold" / "00.png").unlink()
    words = ["train", "--resume", "--out", run, "--data-dir", fewer]
    refused(launcher, words, 2, "test_pictures of the data: 23, expected 24")
    shutil.rmtree(fewer / "train" / "cold")
    shutil.rmtree(fewer / "test" / "cold")
    refused(launcher, words, 2, "classes of the data: ['cool', 'warm'], expected ['cold', 'cool', 'warm']")


def spoil_header(path):
    content = path.read_bytes()
    path.write_bytes(struct.pack("<Q", 10**12) + content[8:])


def rewrite(change):
    """Return a function that reads a checkpoint, lets `change(tensors, state)` alter both, and writes it again."""

    def spoil(path):
        tensors = load_file(path)
        with safe_open(path, "pt") as file:
            state = json.loads(file.metadata()["bitwren"])
        change(tensors, state)
        save_file(tensors, path, {"bitwren": json.dumps(state)})

    return spoil


SPOILT = {
    "empty": (lambda path: path.write_bytes(b""), "not a readable checkpoint"),
    "cut in the header": (lambda path: path.write_bytes(path.read_bytes()[:100]), "not a readable checkpoint"),
    "cut at the end": (lambda path: path.write_bytes(path.read_bytes()[:-1]), "not a readable checkpoint"),
    "longer": (lambda path: path.write_bytes(path.read_bytes() + b"\0"), "not a readable checkpoint"),
    "header of a terabyte": (spoil_header, "not a readable checkpoint"),
    "not safetensors": (lambda path: path.write_bytes(b"\x89PNG" * 999), "not a readable checkpoint"),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), "not a readable checkpoint"),
    "foreign": (lambda path: save_file(load_file(path), path), "not one that bitwren wrote"),
    "tensor missing": (rewrite(lambda t, s: losing(t, "network.head.weight")), "'network.head.weight' is missing"),
    "momentum missing": (rewrite(lambda t, s: losing(t, "momentum.head.weight")), "'momentum.head.weight' is missing"),
    "another shape": (
        rewrite(lambda t, s: t.update({"network.head.weight": t["network.head.weight"][:2].clone()})),
        "network.head.weight is (2, 16, 1, 1) torch.float32, expected (3, 16, 1, 1) torch.float32",
    ),
    "another type": (
        rewrite(lambda t, s: t.update({"network.head.weight": t["network.head.weight"].double()})),
        "network.head.weight is (3, 16, 1, 1) torch.float64, expected (3, 16, 1, 1) torch.float32",
    ),
    "a tensor too many": (
        rewrite(lambda t, s: t.update({"network.more": t["network.head.weight"].clone()})),
        "'network.more' is not in this network",
    ),
    "no epoch": (rewrite(lambda t, s: losing(s, "epoch")), "its state is ['best_accuracy', 'best_epoch', 'correct'"),
    "epoch is a text": (rewrite(lambda t, s: s.update(epoch="2")), "its state is"),
    "epoch too far": (rewrite(lambda t, s: s.update(epoch=9)), "stands at epoch 9, step 0, expected at most 2 and 6"),
    "step below zero": (rewrite(lambda t, s: s.update(step=-1)), "stands at epoch 2, step -1, expected at most"),
}


@pytest.mark.parametrize("how", SPOILT)
def test_a_broken_checkpoint_is_refused(launcher, command, run, how):
    spoil, reason = SPOILT[how]
    spoil(run / "last.safetensors")
    refused(launcher, [*command, "--out", run, "--resume"], 1, run / "last.safetensors", reason)


def test_metrics_cut_off_are_refused(launcher, command, run):
    path = run / "metrics.jsonl"
    length = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-1])
    line = refused(launcher, [*command, "--out", run, "--resume"], 1, path)
    assert f"{length - 1} bytes, expected at least {length}" in line
    path.unlink()
    refused(launcher, [*command, "--out", run, "--resume"], 1, path, "0 bytes")


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("recipe.toml", "[train", "not valid TOML"),
        ("recipe.toml", "[train]\nepoch = 3", "did you mean 'train.epochs'?"),
        ("run.json", "", "cannot be read"),
        ("run.json", "[]", "holds a list, expected an object"),
        ("run.json", "{}", "recipe is None, expected a name"),
        ("run.json", '{"recipe": "x", "classes": ["a", 1]}', "classes is ['a', 1], expected a list of names"),
        ("run.json", '{"recipe": "x", "classes": ["a"], "size": [8, 0]}', "size is [8, 0], expected [height, width]"),
        ("run.json", '{"recipe": "x", "classes": ["a"], "size": [8, 7], "channels": 2}', "channels is 2, expected"),
    ],
)
def test_a_broken_run_folder_is_refused(launcher, run, name, content, reason):
    (run / name).write_text(content)
    refused(launcher, ["train", "--resume", "--out", run], 1, run / name, reason)


def test_as_a_command_of_its_own(command, tmp_path):
    """`python -m bitwren`, killed when its first checkpoint is there."""
    words = [sys.executable, "-m", "bitwren", *map(str, command), "--out", str(tmp_path / "run")]
    process = subprocess.Popen([*words, "--set", "train.epochs=100000"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while not (tmp_path / "run" / "last.safetensors").exists():
        assert process.poll() is None, process.stderr.read()
    process.kill()
    process.communicate()
    with safe_open(tmp_path / "run" / "last.safetensors", "pt") as file:
        assert json.loads(file.metadata()["bitwren"])["epoch"] >= 1
    ended = subprocess.run([*words, "--resume"], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, len(ended.stderr.splitlines())) == (2, "", 1)
    assert "was started with train.epochs 100000, not 2" in ended.stderr
