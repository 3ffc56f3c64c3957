"""A run that learns a trained network's answers too."""

import json
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from train_runs import TINY, contents, train

from bitwren.deploy.model import softmax
from bitwren.errors import CheckpointError, UsageError
from bitwren.pictures import Pictures, read_picture
from bitwren.train.batches import Files
from bitwren.train.checkpoint import save_tensors
from bitwren.train.distil import Teacher, ask, distillation_loss, load_answers, save_answers
from bitwren.train.distributed import World

ALONE = World(0, 1, torch.device("cpu"))
TAUGHT = (*TINY, "train.epochs=2", "train.distil=0.5", "network.layer_scale='pow2'")


def kullback_leibler(logits, answers, temperature):
    """Return the definition of the loss, in NumPy."""
    p, q = softmax(answers / temperature), softmax(logits / temperature)
    return temperature**2 * (p * (np.log(p) - np.log(q))).sum(1).mean()


@settings(max_examples=60)
@given(st.integers(1, 9), st.integers(1, 12), st.floats(0.5, 20), st.integers(0, 2**32 - 1))
def test_the_loss_is_the_divergence_from_the_teacher(count, classes, temperature, seed):
    generator = np.random.default_rng(seed)
    logits, answers = generator.normal(0, 3, (2, count, classes))
    loss = distillation_loss(torch.from_numpy(logits), torch.from_numpy(answers), temperature)
    # float64: sums of at most 12 terms below 1e3.
    assert float(loss) == pytest.approx(kullback_leibler(logits, answers, temperature), rel=1e-9, abs=1e-10)
    assert float(distillation_loss(torch.from_numpy(answers + 5), torch.from_numpy(answers), temperature)) < 1e-10


def test_gradients_keep_their_size_at_a_high_temperature():
    logits, answers = torch.zeros(1, 4, dtype=torch.float64, requires_grad=True), torch.tensor([[4.0, 0, 0, 0]])
    distillation_loss(logits, answers, 1e4).backward()
    # softmax is then 1/4 + (z - mean z) / (4 T): the gradient is the distance of the centred logits over 4.
    assert logits.grad.numpy() == pytest.approx(np.array([[-3, 1, 1, 1]]) / 4, rel=1e-3)


def test_ask_keeps_the_order_of_pictures_in_memory_and_in_files(photos, seed):
    def sums(pictures):  # whole numbers, other ones for each picture
        return np.stack([pictures.sum((1, 2, 3)), pictures[:, 0].sum((1, 2))], 1)

    paths = sorted(photos.rglob("*.png"))[:7]
    files = Files(tuple(paths), np.zeros(len(paths), np.int64), (8, 8), 3)
    teacher = Teacher("some.bwn", "0" * 64, ("a", "b"), 3, (8, 8), sums)
    found = ask(teacher, files, ALONE, 0, False)
    assert found.dtype == torch.float32 and found.shape == (7, 2)
    images = np.stack([read_picture(path, (8, 8), 3) for path in paths])
    assert np.array_equal(found.numpy(), sums(images))
    images = np.random.default_rng(seed).integers(0, 256, (1203, 3, 8, 8), np.uint8)  # more than two readings
    found = ask(teacher, Pictures(images, np.zeros(1203, np.int64), ("a", "b")), ALONE, 0, False)
    assert np.array_equal(found.numpy(), sums(images))


class Apart(World):
    """One of several processes, that does not meet the others."""

    def sum(self, values):
        return values


@pytest.mark.parametrize("count", [1, 2, 1203])
def test_each_process_asks_for_its_share(count, seed):
    images = np.random.default_rng(seed).integers(0, 256, (count, 1, 2, 2), np.uint8)
    pictures = Pictures(images, np.zeros(count, np.int64), ("a", "b"))
    asked = []

    def answer(some):
        asked.append(len(some))
        return some.reshape(len(some), 4)[:, :2] + 1.0

    teacher = Teacher("some.bwn", "0" * 64, ("a", "b"), 1, (2, 2), answer)
    parts = torch.stack([ask(teacher, pictures, Apart(rank, 3, torch.device("cpu")), 0, False) for rank in range(3)])
    assert sum(asked) == count and ((parts != 0).sum(0) == 1).all()
    assert torch.equal(parts.sum(0), ask(teacher, pictures, ALONE, 0, False))


@pytest.mark.parametrize(
    ("pictures", "named"),
    [
        ((("a", "c"), 3, (8, 8)), "teacher some.bwn: a class 'b', expected 'c' as in the run's pictures"),
        ((("b", "a"), 3, (8, 8)), "a class 'a', expected 'b'"),
        ((("a", "b", "c"), 3, (8, 8)), "classes 2, expected 3"),
        ((("a", "b"), 1, (8, 8)), "teacher some.bwn: channels 3, expected 1"),
        ((("a", "b"), 3, (9, 8)), "teacher some.bwn: height and width 8 x 8, expected 9 x 8"),
    ],
)
def test_a_teacher_of_other_pictures_is_refused(pictures, named):
    teacher = Teacher("some.bwn", "0" * 64, ("a", "b"), 3, (8, 8), np.asarray)
    teacher.check(("a", "b"), 3, (8, 8))
    with pytest.raises(UsageError, match=named):
        teacher.check(*pictures)


