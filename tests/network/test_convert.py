"""Conversion of trained networks, against the same network in float64 with quantisers in it."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bitwren.errors import UsageError
from bitwren.network.convert import METHODS, choose_scales, convert, fold, is_shift_only
from bitwren.network.graph import Conv, Pool, Requantise
from bitwren.network.quantise import quantise
from bitwren.network.reference import run, run_all
from bitwren.train import ResNet18, WideResNet
from bitwren.train.layers import ShiftedReLU

CLASSES = ("a", "b", "c")


def pictures(count, channels, height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, channels, height, width), dtype=np.uint8)


def network(seed=0, louder=0, **options):
    """louder: every activation of a shifted ReLU grows about so many times a factor of 2."""
    torch.manual_seed(seed)
    made = WideResNet(8, 0.25, 3, **{"layer_scale": "pow2", "downsample": "binomial", **options}).eval()
    with torch.no_grad():
        for norm in made.modules():
            if isinstance(norm, torch.nn.BatchNorm2d):  # moments as if trained
                norm.running_mean.normal_()
                norm.running_var.uniform_(0.5, 4.0)
        if louder:
            made.input.exponent -= louder
    return made


def half_up(x):
    return torch.floor(x + 0.5)


def to_stream(x, exponent):
    return (half_up(x * 2.0**exponent)).clamp(-(2**15), 2**15 - 1) / 2.0**exponent


def quantised_float(made, scales, images):
    """The shift-only network in float64 with quantisers where the integer one has them: exact, all values dyadic."""
    made = made.double()
    top = 2**scales.bits - 1

    def after(conv, act, x, name):
        """conv of the codes of an activation's x."""
        step = scales.steps[name]
        if step <= 1:
            return conv((half_up(act(x) / step) + 1 / step).clamp(0, top).mul(step) - 1)
        # Code 0 is -1. What that adds to a sum, at a mean position, is a whole multiple of the sum's own unit.
        unit = conv.effective_weight().abs().max() * step
        ones = conv(torch.ones_like(x)).mean((2, 3), keepdim=True)
        return conv(half_up((act(x) + 1) / step).clamp(0, top) * step) + (-ones / unit).round() * unit

    x = made.stem((torch.from_numpy(images).double() - made.input.mean[:, None, None]) * 2.0**-made.input.exponent)
    before = scales.exponents["stem"]
    if made.blocks[0].shortcut is not None:
        x = to_stream(x, before)
    for i, block in enumerate(made.blocks, 1):
        name = f"block{i}"
        inner = after(block.conv1, block.act1, x.clone(), f"{name}.act1")
        branch = after(block.conv2, block.act2, inner, f"{name}.act2")
        if block.shortcut is None:
            x = branch
            continue
        exponent = scales.exponents[name]
        if block.shortcut.stride == 2:
            kernel = torch.tensor([1.0, 2, 1]).outer(torch.tensor([1.0, 2, 1])).double().expand(x.shape[1], 1, 3, 3)
            pooled = F.conv2d(x * 2.0**before, kernel, stride=2, padding=1, groups=x.shape[1])
            x = F.pad(half_up(pooled / 16) / 2.0**before, (0, 0, 0, 0, 0, block.shortcut.new_channels))
        x = to_stream(x, exponent)
        x = (x + to_stream(branch, exponent)).clamp(-(2**15) / 2.0**exponent, (2**15 - 1) / 2.0**exponent)
        before = exponent
    return after(made.head, made.act, x, "act").sum((2, 3))


@settings(max_examples=12)
@example(15049, (13, 4), 3, False, 8, "error", 5)  # a filter whose mean constant lies half way between two sums
@given(
    st.integers(0, 2**31),
    st.sampled_from([(8, 8), (5, 7), (1, 1), (13, 4)]),
    st.sampled_from([1, 3]),
    st.booleans(),
    st.integers(4, 9),
    st.sampled_from(METHODS),
    st.sampled_from([0, 5, 10]),
)
@torch.no_grad()
def test_shift_only_networks_compute_what_the_quantised_float_network_does(
    seed, size, channels, skip, bits, method, louder
):
    made, images = network(seed, louder, channels=channels, skip=skip), pictures(6, channels, *size, seed)
    folded = fold(made, *size, CLASSES)
    scales = choose_scales(made, folded, images, bits, method)
    integer = quantise(folded, scales, {})
    assert integer.total_multiplications == 0 and is_shift_only(folded)
    expected = quantised_float(made, scales, images).numpy()
    height, width = (math.ceil(math.ceil(side / 2) / 2) for side in size)
    scale = integer.logit_scale * height * width * made.temperature  # of a sum: not averaged, not divided by T
    np.testing.assert_array_equal(run(integer, images) * scale, expected)


