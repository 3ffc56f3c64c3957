"""What is random is tested as a distribution. ALPHA bounds the probability that one check fails by chance."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from bitwren.recipe import AugmentOptions
from bitwren.train.augment import augment, cutout, flip, random_pixels, shift

ALPHA = 1e-9


def generator(seed):
    return torch.Generator().manual_seed(seed)


def assert_uniform(counts):
    """Pearson's chi-square against equal probabilities."""
    counts = np.asarray(counts, float)
    expected = counts.sum() / counts.size
    assert expected > 100  # where the chi-square distribution holds far into the tail
    statistic = ((counts - expected) ** 2 / expected).sum()
    assert statistic < chi2.isf(ALPHA, counts.size - 1), f"chi-square {statistic:.0f} of {counts.size} values"


def hoeffding(count, checks=1):
    """The mean of `count` independent 0/1 draws is this far off, in any of `checks`, with probability under ALPHA."""
    return math.sqrt(math.log(2 * checks / ALPHA) / (2 * count))


def pictures(batch, channels, height, width, seed):
    return torch.randint(256, (batch, channels, height, width), generator=generator(seed), dtype=torch.uint8)


# --- random pixels ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (1,), (7,), (8,), (9,), (2, 3, 5, 7)])
def test_random_pixels_of_any_shape(shape):
    pixels = random_pixels(shape, generator(1))
    assert pixels.shape == shape and pixels.dtype == torch.uint8
    assert torch.equal(pixels, random_pixels(shape, generator(1)))


def test_random_pixels_are_uniform_and_independent_of_the_next(seed):
    pixels = random_pixels((1 << 20,), generator(seed)).long()
    assert_uniform(torch.bincount(pixels, minlength=256))
    for distance in (1, 2, 8):  # neighbours inside one 64-bit draw, and across two
        pairs = (pixels[:-distance] >> 4) * 16 + (pixels[distance:] >> 4)
        assert_uniform(torch.bincount(pairs[:: 2 * distance + 1], minlength=256))


# --- shift ------------------------------------------------------------------------------------------------------------


def located(before, after, reach):
    """Return (B, n) bool: is `after` the picture moved by offset n of (2 reach + 1)**2 (rows first)."""
    height, width = before.shape[2:]
    found = []
    for dy in range(-reach, reach + 1):
        for dx in range(-reach, reach + 1):
            to = after[:, :, max(dy, 0) : height + min(dy, 0), max(dx, 0) : width + min(dx, 0)]
            source = before[:, :, max(-dy, 0) : height + min(-dy, 0), max(-dx, 0) : width + min(-dx, 0)]
            found.append((to == source).flatten(1).all(1))
    return torch.stack(found, 1)


