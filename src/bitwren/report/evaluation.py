"""How well a network classifies: accuracy with its uncertainty, per class, and what is taken for what. NumPy only."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from bitwren.errors import DataError, UsageError

TOP = 5
Z95 = 1.959963984540054  # two-sided 95 % quantile of the normal distribution
FEW_CLASSES = 20  # up to here the terminal shows every class
EXTREMES = 10  # beyond, that many of the worst and of the best
CONFUSIONS = 3


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluation:
    """What a network got right and wrong on labelled pictures. All accuracies are 0..1.

    top1, top5: share of the pictures whose class has the largest logit, one of the min(5, K) largest.
    interval: 95 % Wilson interval of top1, (low, high).
    per_class: accuracy of each class, None where no picture has it.
    confusion: (K, K) int64, rows the true class, columns the predicted one.
    """

    classes: tuple[str, ...]
    count: int
    top1: float
    top5: float
    interval: tuple[float, float]
    per_class: tuple[float | None, ...]
    confusion: np.ndarray

    def to_json(self) -> dict:
        """Return everything as plain dictionaries, lists and numbers, None where a class has no picture."""
        pictures = self.confusion.sum(1).tolist()
        rows = zip(self.classes, pictures, self.per_class, strict=True)
        return {
            "pictures": self.count,
            "top1": self.top1,
            "top1_interval_95": list(self.interval),
            "top5": self.top5,
            "classes": [{"name": name, "pictures": n, "accuracy": accuracy} for name, n, accuracy in rows],
            "confusion": self.confusion.tolist(),
        }


def wilson_interval(right: int, count: int) -> tuple[float, float]:
    """Return the 95 % interval (low, high) of a share: `right` of `count` >= 1 trials.

    E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927), 209-212.
    Unlike share +- 1.96 sigma it stays within 0..1 and does not collapse where all or none are right.
    """
    share, z2n = right / count, Z95**2 / count
    centre = (share + z2n / 2) / (1 + z2n)
    half = Z95 / (1 + z2n) * math.sqrt(share * (1 - share) / count + z2n / (4 * count))
    return max(centre - half, 0.0), min(centre + half, 1.0)  # rounding alone can step over the ends


def evaluate_logits(logits: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> Evaluation:
    """Return the evaluation of logits (N, K), real or integer, against labels (N,), integers 0..K-1; N >= 1.

    Where logits are equal, the lowest class index wins, as with argmax. Integer logits are compared exactly.
    Raises UsageError for shapes, types or labels that do not fit, DataError for logits that are not finite.
    """
    logits, labels, classes = np.asarray(logits), np.asarray(labels), tuple(classes)
    if logits.ndim != 2 or logits.shape[1] != len(classes) or logits.dtype.kind not in "iuf":
        raise UsageError(f"logits are {logits.dtype} {logits.shape}, expected numbers (pictures, {len(classes)})")
    if labels.shape != logits.shape[:1] or labels.dtype.kind not in "iu":
        raise UsageError(f"labels are {labels.dtype} {labels.shape}, expected integers {logits.shape[:1]}")
    if len(labels) == 0 or not classes:
        raise UsageError(f"{len(labels)} pictures and {len(classes)} classes to evaluate, expected at least 1 of each")
    wrong = np.flatnonzero((labels < 0) | (labels >= len(classes)))
    if len(wrong):
        raise UsageError(f"label of picture {wrong[0]} is {labels[wrong[0]]}, expected 0 to {len(classes) - 1}")
    broken = np.flatnonzero(~np.isfinite(logits).all(1))
    if len(broken):
        raise DataError(f"logits of picture {broken[0]} are not finite (of {len(broken)} pictures in all)")

    labels = labels.astype(np.int64)
    predicted = logits.argmax(1)
    own = np.take_along_axis(logits, labels[:, None], 1)  # (N, 1)
    earlier = np.arange(len(classes)) < labels[:, None]
    rank = ((logits > own) | ((logits == own) & earlier)).sum(1)  # classes ahead of the true one
    confusion = np.zeros((len(classes), len(classes)), np.int64)
    np.add.at(confusion, (labels, predicted), 1)
    right = int((predicted == labels).sum())
    rows = zip(confusion.diagonal().tolist(), confusion.sum(1).tolist(), strict=True)
    return Evaluation(
        classes=classes,
        count=len(labels),
        top1=right / len(labels),
        top5=float((rank < TOP).mean()),
        interval=wilson_interval(right, len(labels)),
        per_class=tuple(hits / pictures if pictures else None for hits, pictures in rows),
        confusion=confusion,
    )


def most_confused(evaluation: Evaluation, most: int = CONFUSIONS) -> list[tuple[str, str, int]]:
    """Return up to `most` of the most frequent errors, as (true class, predicted class, pictures)."""
    errors = evaluation.confusion - np.diag(evaluation.confusion.diagonal())
    order = np.argsort(-errors, axis=None, kind="stable")[:most]  # stable: equals in the order of the classes
    pairs = [divmod(int(i), len(evaluation.classes)) for i in order]
    names = evaluation.classes
    return [(names[true], names[taken], int(errors[true, taken])) for true, taken in pairs if errors[true, taken]]


def _class_lines(evaluation: Evaluation, indices: Sequence[int]) -> list[str]:
    width = max(len(evaluation.classes[i]) for i in indices)
    right, pictures = evaluation.confusion.diagonal(), evaluation.confusion.sum(1)
    digits = len(str(pictures.max()))
    lines = []
    for i in indices:
        accuracy = evaluation.per_class[i]
        text = "no pictures"
        if accuracy is not None:
            text = f"{accuracy:7.2%}  {right[i]:{digits}} of {pictures[i]:{digits}}"
        lines.append(f"  {evaluation.classes[i]:{width}}  {text}")
    return lines


def format_evaluation(evaluation: Evaluation) -> str:
    """Return the evaluation for the terminal: summary, classes (beyond 20 the worst and best 10), confusions."""
    low, high = evaluation.interval
    pictures = "1 picture" if evaluation.count == 1 else f"{evaluation.count:,} pictures"
    top5 = f", top-5 {evaluation.top5:.2%}" if len(evaluation.classes) > TOP else ""  # else every picture's is
    lines = [f"top-1 {evaluation.top1:.2%} (95% interval {low:.2%} to {high:.2%}){top5}, {pictures}", ""]
    if len(evaluation.classes) <= FEW_CLASSES:
        lines += ["by class", *_class_lines(evaluation, range(len(evaluation.classes)))]
    else:
        measured = [i for i, accuracy in enumerate(evaluation.per_class) if accuracy is not None]
        ranked = sorted(measured, key=lambda i: evaluation.per_class[i])
        # Few classes may have pictures; then none is among both the worst and the best.
        worst, best = ranked[: min(EXTREMES, (len(ranked) + 1) // 2)], ranked[::-1][: min(EXTREMES, len(ranked) // 2)]
        lines += [f"worst {len(worst)} of {len(evaluation.classes)} classes", *_class_lines(evaluation, worst)]
        if best:
            lines += ["", f"best {len(best)}", *_class_lines(evaluation, best)]
    confused = most_confused(evaluation)
    if confused:
        times = [f"  {true} taken for {taken}: {_times(n)}" for true, taken, n in confused]
        lines += ["", "most frequent confusions", *times]
    return "\n".join(lines)


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count:,} times"
