"""PyTorch's integers are the oracle's, every one: tolerance zero."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from network.examples import (
    REQUANTISE_ENDS,
    conv,
    int32_limit,
    network,
    pictures,
    requantise,
    requantise_ends,
    wide_resnet,
)
from network.strategies import networks_and_pictures

from bitwren.errors import ModelError
from bitwren.network import reference
from bitwren.network.graph import INT16, INT32, PIXELS, Sum
from bitwren.network.simulate import EXACT_FLOAT32, Simulation


@settings(max_examples=100)
@given(networks_and_pictures())
def test_equals_the_reference(given):
    net, pixels = given
    expected = reference.run_all(net, pixels)
    got = Simulation(net).run_all(pixels, batch=2)
    assert list(got) == list(expected)
    for name, values in expected.items():
        assert got[name].dtype == np.int64 and np.array_equal(got[name], values), name
    assert np.array_equal(Simulation(net).run(pixels, batch=3), reference.run(net, pixels))


@pytest.mark.parametrize("shift_only", [True, False])
@pytest.mark.parametrize("pool", ["binomial", "mean", "mean-real", "max"])
def test_a_whole_network(pool, shift_only, seed):
    net = wide_resnet(8, 1, pool=pool, shift_only=shift_only, seed=seed)
    pixels = pictures(net, 3, seed)
    expected, got = reference.run_all(net, pixels), Simulation(net).run_all(pixels)
    assert all(np.array_equal(got[name], values) for name, values in expected.items())
    assert np.ptp(expected["scores"]) > 0


@pytest.mark.parametrize("sign", [1, -1])
def test_at_the_int32_limit(sign):
    net = int32_limit(sign)
    assert Simulation(net).run(np.full((1, 2, 258, 258), 255, np.uint8)).item() == sign * INT32[1]


@pytest.mark.parametrize("constants", REQUANTISE_ENDS)
def test_requantise_at_its_ends(constants):
    net, pixels = requantise_ends(*constants)
    expected, got = reference.run_all(net, pixels), Simulation(net).run_all(pixels)
    assert all(np.array_equal(got[name], values) for name, values in expected.items())


def test_beyond_float32():
    """2**24 + 1 is no float32; the graph's bound tells that the node needs float64."""
    weights = np.full((1, 23, 23, 1), 127)
    net = network((1, 23, 23), conv("c", PIXELS, weights, bits=8))
    assert net.tensors["c"].high > EXACT_FLOAT32
    pixels = np.full((1, 1, 23, 23), 255, np.uint8)
    for value in range(250, 256):  # odd and even sums
        pixels[0, 0, 0, 0] = value
        assert Simulation(net).run(pixels).item() == 127 * (255 * 528 + value)


@pytest.mark.parametrize("channels", [57, 64])
def test_wide_convs_just_within_float32(channels, seed):
    """3 x 3, stride 1, many channels: what fractional transforms would take, near the largest exact sums."""
    rng = np.random.default_rng(seed)
    weights = rng.choice([-127, -126, 126, 127], (64, 3, 3, channels))
    convolution = conv("c", PIXELS, weights, 1, (1, 1, 1, 1), bits=8)
    few = requantise("r", "c", 1, 0, 8, *INT16)  # so that the sum over the picture fits int32
    net = network((channels, 16, 16), convolution, few, Sum("s", "r"), classes=64)
    assert (net.tensors["c"].high <= EXACT_FLOAT32) == (channels == 57)  # 57 * 9 * 127 * 255 < 2**24
    for pixels in (pictures(net, 8, seed), np.full((1, channels, 16, 16), 255, np.uint8)):
        assert np.array_equal(Simulation(net).run_all(pixels)["c"], reference.run_all(net, pixels)["c"])


def test_the_batch_does_not_matter(seed):
    net = wide_resnet(8, 0.25, size=8, seed=seed)
    pixels = pictures(net, 7, seed)
    simulation = Simulation(net)
    for batch in (1, 2, 7, 100):
        assert np.array_equal(simulation.run(pixels, batch), simulation.run(pixels))
    assert simulation.run(pixels[:0]).shape == (0, 10)


def test_autocast_does_not_matter(seed):
    net = wide_resnet(8, 0.25, size=8, seed=seed)
    pixels = pictures(net, 4, seed)
    with torch.autocast("cpu", torch.bfloat16):
        assert np.array_equal(Simulation(net).run(pixels), reference.run(net, pixels))


def test_wrong_pixels():
    with pytest.raises(ModelError, match=r"pixels uint8 \(1, 3, 4, 5\), expected uint8 \(N, 3, 4, 4\)"):
        Simulation(wide_resnet(8, 0.25, size=4)).run(np.zeros((1, 3, 4, 5), np.uint8))


def test_pictures_that_are_not_contiguous(seed):
    net = wide_resnet(8, 0.25, size=8, seed=seed)
    pixels = pictures(net, 6, seed)
    assert np.array_equal(Simulation(net).run(pixels[::-2]), reference.run(net, pixels[::-2].copy()))
