"""Scales to constants: the fixed-point form of a real gain and offset, and its limits."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitwren.errors import ModelError
from bitwren.network.graph import INT32
from bitwren.network.quantise import requantise_constants, stream_exponent


def array(*values):
    return np.array(values, np.float64)


@given(st.integers(-20, 14), st.integers(0, 511))
def test_a_power_of_two_becomes_a_shift_with_the_half_in_the_offset(power, zero):
    multiplier, offset, shift = requantise_constants(array(2.0**power), array(zero), "x")
    assert (multiplier.tolist(), shift) == ([2 ** max(power, 0)], max(-power, 0))
    assert offset.tolist() == [(zero << shift) + ((1 << shift) >> 1)]


@given(st.integers(1, 12), st.integers(-(2**16), 2**16), st.integers(0, 255))
def test_shifts_round_half_up(shift, x, zero):
    multiplier, offset, s = requantise_constants(array(2.0**-shift), array(zero), "x")
    got = (int(multiplier[0]) * x + int(offset[0])) >> s
    assert got == math.floor(x / 2**shift + 0.5) + zero


@given(
    st.lists(st.floats(1e-6, 2e4), min_size=2, max_size=5, unique=True),
    st.lists(st.floats(-500, 500), min_size=5, max_size=5),
)
def test_a_real_gain_is_right_to_half_a_unit_of_its_last_place(gains, biases):
    gain, bias = np.array(gains), np.array(biases[: len(gains)])
    multiplier, offset, shift = requantise_constants(gain, bias, "x")
    assert multiplier.dtype == np.int16 and offset.dtype == np.int32
    unit = 2.0**-shift
    assert np.all(np.abs(multiplier.astype(float) * unit - gain) <= unit / 2)
    half = ((1 << shift) >> 1) * unit
    assert np.all(np.abs(offset * unit - half - bias) <= unit / 2)
    # No smaller unit would fit: the next shift passes int16 or int32, or the shift is at its limit.
    fits_multiplier = np.round(gain * 2 / unit).max() < 2**15
    fits_offset = np.abs(np.round(bias * 2 / unit) + (1 << shift)).max() <= INT32[1]
    assert not (fits_multiplier and fits_offset) or shift == 47


def test_equal_constants_are_stored_once():
    multiplier, offset, _ = requantise_constants(array(0.3, 0.3, 0.3), array(1.0, 2.0, 3.0), "x")
    assert multiplier.shape == (1,) and offset.shape == (3,)


@pytest.mark.parametrize(
    ("gain", "bias", "message"),
    [
        (array(0.0, 0.0), array(0.0, 0.0), "norm: scale ratio 0.0, expected above 0 and below 32768"),
        (array(4e4, 1.0), array(0.0, 0.0), "norm: scale ratio 40000.0, expected above 0 and below 32768"),
        (array(1.5), array(1e10), "norm: offset 1e+10 does not fit beside a scale ratio of 1.5"),
        (array(2.0**-8), array(2.0**30), "norm: offset 1.07e+09 does not fit beside a scale ratio of 0.00391"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(gain, bias, message):
    with pytest.raises(ModelError) as error:
        requantise_constants(gain, bias, "norm")
    assert str(error.value) == message


@given(st.floats(1e-3, 1e4))
def test_a_stream_leaves_room_above_its_largest_value(largest):
    exponent = stream_exponent(largest)
    assert 2 * largest * 2.0**exponent <= 32767
    assert exponent == 14 or 2 * largest * 2.0 ** (exponent + 1) > 32767
