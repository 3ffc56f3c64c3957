"""What a network costs, against numbers worked out by hand, PyTorch's own counter and the forward pass."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from bitwren.errors import UsageError
from bitwren.recipe import load_recipe
from bitwren.train.layers import FloatConv2d, Shortcut
from bitwren.train.networks import ResNet18, WideResNet
from bitwren.train.summary import (
    compare_activations,
    format_comparison,
    format_summary,
    summarise,
    summarise_recipe,
)

# The network of most tests here: 8-1/16, one grey channel, 3 classes, one block in each stage of 1, 2 and 4 channels.
# On a 4 x 4 picture the stages are 4 x 4, 2 x 2 and 1 x 1.
#                  stem  conv1 conv2 | conv1 conv2 | conv1 conv2 | head
# fan-in              9      9     9 |     9    18 |    18    36 |    4
# output values      16     16    16 |     8     8 |     4     4 |    3
# MACs              144    144   144 |    72   144 |    72   144 |   12    = 876
# weights             9      9     9 |    18    36 |    72   144 |   12    = 309
# batch norm: input 16, act1/act2 16 16 | 16 8 | 8 4, act 4, head 3        =  91
# skip pools, input channels * output positions: 1 * 4 + 2 * 1             =   6
MACS, WEIGHTS, NORMS, POOLED = 876, 309, 91, 6
CONV_VALUES = 16 + 16 + 16 + 8 + 8 + 4 + 4  # without the head, whose scale no sum needs
UNFOLDED = 16 + 16 + 8 + 4  # stem and second convolutions: the skip path, too, reads what they wrote


def tiny(**options) -> WideResNet:
    return WideResNet(8, 1 / 16, num_classes=3, channels=1, **options)


@pytest.mark.parametrize(("downsample", "pooled"), [("avg3", POOLED), ("binomial", 0)])
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"activation": "srelu", "layer_scale": "pow2"}, 0),
        ({"activation": "srelu", "layer_scale": "he"}, CONV_VALUES),
        ({"activation": "srelu", "weight_bits": 32}, MACS),
        ({"activation": "bn", "layer_scale": "pow2"}, NORMS),
        ({"activation": "bn", "layer_scale": "he"}, NORMS + UNFOLDED),
        ({"activation": "bn", "layer_scale": "he", "bn_affine": True}, NORMS + UNFOLDED),
        ({"activation": "bn", "weight_bits": 32}, NORMS + MACS),
        ({"activation": "srelu", "layer_scale": "pow2", "input": "batchnorm"}, 16),
        ({"activation": "bn", "layer_scale": "pow2", "input": "standardise"}, NORMS - 16),
    ],
)
@pytest.mark.parametrize("padding", ["symmetric", "same"])
def test_multiplications_by_hand(options, expected, downsample, pooled, padding):
    summary = summarise(tiny(downsample=downsample, padding=padding, **options), (4, 4))
    assert summary.multiplications == expected + pooled
    assert summary.macs == MACS


@pytest.mark.parametrize(("activation", "expected"), [("srelu", CONV_VALUES), ("bn", NORMS)])
def test_a_plain_network_folds_every_scale_into_batch_norm_and_has_no_skip_pools(activation, expected):
    summary = summarise(tiny(activation=activation, skip=False), (4, 4))
    assert summary.multiplications == expected
    assert not any("shortcut" in layer.name for layer in summary.layers)


def test_no_multiplication_is_left_in_the_network_made_for_it():
    network = WideResNet(20, 4, layer_scale="pow2", downsample="binomial")
    assert [layer.multiplications for layer in summarise(network, (32, 32)).layers if layer.multiplications] == []


def test_rows_and_weights_by_hand():
    summary = summarise(tiny(), (4, 4))
    convs = [layer for layer in summary.layers if layer.macs]
    assert [layer.weights for layer in convs] == [9, 9, 9, 18, 36, 72, 144, 12]
    assert [layer.weight_bytes for layer in convs] == [2, 2, 2, 3, 5, 9, 18, 2]  # 9 bits take 2 bytes
    assert (summary.conv_weights, summary.weights, summary.weight_bytes) == (WEIGHTS, WEIGHTS, 43)
    assert [layer.kind for layer in summary.layers[:6]] == [
        "standardise", "conv 3x3", "shifted ReLU", "conv 3x3", "shifted ReLU", "conv 3x3",
    ]
    assert summary.layers[10].kind == "mean 3x3 /2" and summary.layers[7].kind == "conv 3x3 /2"
    assert summary.layers[-1].output_shape == (3, 1, 1)


def test_batch_norm_costs_two_32_bit_constants_a_channel():
    summary = summarise(tiny(activation="bn"), (4, 4))
    channels = 1 + 1 + 1 + 1 + 2 + 2 + 4 + 4 + 3
    assert summary.weights - summary.conv_weights == 2 * channels
    assert summary.weight_bytes == 43 + 2 * 4 * channels
    assert [layer.kind for layer in summary.layers].count("BN + ReLU") == 7
    assert summarise(tiny(weight_bits=32), (4, 4)).weight_bytes == 4 * WEIGHTS


def test_activation_memory_by_hand():
    alive = {layer.name: layer.activation_bytes for layer in summarise(tiny(), (4, 4)).layers}
    assert alive == {
        "input": 16,  # over itself
        "stem": 16 + 32,  # codes in, int16 out
        "blocks.0.act1": 32 + 16,  # the skip path still needs the input
        "blocks.0.conv1": 16 + 16 + 32,  # in, out, kept for the skip
        "blocks.0.act2": 16 + 32,
        "blocks.0.conv2": 16 + 32 + 32,
        "blocks.1.act1": 32 + 16,
        "blocks.1.conv1": 16 + 8 + 32,
        "blocks.1.act2": 8 + 32,
        "blocks.1.conv2": 8 + 16 + 32,
        "blocks.1.shortcut": 32 + 16 + 16,  # in, out, the branch
        "blocks.2.act1": 16 + 8,
        "blocks.2.conv1": 8 + 4 + 16,
        "blocks.2.act2": 4 + 16,
        "blocks.2.conv2": 4 + 8 + 16,
        "blocks.2.shortcut": 16 + 8 + 8,
        "act": 8,  # int16 in, codes over them
        "head": 4 + 12,  # int32 sums
        "mean": 12 + 12,
    }
    assert summarise(tiny(), (4, 4)).peak_activation_bytes == 80
    assert summarise(tiny(skip=False), (4, 4)).peak_activation_bytes == 32  # codes in, codes out, nothing kept


@pytest.mark.parametrize(
    ("recipe", "weights"),
    [
        ("iclr-cifar10-20-4-1bit", 4_280_512),
        ("cifar10-20-10-srelu-1bit", 26_737_120),
        ("cifar10-20-10-bn-32bit", 26_737_120),
        ("iclr-cifar10-26-10-1bit", 36_413_920),
    ],
)
def test_published_weight_counts(recipe, weights):
    assert summarise_recipe(load_recipe(recipe), 3, 10, (32, 32)).conv_weights == weights


@pytest.mark.parametrize(
    ("network", "size"),
    [
        (WideResNet(8, 0.25, padding="same"), (9, 7)),
        (WideResNet(14, 0.25, activation="bn", weight_bits=32), (12, 16)),
        (ResNet18(width=1 / 16, num_classes=7), (33, 64)),
    ],
    ids=["same", "bn", "resnet18"],
)
def test_macs_agree_with_the_counter_of_pytorch(network, size):
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        network.eval()(torch.zeros(1, 3, *size))
    assert 2 * summarise(network, size).macs == counter.get_total_flops()


@settings(max_examples=30, deadline=None)
@given(
    height=st.integers(1, 19),
    width=st.integers(1, 19),
    family=st.sampled_from([lambda **o: WideResNet(8, 1 / 16, 3, **o), lambda **o: ResNet18(18, 1 / 64, 3, **o)]),
    activation=st.sampled_from(["srelu", "bn"]),
    padding=st.sampled_from(["symmetric", "same"]),
    downsample=st.sampled_from(["avg3", "binomial"]),
    skip=st.booleans(),
)
def test_shapes_are_those_of_the_forward_pass(height, width, family, **options):
    network = family(**options).eval()
    seen = {}
    for name, module in network.named_modules():
        if isinstance(module, (FloatConv2d, torch.nn.BatchNorm2d)) or (
            isinstance(module, Shortcut) and module.stride > 1
        ):
            module.register_forward_hook(lambda m, i, out, name=name: seen.update({name: tuple(out.shape[1:])}))
    with torch.no_grad():
        network(torch.zeros(1, 3, height, width))
    # The first batch norm of "act1" is named "act1.0" there, and the row stands for the whole of it.
    expected = {name.removesuffix(".0") if "act" in name else name: shape for name, shape in seen.items()}
    rows = {layer.name: layer.output_shape for layer in summarise(network, (height, width)).layers}
    assert expected.items() <= rows.items()
    costly = {layer.name for layer in summarise(network, (height, width)).layers if layer.weights}
    assert costly <= expected.keys()


def test_the_network_is_left_as_it_was():
    network = tiny(activation="bn").train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    summarise(network, (4, 4))
    assert network.training and network.head.weight.requires_grad
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_a_recipe_network_never_gets_storage(monkeypatch):
    devices = []
    original = FloatConv2d.reset_parameters
    monkeypatch.setattr(
        FloatConv2d, "reset_parameters", lambda self: (devices.append(self.weight.device.type), original(self))
    )
    summarise_recipe(load_recipe("iclr-cifar10-26-10-1bit"), 3, 10, (224, 224))
    assert devices == ["meta"] * 26


def test_a_size_below_one_is_refused():
    with pytest.raises(UsageError, match="size is 0 x 4, expected at least 1 x 1"):
        summarise(tiny(), (0, 4))


def test_the_table_fits_the_terminal():
    recipe = load_recipe("iclr-cifar10-26-10-1bit", ["network.weight_bits=32"])
    summary = summarise_recipe(recipe, 3, 1000, (224, 224))
    lines = format_summary(summary).splitlines()
    assert max(map(len, lines)) <= 110
    assert [line for line in lines if line.startswith("blocks.8.conv1")] == [
        "blocks.8.conv1     conv 3x3 /2     640x56x56    1,843,200    32   5,780,275,200   5,780,275,200  13.40 MiB"
    ]


def test_the_totals_below_the_table():
    recipe = load_recipe("cifar10-20-10-srelu-1bit")
    totals = format_summary(summarise_recipe(recipe, 3, 10, (32, 32))).splitlines()[-6:]
    assert [line.split("  ")[0] + ":" + line.split("  ")[-1].strip() for line in totals] == [
        "convolution weights:26,737,120",
        "constants of channels:0",
        "bytes of both:3.19 MiB",
        "multiply-accumulates:4,015,636,480",
        "multiplications left:1,945,600",
        "peak activation memory:800.0 KiB",
    ]


@pytest.mark.parametrize("name", ["cifar10-20-10-srelu-1bit", "cifar10-20-10-bn-1bit"])
def test_comparison_has_both_activations_whichever_the_recipe_names(name):
    compared = compare_activations(load_recipe(name), 3, 10, (32, 32))
    assert list(compared) == ["srelu, 1 bit", "bn, 1 bit"]
    assert compared["srelu, 1 bit"].weights == 26_737_120 < compared["bn, 1 bit"].weights
    lines = format_comparison(compared).splitlines()
    assert lines[0].split() == ["srelu,", "1", "bit", "bn,", "1", "bit"]
    assert [line.split()[-2:] for line in lines if line.startswith("multiplications")] == [["1,945,600", "2,973,312"]]
