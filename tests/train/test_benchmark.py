import json

import pytest
import torch
from torch import nn

from bitwren.errors import UsageError
from bitwren.train import BinaryConv2d, ShiftedReLU, WideResNet
from bitwren.train.benchmark import (
    BN,
    CASES,
    IN_ONE_PRECISION,
    PLAIN,
    SRELU,
    VARIANTS,
    Case,
    Stepper,
    benchmark_training,
    format_benchmark,
    peak_bytes,
    saved_activation_bytes,
)
from bitwren.train.plain import PlainWideResNet

# Of the two bars on time the first is always reached, the second never.
SMALL = Case(8, 0.25, srelu_to_bn_time=1e9, plain_to_srelu_time=1e9)


@pytest.fixture(scope="module")
def figures():
    return benchmark_training(1, 1, (SMALL,), batch=4, size=8, pictures=9, peaks=False)


# --- structure --------------------------------------------------------------------------------------------------------


def test_the_bars_are_those_promised():
    asked = {c.name: (c.srelu_to_bn_time, c.plain_to_srelu_time, c.srelu_to_bn_memory, c.data_share) for c in CASES}
    assert asked == {"14-0.5": (0.75, 1.4, 0.55, 0.05), "20-1": (0.95, 1.3, 0.55, 0.05)}


def test_figures_survive_json_and_say_what_made_them(figures):
    assert json.loads(json.dumps(figures)) == figures
    assert {"command", "commit", "versions", "processor", "threads"} <= figures["provenance"].keys()
    assert figures["provenance"]["threads"] == 1
    assert figures["settings"]["rounds"] == 1
    (network,) = figures["networks"]
    assert network["network"] == "8-0.25"
    assert list(network["variants"]) == list(VARIANTS) == list(figures["variants"])
    assert network["data"]["samples"] == len(VARIANTS)
    for row in network["variants"].values():
        step = row["step"]
        assert 0 < step["minimum_s"] <= step["lower_quartile_s"] <= step["median_s"] <= step["upper_quartile_s"]
        assert row["saved_activation_bytes"] > 0
        assert row["peak_bytes"] is None


def test_ratios_are_of_the_figures_beside_them(figures):
    network = figures["networks"][0]
    rows = network["variants"]
    step = {variant: rows[variant]["step"]["median_s"] for variant in IN_ONE_PRECISION}
    saved = {variant: rows[variant]["saved_activation_bytes"] for variant in IN_ONE_PRECISION}
    assert [bar["value"] for bar in network["bars"]] == [
        step[SRELU] / step[BN],
        step[PLAIN] / step[SRELU],
        saved[SRELU] / saved[BN],
        network["data"]["median_s"] / step[SRELU],
    ]
    limits = ["at most 1e+09", "at least 1e+09", "at most 0.55", "at most 0.05"]
    assert [bar["bar"] for bar in network["bars"]] == limits
    assert [bar["reached"] for bar in network["bars"]][:3] == [True, False, True]


def test_table_names_every_variant_and_says_reached_or_missed(figures):
    table = format_benchmark(figures)
    assert all(variant in table for variant in VARIANTS)
    assert [line.split()[-1] for line in table.splitlines()[-4:-1]] == ["reached", "MISSED", "reached"]
    assert max(map(len, table.splitlines())) <= 120


def test_threads_are_put_back(figures):
    assert torch.get_num_threads() == 1  # conftest.py
    with pytest.raises(UsageError, match="--rounds is 0, expected at least 1"):
        benchmark_training(0, 1)
    with pytest.raises(UsageError, match="--threads is -1, expected at least 1"):
        benchmark_training(1, -1)


