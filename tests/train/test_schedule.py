import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitwren.recipe import TrainOptions
from bitwren.train.schedule import learning_rate

COSINE = TrainOptions(epochs=300, schedule="cosine", learning_rate=0.1, final_learning_rate=1e-5)
RESTARTS = TrainOptions(epochs=254, schedule="restarts", learning_rate=0.1, final_learning_rate=1e-5, first_cycle=2)
STARTS = (0, 2, 6, 14, 30, 62, 126)


def test_cosine_end_points_and_middle():
    assert learning_rate(COSINE, 0) == 0.1
    assert learning_rate(COSINE, 300) == pytest.approx(1e-5, rel=1e-12)
    assert learning_rate(COSINE, 150) == pytest.approx((0.1 + 1e-5) / 2, rel=1e-12)
    assert learning_rate(COSINE, 100) == pytest.approx(1e-5 + (0.1 - 1e-5) * 0.75, rel=1e-12)  # cos 60 degrees is 1/2


@pytest.mark.parametrize("start", [*STARTS, 254])
def test_restarts(start):
    assert learning_rate(RESTARTS, start) == 0.1
    if start:
        just_before = learning_rate(RESTARTS, start - 1e-6)
        assert just_before == pytest.approx(1e-5, rel=1e-3)


def test_restarts_nowhere_else():
    steps = 400  # an epoch
    rates = [learning_rate(RESTARTS, step / steps) for step in range(254 * steps)]
    rises = [step / steps for step in range(1, len(rates)) if rates[step] > rates[step - 1]]
    assert rises == list(STARTS[1:])
    assert min(rates) >= 1e-5 and max(rates) == 0.1


def test_each_cycle_is_a_half_cosine():
    for start, end in zip(STARTS, (*STARTS[1:], 254), strict=True):
        for part in (0.0, 0.25, 0.5, 0.75):
            expected = 1e-5 + 0.5 * (0.1 - 1e-5) * (1 + math.cos(math.pi * part))
            assert learning_rate(RESTARTS, start + part * (end - start)) == pytest.approx(expected, rel=1e-12)


@given(st.integers(1, 400), st.floats(0, 1), st.floats(0, 1), st.sampled_from([0.0, 1e-5, 0.02]))
def test_cosine_falls(epochs, a, b, final):
    options = TrainOptions(epochs=epochs, learning_rate=0.1, final_learning_rate=final)
    early, late = sorted((a * epochs, b * epochs))
    assert learning_rate(options, early) >= learning_rate(options, late)
    assert final <= learning_rate(options, late) * (1 + 1e-12)


@pytest.mark.parametrize("first", [1, 3, 10])
def test_first_cycle(first):
    options = TrainOptions(epochs=7 * first, schedule="restarts", first_cycle=first)
    assert [learning_rate(options, n * first) for n in (0, 1, 3, 7)] == [0.1] * 4
    assert learning_rate(options, 2 * first) == pytest.approx((0.1 + 1e-5) / 2, rel=1e-12)