@pytest.mark.parametrize("skip", [True, False])
@pytest.mark.parametrize(
    "options",
    [
        {"activation": "bn"},
        {"activation": "bn", "padding": "same", "downsample": "avg3", "layer_scale": "he"},
        {"activation": "bn", "weight_bits": 32, "downsample": "avg3"},
        {"activation": "srelu", "layer_scale": "he", "downsample": "avg3"},
        {"activation": "srelu", "weight_bits": 32},
        {"activation": "srelu", "input": "batchnorm"},
    ],
    ids=lambda o: "-".join(map(str, o.values())),
)
@torch.no_grad()
def test_general_networks_follow_the_float_ones_activation_by_activation(options, skip):
    """Each activation of the integer network, fed the integers before it, is the float one of those integers, rounded.

    The real value before rounding is computed from the float network's own constants; the fixed-point multiplier is off
    by at most 2**-(shift + 1), so the result may differ where the real value lies that close to a rounding boundary.
    """
    made, images = network(3, skip=skip, **options), pictures(5, 3, 9, 6)
    folded = fold(made, 9, 6, CLASSES)
    scales = choose_scales(made, folded, images)
    integer = quantise(folded, scales, {})
    values, nodes = run_all(integer, images), {n.name: n for n in integer.nodes}
    real = real_scales(integer, folded, scales)
    for i, block in enumerate(made.blocks, 1):
        for act, name in ((block.act1, f"block{i}.act1"), (block.act2, f"block{i}.act2")):
            node = nodes[name]
            before = torch.from_numpy(values[node.input]).double() * real[node.input]
            step, below = scales.steps[name], nodes[node.input]
            if isinstance(act, ShiftedReLU) and isinstance(below, Conv) and scales.steps.get(below.input, 0) > 1:
                ones = torch.ones(1, *values[below.input].shape[1:])
                weights = torch.from_numpy(below.weights).float().permute(0, 3, 1, 2)
                sums = F.conv2d(ones, weights, None, below.stride, 1).mean((0, 2, 3)).double()
                before += ((-sums / scales.steps[below.input]).round() * real[below.name])[:, None, None]
            base = -1 if isinstance(act, ShiftedReLU) and step > 1 else 0
            wanted = (act.double()(before).numpy() - base) / step + node.zero
            unit = (np.abs(values[node.input]).max() + 1) * 2.0 ** -(node.shift + 1)
            got = values[name]
            off = np.abs(got - np.clip(wanted, node.low, node.high))
            assert off.max() <= 0.5 + unit + 1e-9, name
    assert integer.total_multiplications > 0


def real_scales(integer, folded, scales):
    """The real value of 1 in each tensor that an activation reads, (C, 1, 1), worked out from the float weights."""
    real = {}
    previous = folded.pixels.gain[0] if folded.whole_zero is not None else None
    by_name = {"stem": folded.stem, "head": folded.head}
    for i, block in enumerate(folded.blocks, 1):
        by_name |= {f"block{i}.conv1": block.conv1, f"block{i}.conv2": block.conv2}
    for node in integer.nodes:
        if isinstance(node, Requantise):
            if node.name == "input":
                ends = np.stack([folded.pixels.bias, 255 * folded.pixels.gain + folded.pixels.bias])
                real[node.name] = (max(ends.max(), 0) - min(ends.min(), 0)) / 255
            elif node.zero is not None:
                real[node.name] = scales.steps[node.name]
            elif node.name != "logits":
                real[node.name] = 2.0 ** -scales.exponents[node.name.split(".")[0]]
        elif isinstance(node, Conv):
            source = previous if node.input == "pixels" else real[node.input]
            conv = by_name[node.name]
            own = conv.scale if conv.bits == 1 else np.abs(conv.weights).max((1, 2, 3))[:, None, None] / 127
            real[node.name] = source * own
        elif isinstance(node, Pool):
            real[node.name] = real[node.input]
        elif node.name.startswith("block"):
            real[node.name] = 2.0 ** -scales.exponents[node.name]
    return real