@pytest.mark.parametrize(
    ("tensors", "named"),
    [
        ({}, "no answers, expected"),
        ({"answers": torch.zeros(4, 3)}, r"answers \(4, 3\) torch.float32, expected \(5, 3\)"),
        ({"answers": torch.zeros(5, 3, dtype=torch.float64)}, "torch.float64, expected"),
        ({"answers": torch.full((5, 3), torch.nan)}, "not finite"),
    ],
)
def test_answers_that_are_not_of_this_run_are_refused(tensors, named, tmp_path):
    path = tmp_path / "teacher.safetensors"
    save_tensors(path, tensors, {})
    with pytest.raises(CheckpointError, match=named):
        load_answers(path, 5, 3)
    save_answers(path, torch.ones(5, 3))
    assert torch.equal(load_answers(path, 5, 3), torch.ones(5, 3))


def test_the_answers_are_a_part_of_the_loss(photos, launcher, model, tmp_path):
    """With the whole loss the teacher's, and the teacher's own signs at a standstill, what is left is rounding."""
    still = ("train.epochs=1", "train.learning_rate=0", "train.final_learning_rate=0", "augment.shift=0")
    words = train(photos, *TINY, "network.layer_scale='pow2'", *still, "train.distil=1", "augment.flip=false")
    ended = launcher.run(*words, "--from", model, "--teacher", model, "--out", tmp_path / "run")
    assert ended.returncode == 0, ended.stderr
    other = launcher.run(*words, "--teacher", model, "--out", tmp_path / "other")
    assert other.returncode == 0, other.stderr
    same, new = (
        json.loads((tmp_path / name / "metrics.jsonl").read_text())["train_loss"] for name in ("run", "other")
    )
    assert 0 <= same < new / 10


def test_a_taught_run_resumes_bit_for_bit(photos, launcher, model, tmp_path):
    words = [*train(photos, *TAUGHT), "--teacher", model]
    ended = launcher.run(*words, "--out", tmp_path / "whole", log_writes=True)
    assert ended.returncode == 0, ended.stderr
    wrote = [line.split()[1] for line in ended.stderr.splitlines() if line.startswith("wrote ")]
    answers = wrote.index("teacher.safetensors")
    about = json.loads((tmp_path / "whole" / "run.json").read_text())
    assert about["teacher"]["model"] == str(model) and len(about["teacher"]["sha256"]) == 64
    plain = launcher.run(*train(photos, *TAUGHT, "train.distil=0"), "--out", tmp_path / "plain")
    assert plain.returncode == 0, plain.stderr
    assert contents(tmp_path / "plain")["metrics"] != contents(tmp_path / "whole")["metrics"]

    # Killed before its teacher's answers are there, it needs the teacher; after that, no more.
    assert launcher.run(*words, "--out", tmp_path / "cut", kill_at_write=[answers, "half"]).returncode == -9
    without = launcher.run("train", "--resume", "--out", tmp_path / "cut")
    assert without.returncode == 2 and f"give its --teacher {model} again" in without.stderr
    assert len(without.stderr.splitlines()) == 1
    assert launcher.run(*words, "--resume", "--out", tmp_path / "cut", signal_at_step=[15, 3]).returncode != 0
    ended = launcher.run("train", "--resume", "--out", tmp_path / "cut")
    assert ended.returncode == 0, ended.stderr
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")

    about.pop("teacher")
    shutil.copytree(tmp_path / "whole", tmp_path / "broken")
    (tmp_path / "broken" / "run.json").write_text(json.dumps(about))
    refused = launcher.run("train", "--resume", "--out", tmp_path / "broken")
    assert refused.returncode == 2 and "no teacher is given by --teacher, and train.distil is 0.5" in refused.stderr
    refused = launcher.run(*train(photos, *TAUGHT), "--teacher", "digits", "--resume", "--out", tmp_path / "whole")
    assert refused.returncode == 2 and f"its --teacher is {model}" in refused.stderr


def test_two_processes_learn_the_same_answers(photos, launcher, model, tmp_path):
    words = [*train(photos, *TAUGHT, "train.epochs=1"), "--teacher", model, "--device", "cpu"]
    for ended in launcher.run_together(2, *words, "--out", tmp_path / "two"):
        assert ended.returncode == 0, ended.stderr
    assert launcher.run(*words, "--out", tmp_path / "one").returncode == 0
    one, two = ((tmp_path / name / "teacher.safetensors").read_bytes() for name in ("one", "two"))
    assert one == two


@pytest.mark.parametrize(
    ("given", "settings", "named"),
    [
        (True, (), "and train.distil is 0, expected above 0: the share of the loss that its answers have"),
        (False, ("train.distil=0.5",), "no teacher is given by --teacher, and train.distil is 0.5, expected 0"),
        (True, ("train.distil=1.5",), "train.distil is 1.5, expected 0 to 1"),
        (True, ("train.distil=0.5", "data.image_size=[9,9]"), "height and width 8 x 8, expected 9 x 9"),
    ],
)
def test_a_teacher_and_its_share_come_together(given, settings, named, photos, launcher, model, tmp_path):
    words = train(photos, *TINY, *settings)
    ended = launcher.run(*words, *(["--teacher", model] if given else []), "--out", tmp_path / "run")
    assert ended.returncode == 2 and named in ended.stderr and len(ended.stderr.splitlines()) == 1
    assert not (tmp_path / "run").exists()
