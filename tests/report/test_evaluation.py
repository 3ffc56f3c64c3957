"""Accuracy, its interval, ties and confusions, against numbers worked out by hand and a plain loop."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from bitwren.errors import DataError, UsageError
from bitwren.report.evaluation import evaluate_logits, format_evaluation, most_confused, wilson_interval

CLASSES = ("cat", "dog", "ship")
LOGITS = np.array([[3, 1, 0], [0, 2, 1], [5, 4, 0], [2, 9, 1], [0, 1, 0]])
LABELS = np.array([0, 1, 1, 0, 1])  # right, right, dog as cat, cat as dog, right; no ship


def test_by_hand():
    evaluation = evaluate_logits(LOGITS, LABELS, CLASSES)
    assert (evaluation.count, evaluation.top1, evaluation.top5) == (5, 0.6, 1.0)
    assert evaluation.confusion.tolist() == [[1, 1, 0], [1, 2, 0], [0, 0, 0]]
    assert evaluation.per_class == (0.5, 2 / 3, None)


def test_equal_logits_go_to_the_lowest_class():
    logits = np.zeros((7, 7))
    evaluation = evaluate_logits(logits, np.arange(7), [str(i) for i in range(7)])
    assert evaluation.confusion[:, 0].tolist() == [1] * 7
    assert evaluation.top1 == 1 / 7
    assert evaluation.top5 == 5 / 7  # classes 0 to 4 are the five first


def test_top5_counts_exactly_five():
    logits = np.array([[6.0, 5, 4, 3, 2, 1]])
    names = "abcdef"
    assert [evaluate_logits(logits, np.array([i]), names).top5 for i in range(6)] == [1, 1, 1, 1, 1, 0]


def test_integers_are_compared_exactly():
    big = 2**53  # as float64 it equals big + 1
    evaluation = evaluate_logits(np.array([[big, big + 1]]), np.array([1]), ("a", "b"))
    assert evaluation.top1 == 1.0


@given(st.data(), st.integers(1, 8), st.integers(1, 20))
def test_agrees_with_a_plain_loop(data, classes, pictures):
    row = st.lists(st.integers(-3, 3), min_size=classes, max_size=classes)
    logits = np.array(data.draw(st.lists(row, min_size=pictures, max_size=pictures)), np.int32)
    labels = np.array(data.draw(st.lists(st.integers(0, classes - 1), min_size=pictures, max_size=pictures)), np.uint8)
    confusion = np.zeros((classes, classes), int)
    top5 = 0
    for values, label in zip(logits.tolist(), labels.tolist(), strict=True):
        order = sorted(range(classes), key=lambda i: (-values[i], i))
        confusion[label, order[0]] += 1
        top5 += label in order[:5]
    names = [str(i) for i in range(classes)]
    for dtype in (np.int32, np.float32):
        evaluation = evaluate_logits(logits.astype(dtype), labels, names)
        assert evaluation.confusion.tolist() == confusion.tolist()
        assert evaluation.top5 == top5 / pictures
        assert evaluation.top1 == confusion.trace() / pictures


@pytest.mark.parametrize(("right", "count"), [(0, 1), (1, 1), (10, 10), (0, 40), (3, 7), (9625, 10000)])
def test_interval_is_that_of_scipy(right, count):
    expected = binomtest(right, count).proportion_ci(0.95, "wilson")
    assert wilson_interval(right, count) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize(
    ("logits", "labels", "classes", "error", "message"),
    [
        (np.zeros((2, 3)), np.array([0, 1]), ("a", "b"), UsageError, r"\(2, 3\), expected numbers \(pictures, 2\)"),
        (np.zeros(3), np.array([0]), CLASSES, UsageError, "expected numbers"),
        (np.zeros((1, 3), complex), np.array([0]), CLASSES, UsageError, "logits are complex128"),
        (np.zeros((2, 3)), np.array([0]), CLASSES, UsageError, r"labels are int64 \(1,\)"),
        (np.zeros((1, 3)), np.array([0.0]), CLASSES, UsageError, "labels are float64"),
        (np.zeros((0, 3)), np.zeros(0, int), CLASSES, UsageError, "0 pictures"),
        (np.zeros((2, 3)), np.array([0, 3]), CLASSES, UsageError, "label of picture 1 is 3, expected 0 to 2"),
        (np.zeros((2, 3)), np.array([-1, 0]), CLASSES, UsageError, "label of picture 0 is -1"),
        (np.array([[0, 1, 2], [0, np.nan, 0]]), np.array([0, 0]), CLASSES, DataError, "picture 1 are not finite"),
        (np.array([[0, 1, np.inf]]), np.array([0]), CLASSES, DataError, "picture 0 are not finite"),
    ],
)
def test_what_does_not_fit_is_refused(logits, labels, classes, error, message):
    with pytest.raises(error, match=message):
        evaluate_logits(logits, labels, classes)


def test_json_holds_everything():
    evaluation = evaluate_logits(LOGITS, LABELS, CLASSES)
    assert json.loads(json.dumps(evaluation.to_json(), allow_nan=False)) == {
        "pictures": 5,
        "top1": 0.6,
        "top1_interval_95": list(evaluation.interval),
        "top5": 1.0,
        "classes": [
            {"name": "cat", "pictures": 2, "accuracy": 0.5},
            {"name": "dog", "pictures": 3, "accuracy": 2 / 3},
            {"name": "ship", "pictures": 0, "accuracy": None},
        ],
        "confusion": [[1, 1, 0], [1, 2, 0], [0, 0, 0]],
    }


def test_terminal_text():
    assert format_evaluation(evaluate_logits(LOGITS, LABELS, CLASSES)).splitlines() == [
        "top-1 60.00% (95% interval 23.07% to 88.24%), 5 pictures",
        "",
        "by class",
        "  cat    50.00%  1 of 2",
        "  dog    66.67%  2 of 3",
        "  ship  no pictures",
        "",
        "most frequent confusions",
        "  cat taken for dog: once",
        "  dog taken for cat: once",
    ]


def test_many_classes_show_the_worst_and_the_best():
    classes = [f"c{i:02}" for i in range(30)]
    labels = np.repeat(np.arange(29), 4)  # the last class has no picture
    predicted = labels.copy()
    predicted[[20, 21, 22, 24]] = [7, 7, 7, 0]  # three of c05 taken for c07, one of c06 for c00
    text = format_evaluation(evaluate_logits(np.eye(30)[predicted], labels, classes)).splitlines()
    # The mistakes' true class has logit 0 as c00 to c04 have, which come first.
    assert text[0].startswith("top-1 96.55% (95% interval ") and text[0].endswith("), top-5 96.55%, 116 pictures")
    worst = text.index("worst 10 of 30 classes")
    assert text[worst + 1 : worst + 3] == ["  c05   25.00%  1 of 4", "  c06   75.00%  3 of 4"]
    best = text.index("best 10")
    assert best == worst + 12 and text[best + 1].startswith("  c28  100.00%")
    assert text[-2:] == ["  c05 taken for c07: 3 times", "  c06 taken for c00: once"]
    assert not any("c29" in line for line in text)


def test_no_class_is_both_among_the_worst_and_the_best():
    classes = [f"c{i}" for i in range(40)]
    text = format_evaluation(evaluate_logits(np.eye(40)[[0, 1, 2]], np.arange(3), classes))
    assert "worst 2 of" in text and "best 1" in text and "confusions" not in text
    one = format_evaluation(evaluate_logits(np.eye(40)[[0]], np.array([0]), classes))
    assert one.splitlines()[0].endswith("1 picture") and "best" not in one


def test_confusions_come_most_frequent_first_and_never_the_diagonal():
    logits = np.eye(3)[[0, 0, 0, 0, 1, 2, 2]]
    evaluation = evaluate_logits(logits, np.array([0, 0, 0, 1, 2, 1, 1]), CLASSES)
    assert most_confused(evaluation) == [("dog", "ship", 2), ("dog", "cat", 1), ("ship", "dog", 1)]
    assert most_confused(evaluation, 1) == [("dog", "ship", 2)]
