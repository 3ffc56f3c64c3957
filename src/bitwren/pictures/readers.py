"""From the checked files of a data set to its arrays: one function per form in which data sets are published.

Each takes the row of the table and the paths of its files by name, and returns (train, test), each uint8 (N, C, H, W)
with int64 (N,). Each raises DataError for what is broken, UsageError for a library that is missing.
"""

from importlib.util import find_spec
from pathlib import Path

import numpy as np

from bitwren.errors import DataError, UsageError
from bitwren.pictures.folder import TEST_SEED
from bitwren.pictures.formats import (
    cifar_record_bytes,
    parse_cifar,
    read_idx,
    read_imagenet32,
    read_svhn,
    read_tar_members,
)
from bitwren.pictures.pictures import stratified_split
from bitwren.pictures.registry import Dataset, DatasetFile

Arrays = tuple[np.ndarray, np.ndarray]  # uint8 (N, C, H, W), int64 (N,)


def read_digits(entry: Dataset, _: dict[str, Path]) -> tuple[Arrays, Arrays]:
    """Return scikit-learn's digits, 0..16 made 0..255; the test fifth never changes."""
    package = find_spec("sklearn")
    if package is None:
        raise UsageError("the digits come with scikit-learn, which is missing; pip install 'bitwren[train]'")
    # Its file alone: load_digits would import the whole of scikit-learn, which takes seconds.
    path = Path(package.submodule_search_locations[0], "datasets", "data", "digits.csv.gz")
    try:
        # A row a picture: 64 values of 0..16, the label.
        table = np.loadtxt(path, delimiter=",", dtype=np.int64).reshape(-1, 65)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: scikit-learn's digits cannot be read: {error}") from None
    # v * 255 / 16 lies at most halfway between integers at v = 8 (127.5), which rint takes to the even 128.
    images = np.rint(table[:, :64] * 255 / 16).astype(np.uint8).reshape(-1, 1, 8, 8)
    labels = table[:, 64]
    kept, held = stratified_split(labels, entry.test_count, TEST_SEED)
    return (images[kept], labels[kept]), (images[held], labels[held])


def read_idx_set(entry: Dataset, paths: dict[str, Path]) -> tuple[Arrays, Arrays]:
    """Read two pairs of IDX files, pictures and labels."""

    def part(files: tuple[DatasetFile, ...]) -> Arrays:
        images_path, labels_path = (paths.get(file.name) or paths[file.unpacked[0][0]] for file in files)
        images, labels = read_idx(images_path, 3), read_idx(labels_path, 1)
        if len(images) != len(labels):
            raise DataError(f"{labels_path}: {len(labels)} labels, expected {len(images)}, one per picture")
        if len(labels) and labels.max() >= len(entry.classes):
            raise DataError(f"{labels_path}: label {labels.max()}, expected 0 to {len(entry.classes) - 1}")
        return images[:, np.newaxis], labels.astype(np.int64)

    return part(entry.train_files), part(entry.test_files)


def read_cifar_set(entry: Dataset, paths: dict[str, Path]) -> tuple[Arrays, Arrays]:
    """Read the one archive, or the files that it held; the test file is its last."""
    (archive,) = entry.files
    names = [name for name, _ in archive.unpacked]
    label_bytes = 2 if len(entry.classes) == 100 else 1
    records = dict.fromkeys(names[:-1], entry.train_count // (len(names) - 1)) | {names[-1]: entry.test_count}
    if archive.name in paths:
        path = paths[archive.name]
        inside = {name: f"{entry.folders[0]}/{name}" for name in names}
        sizes = {inside[name]: records[name] * cifar_record_bytes(label_bytes) for name in names}
        members = read_tar_members(path, sizes)
        blocks = {name: (members[inside[name]], f"{path}: {inside[name]}") for name in names}
    else:
        blocks = {name: (paths[name].read_bytes(), str(paths[name])) for name in names}
    parts = [parse_cifar(*blocks[name], label_bytes, len(entry.classes), records[name]) for name in names]
    return _joined(parts[:-1]), parts[-1]


def read_svhn_set(entry: Dataset, paths: dict[str, Path]) -> tuple[Arrays, Arrays]:
    """Read SVHN's MATLAB files, the extra ones after those of the training set proper."""
    return (
        _joined([read_svhn(paths[file.name]) for file in entry.train_files]),
        _joined([read_svhn(paths[file.name]) for file in entry.test_files]),
    )


def read_imagenet32_set(entry: Dataset, paths: dict[str, Path]) -> tuple[Arrays, Arrays]:
    """Read the batches one by one into the final array: 3.9 GB once, not twice."""
    images = np.empty((entry.train_count, 3, 32, 32), np.uint8)
    labels = np.empty(entry.train_count, np.int64)
    done = 0
    for file in entry.train_files:
        batch, batch_labels = read_imagenet32(paths[file.name])
        if done + len(batch) > entry.train_count:
            raise DataError(
                f"{paths[file.name]}: brings the training set to {done + len(batch)} pictures, "
                f"expected {entry.train_count}"
            )
        images[done : done + len(batch)], labels[done : done + len(batch)] = batch, batch_labels
        done += len(batch)
    return (images[:done], labels[:done]), read_imagenet32(paths[entry.test_files[0].name])


def _joined(parts: list[Arrays]) -> Arrays:
    images, labels = zip(*parts, strict=True)
    return np.concatenate(images), np.concatenate(labels)


# The form of a row of the table -> its reader. "folder" has none: its files are pictures.
READERS = {
    "digits": read_digits,
    "idx": read_idx_set,
    "cifar": read_cifar_set,
    "svhn": read_svhn_set,
    "imagenet32": read_imagenet32_set,
}
