"""Folders of pictures: train/<class>/* and test/<class>/*, or one folder per class."""

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bitwren.errors import DataError, UsageError
from bitwren.pictures.decode import check_target, decode, quiet_pillow
from bitwren.pictures.pictures import Pictures, Split, stratified_split

# The test set of a folder without one: a fifth, always chosen by this seed, so that it does not move with the seed of a
# training run and no test picture is ever trained on.
TEST_SEED = 0
TEST_SHARE = 5  # one picture in five

# Companions of pictures that are not pictures. Everything else must decode, or is an error that names it.
_NOT_PICTURES = frozenset(
    (".txt", ".csv", ".tsv", ".json", ".jsonl", ".xml", ".md", ".html", ".yaml", ".yml", ".toml", ".ini", ".db", ".log")
)
_BATCH = 64  # files a task: few enough for a smooth bar, enough to make the pool's own cost vanish
# Decoding frees Python's lock only inside the codec. Below some 16 KiB a file the threads mostly wait for one another:
# 10,000 JPEGs of 32x32 take 1.1 s with one thread and 1.6 s with two; 400 of 500x500 take 1.2 s and 0.5 s.
_WORTH_THREADS = 16 * 1024  # bytes


@dataclass(frozen=True, eq=False)
class FolderListing:
    """The pictures of a folder, named but not yet read.

    train_files, test_files: paths, by class and then by name. train_labels, test_labels: int64 (N,),
    0 <= label < len(classes). classes: the folder names, sorted.
    """

    train_files: tuple[str, ...]
    train_labels: np.ndarray
    test_files: tuple[str, ...]
    test_labels: np.ndarray
    classes: tuple[str, ...]


