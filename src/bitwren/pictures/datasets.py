"""A data set by name, loaded into memory or listed for streaming."""

from pathlib import Path

from bitwren.errors import DataError, UsageError
from bitwren.pictures.decode import check_target, read_picture
from bitwren.pictures.download import cache_folder, locate
from bitwren.pictures.folder import FolderListing, list_folder, load_folder
from bitwren.pictures.pictures import Pictures, Split
from bitwren.pictures.readers import READERS
from bitwren.pictures.registry import Dataset, find_dataset

MEMORY_LIMIT = 2 << 30  # bytes of decoded pixels above which a folder is streamed, not held


def load_dataset(
    name: str,
    data_dir: str | Path | None = None,
    *,
    size: tuple[int, int] | None = None,
    channels: int | None = None,
    download: bool = True,
    progress: bool = True,
) -> Split:
    """Return the training and the test set of a data set, in memory, as published.

    data_dir: searched first, itself and its subfolder of the data set's name; then cache_folder()/<name>, where
    downloads go. For "folder" it is the folder of pictures, and needed.
    size (H, W), channels: for a data set of one size, None or that size and number; for a folder, what its pictures are
    made into (None: the size that they all have, and 3).
    download: whether what is missing may be fetched. progress: bars on stderr, where that is a terminal.

    Raises UsageError (unknown name, size or channels that the set does not have, data_dir needed, a library missing)
    and DataError (missing, a wrong checksum, broken), one line each.
    """
    entry = find_dataset(name)
    if entry.streamed:
        raise UsageError(f"data set {name!r} does not fit in memory; list it with streamed() and read it in batches")
    if entry.form == "folder":
        return load_folder(_picture_folder(entry, data_dir), size, 3 if channels is None else channels, progress)
    for what, got, expected in (("size", size, entry.size), ("channels", channels, entry.channels)):
        if got is not None and got != expected:
            raise UsageError(f"data set {name!r} with {what} {got}, expected {expected}, the one that it has")
    cache = cache_folder() / name
    paths: dict[str, Path] = {}
    for file in entry.files:
        paths |= locate(file, _searched(entry, data_dir, cache), cache, download, progress)
    train, test = READERS[entry.form](entry, paths)
    for part, (images, _), count in (("train", train, entry.train_count), ("test", test, entry.test_count)):
        if len(images) != count or images.shape[1:] != (entry.channels, *entry.size):
            raise DataError(
                f"{name}: {part} pictures {images.shape}, expected {(count, entry.channels, *entry.size)} "
                f"in {', '.join(map(str, paths.values()))}"
            )
    return Split(Pictures(*train, entry.classes), Pictures(*test, entry.classes))


def streamed(
    name: str,
    data_dir: str | Path | None = None,
    size: tuple[int, int] | None = None,
    channels: int | None = None,
    limit: int = MEMORY_LIMIT,
) -> FolderListing | None:
    """Return what to stream, or None where load_dataset is the way.

    A listing comes back for ImageNet and for a folder whose decoded pixels exceed `limit` bytes.
    size: (H, W), needed for what is streamed; a folder without it is judged by its first picture.
    Raises as load_dataset; UsageError where a set must be streamed and size is None.
    """
    entry = find_dataset(name)
    if entry.form != "folder":
        return None
    channels = 3 if channels is None else channels
    check_target(size, channels)
    listing = list_folder(_picture_folder(entry, data_dir))
    height, width = size or read_picture(listing.train_files[0]).shape[1:]
    total = (len(listing.train_files) + len(listing.test_files)) * channels * height * width
    if not entry.streamed and total <= limit:
        return None
    if size is None:
        raise UsageError(f"data set {name!r} is streamed, and its pictures need one size; set data.image_size")
    return listing


def _picture_folder(entry: Dataset, data_dir: str | Path | None) -> Path:
    """Return the folder of pictures of a data set that is one."""
    if data_dir is None:
        raise UsageError(f"data set {entry.name!r} needs the folder of its pictures; name it with --data-dir")
    below = Path(data_dir) / entry.name
    return below if entry.streamed and below.is_dir() else Path(data_dir)


def _searched(entry: Dataset, data_dir: str | Path | None, cache: Path) -> list[Path]:
    """Return the folders to look in, in order."""
    if data_dir is not None and not Path(data_dir).is_dir():
        raise DataError(f"{data_dir}: no such folder, expected the files of data set {entry.name!r}")
    tops = ([] if data_dir is None else [Path(data_dir), Path(data_dir) / entry.name]) + [cache]
    return [folder for top in tops for folder in (top, *(top / below for below in entry.folders))] + [
        Path(folder) for folder in entry.system
    ]
