import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitwren.errors import DataError, UsageError
from bitwren.pictures import Pictures, Split, stratified_split


def pictures(count=4, shape=(3, 2, 5), classes=("a", "b")):
    images = np.arange(count * int(np.prod(shape)), dtype=np.uint8).reshape(count, *shape)
    return Pictures(images, np.arange(count, dtype=np.int64) % len(classes), classes)


def test_take_keeps_the_order_asked_for():
    some = pictures().take([3, 0])
    assert len(some) == 2
    assert np.array_equal(some.images, pictures().images[[3, 0]])
    assert some.labels.tolist() == [1, 0]


@pytest.mark.parametrize("indices", [[4], [-1], [[0]]])
def test_take_refuses_places_that_are_not_there(indices):
    with pytest.raises(DataError, match=r"expected \(M,\) within 0 to 3"):
        pictures().take(indices)


@pytest.mark.parametrize(
    ("images", "labels", "classes", "message"),
    [
        (np.zeros((1, 3, 2, 2), np.float32), np.zeros(1, np.int64), ("a",), "images are float32, expected uint8"),
        ([[1]], np.zeros(1, np.int64), ("a",), "images are a list, expected uint8"),
        (np.zeros((1, 2, 2), np.uint8), np.zeros(1, np.int64), ("a",), r"shape \(1, 2, 2\), expected"),
        (np.zeros((1, 4, 2, 2), np.uint8), np.zeros(1, np.int64), ("a",), r"shape \(1, 4, 2, 2\), expected"),
        (np.zeros((1, 3, 0, 2), np.uint8), np.zeros(1, np.int64), ("a",), r"shape \(1, 3, 0, 2\), expected"),
        (np.zeros((1, 3, 2, 2), np.uint8), np.zeros(1, np.int32), ("a",), "labels are int32, expected int64"),
        (np.zeros((1, 3, 2, 2), np.uint8), np.zeros(2, np.int64), ("a",), r"labels have shape \(2,\), expected \(1,\)"),
        (np.zeros((1, 3, 2, 2), np.uint8), np.ones(1, np.int64), ("a",), "from 1 to 1, expected 0 to 0"),
        (np.zeros((1, 3, 2, 2), np.uint8), -np.ones(1, np.int64), ("a",), "from -1 to -1, expected 0 to 0"),
        (np.zeros((1, 3, 2, 2), np.uint8), np.zeros(1, np.int64), ["a"], "expected a tuple of names"),
        (np.zeros((1, 3, 2, 2), np.uint8), np.zeros(1, np.int64), ("a", "a"), "2 class names, expected"),
        (np.zeros((0, 3, 2, 2), np.uint8), np.zeros(0, np.int64), (), "0 class names, expected"),
    ],
)
def test_what_is_not_labelled_pictures_is_refused(images, labels, classes, message):
    with pytest.raises(DataError, match=message):
        Pictures(images, labels, classes)


def test_a_split_has_the_same_classes_and_shape_on_both_sides():
    with pytest.raises(DataError, match="expected the same"):
        Split(pictures(), pictures(classes=("a", "c")))
    with pytest.raises(DataError, match=r"test pictures are \(1, 2, 5\), expected \(3, 2, 5\)"):
        Split(pictures(), pictures(shape=(1, 2, 5)))


@given(st.lists(st.integers(0, 6), max_size=200), st.floats(0, 1), st.integers(0, 2**63))
def test_split_is_a_partition_in_proportion_and_repeats(labels, fraction, seed):
    labels = np.array(labels, dtype=np.int64)
    kept, held = stratified_split(labels, fraction, seed)
    assert np.array_equal(np.sort(np.concatenate([kept, held])), np.arange(len(labels)))
    assert np.array_equal(kept, np.sort(kept)) and np.array_equal(held, np.sort(held))
    assert len(held) == int(fraction * len(labels) + 0.5)
    for label in np.unique(labels):
        exact = np.count_nonzero(labels == label) * len(held) / max(len(labels), 1)
        assert abs(np.count_nonzero(labels[held] == label) - exact) < 1
    again_kept, again_held = stratified_split(labels, fraction, seed)
    assert np.array_equal(kept, again_kept) and np.array_equal(held, again_held)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.data())
def test_a_count_is_held_exactly(labels, data):
    count = data.draw(st.integers(0, len(labels)))
    kept, held = stratified_split(np.array(labels), count, 1)
    assert (len(kept), len(held)) == (len(labels) - count, count)


def test_largest_remainder_goes_first_and_ties_to_the_lower_label():
    labels = np.repeat([0, 1, 2], [5, 3, 2])  # 3 held of 10: exact shares 1.5, 0.9, 0.6
    _, held = stratified_split(labels, 3, 0)
    assert np.bincount(labels[held], minlength=3).tolist() == [1, 1, 1]
    labels = np.repeat([0, 1], [2, 2])  # 1 held: 0.5 each
    _, held = stratified_split(labels, 1, 0)
    assert labels[held].tolist() == [0]


def test_the_split_of_a_seed_never_changes():
    """A test set that moved between versions would let trained pictures into it."""
    _, held = stratified_split(np.arange(20) % 2, 0.3, 0)
    assert held.tolist() == [2, 3, 8, 11, 13, 18]
    _, held = stratified_split(np.arange(20) % 2, 0.3, 1)
    assert held.tolist() == [2, 9, 16, 17, 18, 19]


@pytest.mark.parametrize(
    ("labels", "amount", "seed", "message"),
    [
        ([0, 1], 3, 0, "3 pictures to hold, expected 0 to 2"),
        ([0, 1], -1, 0, "-1 pictures to hold"),
        ([0, 1], 1.5, 0, "fraction 1.5 to hold"),
        ([0, 1], float("nan"), 0, "fraction nan to hold"),
        ([0, 1], True, 0, "fraction True to hold"),
        ([0, 1], 0.5, -1, "seed -1, expected"),
        ([0, 1], 0.5, 0.5, "seed 0.5, expected"),
        ([0.0, 1.0], 0.5, 0, "type float64, expected integers"),
        ([0, -1], 0.5, 0, "expected integers"),
        ([[0]], 0.5, 0, r"shape \(1, 1\)"),
    ],
)
def test_a_split_that_cannot_be_is_refused(labels, amount, seed, message):
    with pytest.raises(UsageError, match=message):
        stratified_split(np.array(labels), amount, seed)
