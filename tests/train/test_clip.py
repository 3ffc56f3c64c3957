"""Gradients held to the size of their weights."""

import math

import pytest
import torch

from bitwren.train.clip import clip_gradients


def weight(generator, shape, size, gradient):
    """Return a weight of that norm with a gradient of that norm, both in random directions."""

    def direction(norm):
        drawn = torch.randn(shape, dtype=torch.float64, generator=generator)
        return drawn * (norm / drawn.norm())

    made = torch.nn.Parameter(direction(size))
    made.grad = direction(gradient)
    return made


@pytest.mark.parametrize("limit", [0.01, 0.5])
def test_only_what_is_above_the_limit_is_scaled_down_to_it(limit, seed):
    generator = torch.Generator().manual_seed(seed)
    sizes = [(4.0, 4.0 * limit * share) for share in (0.0, 0.5, 0.999, 1.001, 1000.0)]
    weights = [weight(generator, (3, 2, 3, 3), *pair) for pair in sizes]
    weights.append(torch.nn.Parameter(torch.ones(2)))  # of no part in the loss
    before = [w.grad.clone() for w in weights[:-1]]
    clip_gradients(weights, limit)
    for w, was, (_, norm) in zip(weights[:-1], before, sizes, strict=True):
        factor = min(1.0, 4.0 * limit / norm) if norm else 1.0
        assert torch.allclose(w.grad, was * factor, rtol=1e-12, atol=0)
        assert norm > 4.0 * limit or torch.equal(w.grad, was)
    assert weights[-1].grad is None


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_stays_so_where_it_was(value, seed):
    generator = torch.Generator().manual_seed(seed)
    broken, whole = (weight(generator, (4, 4), 1.0, 1e-3) for _ in range(2))
    broken.grad[1, 2] = value
    was = whole.grad.clone()
    clip_gradients([broken, whole], 0.1)
    assert not torch.isfinite(broken.grad).all() and torch.equal(whole.grad, was)