@pytest.mark.parametrize("bits", [1, 32])
@torch.no_grad()
def test_resnet18_with_its_max_pool_converts(bits):
    torch.manual_seed(1)
    made = ResNet18(18, 1 / 32, 3, weight_bits=bits, layer_scale="pow2", downsample="binomial").eval()
    images = pictures(4, 3, 33, 40)
    integer = convert(made, images, CLASSES)
    assert (integer.total_multiplications == 0) == (bits == 1)
    logits, truth = run(integer, images) * integer.logit_scale, made(torch.from_numpy(images)).numpy()
    # 8-bit codes against float: no bound is derived for the whole network; it must follow it, not equal it.
    assert np.corrcoef(logits.ravel(), truth.ravel())[0, 1] > 0.98


@pytest.mark.parametrize("options", [{}, {"layer_scale": "he"}], ids=["shift-only", "general"])
@torch.no_grad()
def test_activations_that_pass_the_largest_code_of_step_1_take_a_larger_step(options):
    made, images = network(2, louder=8, **options), pictures(20, 3, 16, 16)
    folded = fold(made, 16, 16, CLASSES)
    scales = choose_scales(made, folded, images)
    assert max(scales.steps.values()) >= 2
    integer = quantise(folded, scales, {})
    assert (integer.total_multiplications == 0) == (not options)
    logits, truth = run(integer, images) * integer.logit_scale, made(torch.from_numpy(images)).numpy()
    # No bound is derived for the whole network; with codes that end at 254 it is below 0.99.
    assert np.corrcoef(logits.ravel(), truth.ravel())[0, 1] > 0.9999


def test_the_same_run_gives_the_same_network():
    made, images = network(5), pictures(8, 3, 8, 8)
    first, second = (convert(made, images, CLASSES) for _ in range(2))
    np.testing.assert_array_equal(run(first, images), run(second, images))
    assert [n.name for n in first.nodes] == [n.name for n in second.nodes]
    assert first.about == {"bits": 8, "scales": "error", "calibration_pictures": 8}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bits": 3}, "activation bits are 3, expected 4 to 9"),
        ({"bits": 10}, "activation bits are 10, expected 4 to 9"),
        ({"method": "eror"}, "unknown method 'eror'; did you mean 'error'?"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(UsageError) as error:
        convert(network(), pictures(2, 3, 8, 8), CLASSES, **options)
    assert str(error.value) == message


def test_no_pictures_are_refused():
    with pytest.raises(UsageError, match="no pictures to choose scales on"):
        convert(network(), pictures(0, 3, 8, 8), CLASSES)


def test_converting_leaves_the_network_as_it_was():
    made, images = network(7), pictures(4, 3, 8, 8)
    before = made(torch.from_numpy(images))
    convert(made, images, CLASSES, method="logits")
    assert torch.equal(made(torch.from_numpy(images)), before)
    assert not any(m._forward_hooks for m in made.modules())


def test_means_become_offsets_and_nothing_multiplies(seed):
    made, images = network(seed, centre=True), pictures(8, 3, 8, 8, seed)
    made.train()(torch.from_numpy(images))
    converted = convert(made.eval(), images, CLASSES)
    assert converted.total_multiplications == 0
    nodes = {n.name: n for n in converted.nodes}
    for name, act in (("block1.act1", made.blocks[0].act1), ("block1.act2", made.blocks[0].act2), ("act", made.act)):
        node = nodes[name]
        # In units of a code: the offset holds -mean, the zero point, and the half that makes the shift a rounding.
        offset = (node.offset - ((1 << node.shift) >> 1)) * 2.0**-node.shift - node.zero
        assert len(node.multiplier) == 1
        assert np.abs(offset + act.mean.double().numpy() * node.zero).max() <= 2.0 ** -(node.shift + 1)


def test_balanced_signs_are_what_the_bits_say():
    made = network(signs="balanced")
    with torch.no_grad():
        made.stem.weight += 1.0  # plain signs would all be +1
    expected = np.sign(made.stem.effective_weight().detach().numpy()).transpose(0, 2, 3, 1)
    stem = next(n for n in convert(made, pictures(8, 3, 8, 8), CLASSES).nodes if n.name == "stem")
    assert np.array_equal(stem.weights, expected) and stem.weights.min() == -1