def test_shift_offsets_and_fill_are_uniform(seed):
    before = pictures(12000, 3, 7, 8, seed)
    after = shift(before, 2, generator(seed + 1))
    assert after.dtype == torch.uint8 and after.shape == before.shape
    found = located(before, after, 2)
    assert (found.sum(1) == 1).all()  # each is the picture, moved: by chance elsewhere, 256**-90
    offset = found.int().argmax(1)
    assert_uniform(torch.bincount(offset, minlength=25))
    lowest = after[offset // 5 == 4]  # moved down by 2: rows 0 and 1 are new in all columns
    fill = lowest[:, :, :2].long()
    assert_uniform(torch.bincount(fill.flatten(), minlength=256))
    for other in (1, 2):  # each channel has its own random pixels
        same = (fill[:, 0] == fill[:, other]).double().mean()
        assert abs(same - 1 / 256) < hoeffding(fill[:, 0].numel())
    successive = offset[:-1:2] * 25 + offset[1::2]  # 625 pairs would be too few each: fold to 5 x 5 row offsets
    assert_uniform(torch.bincount(successive // 125 * 5 + successive % 25 // 5, minlength=25))


@pytest.mark.parametrize("size", [(1, 1), (1, 6), (5, 3)])
@pytest.mark.parametrize("reach", [1, 4, 9])
def test_shift_of_any_size_and_beyond_it(size, reach):
    before = pictures(3, 1, *size, 0)
    after = shift(before, reach, generator(5))
    assert after.shape == before.shape and after.dtype == torch.uint8


# --- flip -------------------------------------------------------------------------------------------------------------


def test_flip_half_of_the_pictures(seed):
    before = pictures(20000, 1, 2, 5, seed)
    after = flip(before, generator(seed + 1))
    kept = (after == before).flatten(1).all(1)
    mirrored = (after == before.flip(3)).flatten(1).all(1)
    assert (kept | mirrored).all()
    assert abs(mirrored.double().mean() - 0.5) < hoeffding(len(before)) + 256.0**-4  # few are their own mirror image


# --- cutout -----------------------------------------------------------------------------------------------------------

CHANNELS = 8  # an uncovered pixel differs from a covered one but for 256**-8


@pytest.mark.parametrize(
    ("height", "width", "side"),
    [(32, 32, 18), (7, 5, 3), (4, 6, 18), (9, 9, 4), (3, 8, 1), (1, 1, 1), (1, 1, 3), (1, 9, 2)],
)
def test_cutout_covers_every_pixel_equally_often(height, width, side, seed):
    batch = 3000 if height == 32 else 15000
    before = pictures(batch, CHANNELS, height, width, seed)
    after = cutout(before, side, generator(seed + 1))
    assert after.dtype == torch.uint8 and after.shape == before.shape
    covered = (after != before).any(1)  # (B, H, W)
    assert torch.equal(after.movedim(1, 3)[~covered], before.movedim(1, 3)[~covered])
    # One square: what is covered is a block of rows times a block of columns, no longer than side, not empty.
    rows, columns = covered.any(2), covered.any(1)
    assert torch.equal(covered, rows[:, :, None] & columns[:, None, :])
    for block in (rows, columns):
        starts = block.int().diff(dim=1, prepend=torch.zeros(batch, 1, dtype=torch.int)).clamp(min=0).sum(1)
        assert (starts == 1).all() and block.sum(1).max() <= side
        inner = ~block[:, 0] & ~block[:, -1]
        assert (block.sum(1)[inner] == side).all()  # shorter only where the border clips it
    expected = side**2 / ((height + side - 1) * (width + side - 1))
    assert (covered.double().mean(0) - expected).abs().max() < hoeffding(batch, checks=height * width)


def test_cutout_fill_is_uniform(seed):
    before = torch.zeros(4000, 3, 9, 9, dtype=torch.uint8)
    after = cutout(before, 25, generator(seed))  # a large square: most pixels are covered
    covered = (after != 0).any(1)
    inside = after.movedim(1, 3)[covered].long()  # (n, 3), among which 256**-3 are missed: far below one count
    assert len(inside) > 100_000
    assert_uniform(torch.bincount(inside.flatten(), minlength=256))


# --- all together -----------------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(
    st.integers(0, 5),
    st.sampled_from([1, 3]),
    st.integers(1, 9),
    st.integers(1, 9),
    st.booleans(),
    st.integers(0, 12),
    st.integers(0, 20),
    st.integers(0, 2**63 - 1),
)
def test_augment_any_batch(batch, channels, height, width, mirror, reach, side, draw):
    before = pictures(batch, channels, height, width, 3)
    original = before.clone()
    options = AugmentOptions(flip=mirror, shift=reach, cutout=side)
    after = augment(before, options, generator(draw))
    assert after.shape == before.shape and after.dtype == torch.uint8
    assert torch.equal(before, original)  # the data set itself is never written to
    assert torch.equal(after, augment(before, options, generator(draw)))


def test_augment_is_shift_then_flip_then_cutout():
    before = pictures(50, 3, 8, 8, 0)
    by_hand = generator(7)
    expected = cutout(flip(shift(before, 4, by_hand), by_hand), 5, by_hand)
    options = AugmentOptions(flip=True, shift=4, cutout=5)
    assert torch.equal(augment(before, options, generator(7)), expected)
    assert not torch.equal(augment(before, options, generator(8)), expected)


# A shift by one pixel: one pair in nine has the same offset, and would show the same fill.
@pytest.mark.parametrize("fill", [lambda x, g: shift(x, 1, g), lambda x, g: cutout(x, 40, g)])
def test_the_fill_too_comes_from_the_generator_alone(fill, seed):
    blank = torch.zeros(1000, 3, 4, 4, dtype=torch.uint8)
    state = torch.get_rng_state()
    one, other = fill(blank, generator(seed)), fill(blank, generator(seed + 1))
    assert torch.equal(torch.get_rng_state(), state)  # PyTorch's global generator is not touched
    both = (one != 0) & (other != 0)
    assert both.sum() > 3000
    assert (one == other)[both].double().mean() < 1 / 255 + hoeffding(int(both.sum()))


def test_no_augmentation_leaves_the_pictures():
    before = pictures(4, 1, 3, 3, 0)
    assert torch.equal(augment(before, AugmentOptions(), generator(0)), before)
