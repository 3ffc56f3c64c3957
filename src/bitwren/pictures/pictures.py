"""Labelled pictures in memory, and the seeded split that sets some of them aside."""

from dataclasses import dataclass

import numpy as np

from bitwren.errors import DataError, UsageError


@dataclass(frozen=True, eq=False)
class Pictures:
    """Pictures of one size, as raw pixels, with their labels.

    images: uint8 (N, C, H, W), C is 1 (grey) or 3 (red, green, blue), values 0..255, nothing subtracted or scaled.
    labels: int64 (N,), 0 <= label < len(classes).
    classes: the name of each label, all different.

    Raises DataError where shapes, dtypes or ranges are otherwise.
    """

    images: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]

    def __post_init__(self):
        """Refuse arrays that are not as the class says."""
        images, labels = self.images, self.labels
        if not isinstance(images, np.ndarray) or images.dtype != np.uint8:
            raise DataError(f"pictures: images are {_kind(images)}, expected uint8")
        if images.ndim != 4 or images.shape[1] not in (1, 3) or 0 in images.shape[2:]:
            raise DataError(f"pictures: images have shape {images.shape}, expected (N, 1 or 3, H, W)")
        if not isinstance(labels, np.ndarray) or labels.dtype != np.int64:
            raise DataError(f"pictures: labels are {_kind(labels)}, expected int64")
        if labels.shape != images.shape[:1]:
            raise DataError(f"pictures: labels have shape {labels.shape}, expected {images.shape[:1]}, one per image")
        if not isinstance(self.classes, tuple) or not all(isinstance(name, str) for name in self.classes):
            raise DataError(f"pictures: classes are {self.classes!r}, expected a tuple of names")
        if not self.classes or len(set(self.classes)) != len(self.classes):
            raise DataError(f"pictures: {len(self.classes)} class names, expected 1 or more, all different")
        if labels.size and not 0 <= int(labels.min()) <= int(labels.max()) < len(self.classes):
            raise DataError(
                f"pictures: labels run from {labels.min()} to {labels.max()}, expected 0 to {len(self.classes) - 1}"
            )

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self.labels)

    def take(self, indices: np.ndarray) -> "Pictures":
        """Return a copy of the pictures at these places, in this order.

        indices: integers (M,), 0 <= index < N.  Raises DataError for an index outside.
        """
        indices = np.asarray(indices, dtype=np.int64)
        if indices.ndim != 1 or (indices.size and not 0 <= int(indices.min()) <= int(indices.max()) < len(self)):
            raise DataError(f"pictures: indices of shape {indices.shape}, expected (M,) within 0 to {len(self) - 1}")
        return Pictures(self.images[indices], self.labels[indices], self.classes)


@dataclass(frozen=True, eq=False)
class Split:
    """A training and a test set with the same classes and the same picture shape (C, H, W)."""

    train: Pictures
    test: Pictures

    def __post_init__(self):
        """Refuse two sets that one network could not serve."""
        if self.train.classes != self.test.classes:
            raise DataError(
                f"split: {len(self.test.classes)} test classes {self.test.classes[:3]}... differ from the "
                f"{len(self.train.classes)} of training {self.train.classes[:3]}..., expected the same"
            )
        if self.train.images.shape[1:] != self.test.images.shape[1:]:
            raise DataError(
                f"split: test pictures are {self.test.images.shape[1:]}, expected {self.train.images.shape[1:]}"
            )


def stratified_split(labels: np.ndarray, fraction_or_count: float | int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (kept, held): which pictures stay and which are set aside, every class in its proportion.

    labels: integers (N,), >= 0.
    fraction_or_count: how many to hold; a float in [0, 1] is a share of N, rounded half up; an int is a number in 0..N.
    seed: >= 0.
    Returns two int64 arrays, each sorted, that together hold 0..N-1 once.

    Of `m` held from N, a class of n gets floor(n m / N), and what is left goes to the largest remainders, ties to the
    lower label; so each class gets n m / N to within one. Which ones is a pure function of the arguments: the pictures
    in the order of the raw 64-bit stream of PCG64, which NumPy promises never to change (its shuffles it may change).

    Raises UsageError for a fraction, count or seed out of range.
    """
    labels = np.asarray(labels)
    if labels.ndim != 1 or (labels.size and (labels.dtype.kind not in "iu" or labels.min() < 0)):
        raise UsageError(f"split: labels of shape {labels.shape}, type {labels.dtype}, expected integers (N,), >= 0")
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise UsageError(f"split: seed {seed!r}, expected an integer >= 0")
    total, held_total = len(labels), _held_total(fraction_or_count, len(labels))

    _, class_of, class_sizes = np.unique(labels, return_inverse=True, return_counts=True)
    # n * m fits in int64 up to 3e9 pictures.
    quotas, remainders = np.divmod(class_sizes.astype(np.int64) * held_total, max(total, 1))
    quotas[np.argsort(-remainders, kind="stable")[: held_total - int(quotas.sum())]] += 1

    order = np.argsort(np.random.PCG64(int(seed)).random_raw(total), kind="stable")
    held_mask = np.zeros(total, dtype=bool)
    for label, quota in enumerate(quotas):
        held_mask[order[class_of[order] == label][:quota]] = True
    return np.flatnonzero(~held_mask).astype(np.int64), np.flatnonzero(held_mask).astype(np.int64)


def _held_total(fraction_or_count: float | int, total: int) -> int:
    """Return how many of `total` to hold."""
    if isinstance(fraction_or_count, (int, np.integer)) and not isinstance(fraction_or_count, bool):
        if not 0 <= fraction_or_count <= total:
            raise UsageError(f"split: {fraction_or_count} pictures to hold, expected 0 to {total}")
        return int(fraction_or_count)
    if not isinstance(fraction_or_count, (float, np.floating)) or not 0.0 <= fraction_or_count <= 1.0:
        raise UsageError(f"split: fraction {fraction_or_count!r} to hold, expected 0.0 to 1.0")
    return int(fraction_or_count * total + 0.5)


def _kind(value: object) -> str:
    return str(value.dtype) if isinstance(value, np.ndarray) else f"a {type(value).__name__}"