def list_folder(path: str | Path) -> FolderListing:
    """Return the pictures of a folder in either of two layouts.

    - train/<class>/* with test/<class>/* (or val/<class>/*, where there is no test/);
    - <class>/*: a fifth of each class becomes the test set, chosen by a fixed seed.

    Hidden files and text files (.txt, .csv, .json...) are passed over. A folder is of the first kind if it has a train/
    that itself has folders in it, so a class may be called "train".
    Raises DataError naming the folder: missing, without classes, an empty class, a folder inside a class, classes that
    differ between train and test, or fewer than 5 pictures in a class that must be split.
    """
    root = Path(path)
    names = _folders_in(root)
    if "train" in names and _folders_in(root / "train"):
        test = next((name for name in ("test", "val") if name in names), None)
        if test is None:
            raise DataError(f"{root}: has train/ but no test/ and no val/, expected one of them")
        train_files, train_labels, classes = _list_classes(root / "train")
        test_files, test_labels, test_classes = _list_classes(root / test)
        for name in sorted(set(classes) ^ set(test_classes)):
            there, missing = ("train", test) if name in classes else (test, "train")
            raise DataError(f"{root}: class {name!r} is in {there}/ but not in {missing}/, expected the same in both")
        return FolderListing(train_files, train_labels, test_files, test_labels, classes)

    files, labels, classes = _list_classes(root)
    for label, count in enumerate(np.bincount(labels, minlength=len(classes))):
        if count < TEST_SHARE:
            raise DataError(
                f"{root / classes[label]}: {count} pictures, expected {TEST_SHARE} or more to set a test picture aside "
                f"(or folders train/ and test/)"
            )
    # Rounded up, so that every class of 5 or more gives at least one.
    kept, held = stratified_split(labels, -(-len(files) // TEST_SHARE), TEST_SEED)
    return FolderListing(
        tuple(files[i] for i in kept), labels[kept], tuple(files[i] for i in held), labels[held], classes
    )


def load_folder(
    path: str | Path | FolderListing,
    size: tuple[int, int] | None = None,
    channels: int = 3,
    progress: bool = True,
) -> Split:
    """Return all pictures of a folder (see list_folder) in memory, decoded as read_picture does.

    size: (H, W), or None if all pictures have one size. channels: 1 or 3.
    progress: a bar on stderr, where that is a terminal and tqdm is installed.
    Raises DataError naming the first file that cannot be read; UsageError naming the first file of another size, if
    size is None.
    """
    check_target(size, channels)
    listing = path if isinstance(path, FolderListing) else list_folder(path)
    files = listing.train_files + listing.test_files
    images = decode_files(files, size, channels, progress)  # uint8 (train + test, C, H, W)
    border = len(listing.train_files)
    return Split(
        Pictures(images[:border], listing.train_labels, listing.classes),
        Pictures(images[border:], listing.test_labels, listing.classes),
    )


def decode_files(files: Sequence[str], size: tuple[int, int] | None, channels: int, progress: bool) -> np.ndarray:
    """Return uint8 (N, channels, H, W): the pictures of these files, in their order.

    size None: the size of the first picture, which all others must have. Decodes in threads where that pays.
    Raises as load_folder.
    """
    with quiet_pillow():
        first = decode(files[0], size, channels)
    workers = os.cpu_count() if os.path.getsize(files[0]) >= _WORTH_THREADS else 1
    with quiet_pillow(), ThreadPoolExecutor(workers) as pool:
        images = np.empty((len(files), *first.shape), np.uint8)

        def fill(start: int) -> int:
            batch = files[start : start + _BATCH]
            for place, file in enumerate(batch, start):
                pixels = decode(file, size, channels)
                if pixels.shape != first.shape:
                    raise UsageError(
                        f"{file}: picture of {pixels.shape[1]}x{pixels.shape[2]} pixels, the first has "
                        f"{first.shape[1]}x{first.shape[2]}; set data.image_size to scale all to one size"
                    )
                images[place] = pixels
            return len(batch)

        tasks = [pool.submit(fill, start) for start in range(0, len(files), _BATCH)]
        try:
            with _bar(len(files), progress) as advance:
                for task in tasks:  # in order, so that the error reported is always the first in the listing
                    advance(task.result())
        finally:
            pool.shutdown(cancel_futures=True)
    return images


@contextmanager
def _bar(total: int, wanted: bool) -> Iterator:
    """Give a function to call with the number of pictures done."""
    try:
        from tqdm import tqdm
    except ImportError:
        yield lambda count: None
        return
    # disable=None: tqdm is silent where stderr is not a terminal.
    with tqdm(total=total, desc="reading pictures", unit="", disable=None if wanted else True) as bar:
        yield bar.update


def _list_classes(folder: Path) -> tuple[tuple[str, ...], np.ndarray, tuple[str, ...]]:
    """Return (files, labels, classes) of a folder of class folders."""
    classes = tuple(_folders_in(folder))
    if not classes:
        raise DataError(f"{folder}: no folders in it, expected one per class")
    files: list[str] = []
    counts = []
    for name in classes:
        in_class = _pictures_in(folder / name)
        if not in_class:
            raise DataError(f"{folder / name}: 0 pictures, expected 1 or more in each class")
        files += in_class
        counts.append(len(in_class))
    return tuple(files), np.repeat(np.arange(len(classes), dtype=np.int64), counts), classes


def _folders_in(folder: Path) -> list[str]:
    return sorted(entry.name for entry in _entries(folder) if _is_folder(entry))


def _pictures_in(folder: Path) -> list[str]:
    names = []
    for entry in _entries(folder):
        if _is_folder(entry):
            raise DataError(f"{entry.path}: a folder inside a class, expected pictures")
        if os.path.splitext(entry.name)[1].lower() not in _NOT_PICTURES:
            names.append(entry.path)
    return sorted(names)


def _entries(folder: Path) -> Iterable[os.DirEntry]:
    """Return what a folder holds, hidden entries left out."""
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        reason = "no such folder" if isinstance(error, FileNotFoundError) else (error.strerror or str(error)).lower()
        raise DataError(f"{folder}: {reason}, expected a folder of pictures") from error


def _is_folder(entry: os.DirEntry) -> bool:
    """Return whether this is a folder or a link to one; a link that leads nowhere is left to the decoder to refuse."""
    try:
        return entry.is_dir()
    except OSError:
        return False