# --- the plain formulation --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(8, 8), (16, 16)])
def test_plain_network_is_our_batch_norm_network(seed, size):
    """Function and weight gradients equal bit for bit, in whole numbers that float64 holds exactly.

    Moments that make every batch norm the identity, weights -1, 0, 1, pixels that are multiples of 81: each of the
    two 3x3 means divides a multiple of 9 by 9, so no rounding depends on the order of a sum. A loss of whole
    multiples of 81 * H * W / 16 keeps the gradients whole on the way back too.
    """
    generator = torch.Generator().manual_seed(seed)
    plain = PlainWideResNet(8, 0.25, 5).double().eval()
    ours = WideResNet(8, 0.25, 5, "bn", 32).double().eval().to(memory_format=torch.channels_last)
    theirs_convs, our_convs = ([m for m in n.modules() if isinstance(m, nn.Conv2d)] for n in (plain, ours))
    assert [c.weight.shape for c in theirs_convs] == [c.weight.shape for c in our_convs]
    for theirs, mine in zip(theirs_convs, our_convs, strict=True):
        weight = torch.randint(-1, 2, mine.weight.shape, generator=generator).double()
        theirs.weight.data.copy_(weight)
        mine.weight.data.copy_(weight)
    norms = [[m for m in n.modules() if isinstance(m, nn.BatchNorm2d)] for n in (plain, ours)]
    assert [m.num_features for m in norms[0]] == [m.num_features for m in norms[1]]
    for norm in (*norms[0], *norms[1]):
        assert norm.eps == 1e-5
        norm.running_var.fill_(1 - norm.eps)  # and (1 - 1e-5) + 1e-5 is 1 exactly
    pixels = (81 * torch.randint(4, (3, 3, *size), generator=generator)).to(torch.uint8)
    slopes = 81 * size[0] * size[1] / 16 * torch.randint(-3, 4, (3, 5), generator=generator)
    outcomes = []
    for network, convs in ((plain, theirs_convs), (ours, our_convs)):
        logits = network(pixels)
        (logits * slopes).sum().backward()
        outcomes.append((logits, [c.weight.grad for c in convs]))
    (logits, gradients), (our_logits, our_gradients) = outcomes
    assert logits.abs().max() > 0
    assert torch.equal(logits, our_logits)
    assert all(torch.equal(a, b) for a, b in zip(gradients, our_gradients, strict=True))


def test_variants_have_the_same_convolutions_and_the_bits_they_say():
    steppers = {variant: Stepper(SMALL, variant) for variant in VARIANTS}
    convs = {v: [m for m in s.network.modules() if isinstance(m, nn.Conv2d)] for v, s in steppers.items()}
    shapes = {v: [tuple(c.weight.shape) + c.stride for c in made] for v, made in convs.items()}
    assert all(shape == shapes[SRELU] for shape in shapes.values())
    for variant, made in convs.items():
        assert all(isinstance(c, BinaryConv2d) == (variant != PLAIN) for c in made)
        has_norms = any(isinstance(m, nn.BatchNorm2d) for m in steppers[variant].network.modules())
        assert has_norms == ("srelu" not in variant)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_step_moves_every_convolution(variant):
    torch.manual_seed(0)
    stepper = Stepper(SMALL, variant)
    before = [p.clone() for p in stepper.network.parameters() if p.dim() == 4]
    stepper.step(torch.randint(256, (4, 3, 8, 8), dtype=torch.uint8), torch.arange(4))
    after = [p for p in stepper.network.parameters() if p.dim() == 4]
    assert all(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


# --- memory -----------------------------------------------------------------------------------------------------------


def two_layers(act):
    return nn.Sequential(BinaryConv2d(3, 8), act, BinaryConv2d(8, 4))


def test_saved_activations_of_two_layers():
    """Batch 5, 6x6 pixels: the first convolution keeps the picture, the activation and the second share one tensor.

    Batch norm keeps its input besides, and its output is overwritten by the ReLU. Weights and moments do not count.
    """
    x = torch.randn(5, 3, 6, 6)
    picture, features = 4 * 5 * 3 * 6 * 6, 4 * 5 * 8 * 6 * 6  # bytes
    shifted = two_layers(ShiftedReLU(inplace=True))
    assert saved_activation_bytes(lambda: shifted(x), 5) == picture + features
    normed = two_layers(nn.Sequential(nn.BatchNorm2d(8, affine=False), nn.ReLU(inplace=True)))
    assert saved_activation_bytes(lambda: normed(x), 5) == picture + 2 * features


def test_peak_of_a_step_holds_the_saved_activations():
    """They are alive together at the end of the forward pass; half of them is left for memory that was free already."""
    images, labels = torch.randint(256, (125, 3, 32, 32), dtype=torch.uint8), torch.zeros(125, dtype=torch.int64)
    saved = saved_activation_bytes(lambda: Stepper(SMALL, PLAIN).loss(images, labels), 125)
    peak = peak_bytes(SMALL, PLAIN, 125, 32, 1)
    if peak is None:
        pytest.skip("this system has no /proc/self/status")
    assert peak >= saved / 2


def test_nothing_saved_without_gradients():
    network = two_layers(ShiftedReLU(inplace=True))
    with torch.no_grad():
        assert saved_activation_bytes(lambda: network(torch.randn(5, 3, 6, 6)), 5) == 0


def test_a_view_is_counted_by_its_storage_once():
    weight = torch.ones(2, requires_grad=True)
    x = torch.randn(5, 7, 2)
    assert saved_activation_bytes(lambda: (x[:, 0] * weight, x[:, 1] * weight), 5) == 4 * 5 * 7 * 2
