"""A run that starts from the signs of a trained network."""

import json
import math
import shutil

import numpy as np
import pytest
import torch
from train_runs import TINY, contents, train

from bitwren.errors import UsageError
from bitwren.network.graph import Conv
from bitwren.network.pack import read_bwn
from bitwren.train import WideResNet
from bitwren.train.inherit import Signs, take_signs

START = ("train.epochs=2", "train.learning_rate=0.02")


def random_signs(network, seed):
    """Return signs for every convolution of a network, in the layout of a .bwn file."""
    generator = np.random.default_rng(seed)
    shapes = [p.shape for p in network.parameters() if p.dim() == 4]
    weights = tuple(generator.choice([-1, 1], (o, f, f, c)).astype(np.int8) for o, c, f, _ in shapes)
    return Signs("some.bwn", "0" * 64, weights)


@pytest.mark.parametrize("options", [{}, {"signs": "balanced"}, {"skip": False}, {"activation": "bn"}])
def test_the_signs_are_taken_over_and_all_weights_are_as_far_from_zero_as_new_ones_on_average(options, seed):
    network = WideResNet(depth=8, width=0.5, num_classes=3, **options)
    signs = random_signs(network, seed)
    take_signs(network, signs)
    convolutions = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d)]
    assert len(convolutions) == 8
    gain = math.sqrt(2) if options.get("skip", True) else 2
    for conv, weights in zip(convolutions, signs.weights, strict=True):
        expected = weights.transpose(0, 3, 1, 2)
        assert np.array_equal(np.sign(conv.effective_weight().detach().numpy()), expected)
        mean = gain / math.sqrt(weights[0].size) * math.sqrt(2 / math.pi)
        assert np.allclose(conv.weight.detach().numpy(), mean * expected, rtol=1e-6, atol=0)


def test_a_head_for_other_classes_stays_new(seed):
    network, other = (WideResNet(depth=8, width=0.5, num_classes=n) for n in (3, 4))
    head = network.head.weight.detach().clone()
    signs = random_signs(other, seed)
    take_signs(network, signs)
    assert torch.equal(network.head.weight, head)
    assert np.array_equal(np.sign(network.stem.weight.detach().numpy()), signs.weights[0].transpose(0, 3, 1, 2))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"depth": 14}, "some.bwn: 8 convolutions, expected 14 as in the recipe"),
        ({"width": 1}, "some.bwn: convolution 1 has 8 x 3 x 3 x 3 weights, expected 16 x 3 x 3 x 3 as in the recipe"),
        ({"channels": 1}, "some.bwn: convolution 1 has 8 x 3 x 3 x 3 weights, expected 8 x 3 x 3 x 1 as in the recipe"),
        ({"weight_bits": 32}, "network.weight_bits is 32, expected 1"),
    ],
)
def test_other_networks_are_refused(options, named, seed):
    signs = random_signs(WideResNet(depth=8, width=0.5, num_classes=3), seed)
    with pytest.raises(UsageError, match=named):
        take_signs(WideResNet(**{"depth": 8, "width": 0.5, "num_classes": 3, **options}), signs)


def test_a_run_starts_from_the_signs_of_a_file(photos, launcher, model, tmp_path):
    # So small a rate moves no weight past zero: what comes out are the signs that went in.
    still = train(photos, *TINY, "train.epochs=1", "train.learning_rate=1e-9", "train.final_learning_rate=1e-9")
    ended = launcher.run(*still, "--from", model, "--out", tmp_path / "run")
    assert ended.returncode == 0, ended.stderr
    assert launcher.run("convert", tmp_path / "run", "-o", tmp_path / "again.bwn").returncode == 0
    old, new = ([n for n in read_bwn(m).nodes if isinstance(n, Conv)] for m in (model, tmp_path / "again.bwn"))
    for a, b in zip(old, new, strict=True):
        assert np.array_equal(a.weights, b.weights)
    about = json.loads((tmp_path / "run" / "run.json").read_text())
    assert about["from"]["model"] == str(model) and len(about["from"]["sha256"]) == 64


def test_a_run_from_a_file_resumes_bit_for_bit(photos, launcher, model, tmp_path):
    words = [*train(photos, *TINY, *START), "--from", model]
    assert launcher.run(*words, "--out", tmp_path / "whole").returncode == 0
    # 1 is recipe.toml: killed right after it, there is no checkpoint, and the file is wanted again.
    assert launcher.run(*words, "--out", tmp_path / "cut", kill_at_write=[1, "after"]).returncode == -9
    without = launcher.run("train", "--resume", "--out", tmp_path / "cut")
    assert without.returncode == 2 and "no last.safetensors yet" in without.stderr and "--from" in without.stderr
    copy = shutil.copy(model, tmp_path / "copy.bwn")  # what counts is what is in the file
    ended = launcher.run(*words[:-1], copy, "--resume", "--out", tmp_path / "cut")
    assert ended.returncode == 0, ended.stderr
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_a_run_is_not_resumed_from_another_file(photos, launcher, model, tmp_path):
    words = train(photos, *TINY, *START)
    assert launcher.run(*words, "--out", tmp_path / "run").returncode == 0
    ended = launcher.run(*words, "--from", model, "--resume", "--out", tmp_path / "run")
    assert ended.returncode == 2
    assert "its --from is none, not" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def test_weights_of_8_bits_are_refused(photos, launcher, tmp_path):
    words = train(photos, *TINY, "train.epochs=1", "network.weight_bits=32")
    assert launcher.run(*words, "--out", tmp_path / "float").returncode == 0
    assert launcher.run("convert", tmp_path / "float", "-o", tmp_path / "float.bwn").returncode == 0
    ended = launcher.run(*train(photos, *TINY), "--from", tmp_path / "float.bwn", "--out", tmp_path / "run")
    assert ended.returncode == 2
    assert ended.stderr == f"bitwren: {tmp_path / 'float.bwn'}: conv1 has weights of 8 bits, expected 1\n"
    assert not (tmp_path / "run").exists()
