"""The float form of a network: the oracle's answers but for rounding, in the operators that engines fuse."""

import numpy as np
import onnxruntime
import pytest
from network.examples import conv, network, requantise, wide_resnet

from bitwren.deploy.export_float import float_onnx
from bitwren.deploy.float_form import FloatAffine, FloatConv, float_form
from bitwren.network import reference
from bitwren.network.graph import INT32, PIXELS, Add, Pool, Sum


def float_logits(built, pixels):
    session = onnxruntime.InferenceSession(float_onnx(float_form(built)).SerializeToString())
    return session.run(None, {PIXELS: pixels.astype(np.float32)})[0]


def random_pixels(built, seed, count=20):
    shape = (count, built.channels, built.height, built.width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def assert_proportional(built, pixels, least):
    """Check that float and integer logits lie on one line through the origin, as nearly as rounding lets them."""
    exact, got = reference.run(built, pixels).astype(float).ravel(), float_logits(built, pixels).ravel()
    assert exact.std() > 0
    assert exact @ got / np.linalg.norm(exact) / np.linalg.norm(got) > least


def in_units(got, exact):
    """Return the float logits in units of the integer ones, as their largest has it: any other may be 0."""
    largest = np.unravel_index(np.abs(exact).argmax(), exact.shape)
    assert exact[largest]
    return got / (got[largest] / exact[largest])


@pytest.mark.parametrize("pool", ["binomial", "mean", "mean-real", "max"])
@pytest.mark.parametrize("shift_only", [True, False])
def test_a_residual_network(pool, shift_only, seed):
    built = wide_resnet(depth=8, width=0.5, size=16, pool=pool, shift_only=shift_only, seed=seed)
    # Its numbers are small, so that rounding is much: 0.986 was the least of 48 seeds.
    assert_proportional(built, random_pixels(built, seed), 0.97)


@pytest.mark.parametrize("kind", ["binomial", "mean", "mean-real", "max"])
@pytest.mark.parametrize("padding", [(1, 1, 1, 1), (0, 0, 1, 1), (2, 0, 0, 1)])
def test_each_pooling(kind, padding, seed):
    """Every value is a multiple of 144 within int16, so no pooling rounds or saturates."""
    nodes = [requantise("r", PIXELS, 144, -18720), Pool("p", "r", kind, padding, 3), Sum("s", "p")]
    built = network((2, 7, 6), *nodes, classes=3)
    pixels = random_pixels(built, seed)
    exact, got = reference.run(built, pixels), float_logits(built, pixels)
    np.testing.assert_allclose(in_units(got, exact), exact, rtol=1e-4, atol=0.5)


def test_without_rounding_it_is_exact(seed):
    """No shift, no clamp that cuts: every float is the whole number times one unit."""
    rng = np.random.default_rng(seed)
    weights = rng.choice([-1, 1], (3, 3, 3, 2))
    nodes = [conv("c", PIXELS, weights, 1, (1, 0, 2, 1)), requantise("r", "c", [2, -3, 5], [7, 0, -9], 0, *INT32)]
    nodes.append(Sum("s", "r"))
    built = network((2, 5, 6), *nodes, zero=[3, 250], classes=3)
    pixels = random_pixels(built, seed)
    exact, got = reference.run(built, pixels), float_logits(built, pixels)
    np.testing.assert_allclose(in_units(got, exact), exact, rtol=1e-4, atol=1e-5 * np.abs(exact).max())


def test_a_tensor_that_is_read_twice_is_computed_once(seed):
    weights = np.random.default_rng(seed).choice([-1, 1], (2, 1, 1, 2))
    nodes = [conv("c", PIXELS, weights), requantise("a", "c", 3), requantise("b", "c", 5)]
    nodes += [Add("t", ("a", "b")), Sum("s", "t")]
    built = network((2, 2, 2), *nodes, zero=100, classes=2)
    assert sum(isinstance(step, FloatConv) for step in float_form(built).steps) == 1
    assert_proportional(built, random_pixels(built, seed), 0.999999)


def test_shifted_relu_is_a_cut_and_nothing_else():
    form = float_form(wide_resnet(depth=8, width=0.5, size=16))
    activations = [step for step in form.steps if isinstance(step, FloatAffine) and step.floor is not None]
    assert activations
    assert all(step.gain is None and step.bias is None and step.floor < 0 for step in activations)


def test_zero_channels_are_appended():
    nodes = [requantise("r", PIXELS), Pool("p", "r", "max", (1, 1, 1, 1), 3)]
    nodes += [Sum("s", "p")]
    built = network((1, 4, 4), *nodes, classes=3)
    pixels = random_pixels(built, 0)
    got = float_logits(built, pixels)
    assert not got[:, 1:].any()
    assert_proportional(built, pixels, 0.999999)

