"""The binary files in which data sets are published: IDX, CIFAR records, SVHN's MATLAB file, ImageNet32's npz.

Every reader checks each length before it uses it, loads nothing that could run code (no pickle), and raises DataError
with one line: the file, the value got, the value expected.
"""

import gzip
import io
import tarfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from bitwren.errors import DataError, UsageError

CIFAR_PIXELS = 3 * 32 * 32  # red plane, green plane, blue plane, each 32 rows of 32
_IDX_LIMIT = 1 << 31  # bytes; MNIST has 47 MB. Bounds what a forged header can make us reserve


def read_idx(path: str | Path, dimensions: int) -> np.ndarray:
    """Return the array of an IDX file of bytes, gzipped or plain (told by its first two bytes, not its name).

    Layout, big-endian: 0, 0, type 0x08 (unsigned byte), number of dimensions, one uint32 a dimension, the data.
    dimensions: 1 for labels, 3 for images. Returns uint8 (N,) or (N, H, W).
    Raises DataError: unreadable, another magic number, a size that the file does not have.
    """
    try:
        with open(path, "rb") as raw:
            zipped = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            with gzip.GzipFile(fileobj=raw) if zipped else io.BufferedReader(raw) as stream:
                return _idx_array(path, stream, dimensions)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read as an IDX file ({_words(error)})") from error


def _idx_array(path: str | Path, stream: io.BufferedIOBase, dimensions: int) -> np.ndarray:
    magic, expected_magic = stream.read(4), bytes((0, 0, 8, dimensions))
    if magic != expected_magic:
        raise DataError(f"{path}: IDX magic number {magic.hex() or 'missing'}, expected {expected_magic.hex()}")
    header = stream.read(4 * dimensions)
    if len(header) != 4 * dimensions:
        raise DataError(f"{path}: {len(header)} bytes of IDX sizes, expected {4 * dimensions}")
    shape = tuple(int(side) for side in np.frombuffer(header, ">u4"))
    count = 1
    for side in shape:
        count *= side  # Python integers: three uint32 can exceed 64 bits
    if count > _IDX_LIMIT:
        raise DataError(f"{path}: IDX sizes {shape} make {count} bytes, expected at most {_IDX_LIMIT}")
    data = stream.read(count + 1)
    if len(data) != count:
        got = f"{len(data)}" if len(data) < count else f"more than {count}"
        raise DataError(f"{path}: {got} bytes of IDX data, expected {count} for sizes {shape}")
    return np.frombuffer(data, np.uint8).reshape(shape).copy()


def read_tar_members(path: str | Path, sizes: Mapping[str, int]) -> dict[str, bytes]:
    """Return the named members of a .tar.gz, read as a stream; nothing is unpacked to disk.

    sizes: exact member name -> its bytes, checked before the member is read.
    Raises DataError: unreadable, a member missing, not a plain file, or of another size.
    """
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(path, "r|gz") as archive:
            for member in archive:
                if member.name not in sizes:
                    continue
                if not member.isreg() or member.size != sizes[member.name]:
                    kind = f"{member.size} bytes" if member.isreg() else "not a plain file"
                    raise DataError(f"{path}: {member.name} is {kind}, expected {sizes[member.name]} bytes")
                found[member.name] = archive.extractfile(member).read()
    except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
        raise DataError(f"{path}: cannot be read as a .tar.gz archive ({_words(error)})") from error
    for name in sizes:
        if len(found.get(name, b"")) != sizes[name]:
            raise DataError(f"{path}: {name} has {len(found.get(name, b''))} bytes, expected {sizes[name]}")
    return found


def cifar_record_bytes(label_bytes: int) -> int:
    """Return the bytes of one record: the labels, then the pixels."""
    return label_bytes + CIFAR_PIXELS


def parse_cifar(data: bytes, where: str, label_bytes: int, classes: int, records: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (images, labels) of CIFAR's binary form.

    label_bytes: 1 for CIFAR-10; 2 for CIFAR-100 (coarse, then fine: the fine one is used).
    classes: each label must be below. records: how many the data must hold. where: file (and member) for messages.
    Returns uint8 (N, 3, 32, 32) and int64 (N,).  Raises DataError.
    """
    expected = records * cifar_record_bytes(label_bytes)
    if len(data) != expected:
        raise DataError(f"{where}: {len(data)} bytes, expected {expected} for {records} CIFAR records")
    table = np.frombuffer(data, np.uint8).reshape(records, cifar_record_bytes(label_bytes))
    labels = table[:, label_bytes - 1].astype(np.int64)
    if records and labels.max() >= classes:
        record = int(np.argmax(labels >= classes))
        raise DataError(f"{where}: record {record} has label {labels[record]}, expected 0 to {classes - 1}")
    return table[:, label_bytes:].reshape(records, 3, 32, 32).copy(), labels


def read_svhn(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Return (images, labels) of an SVHN "cropped digits" file: X uint8 (32, 32, 3, N), y (N, 1) with 1..10.

    The file's label 10 stands for the digit 0 and becomes 0.
    Returns uint8 (N, 3, 32, 32) and int64 (N,), 0..9.
    Raises DataError for a broken file, UsageError where SciPy is missing.
    """
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise UsageError("reading SVHN needs SciPy, which is missing; pip install 'bitwren[train]'") from error
    # SciPy meets damaged bytes with ValueError, TypeError, MatReadError, zlib.error, MemoryError...
    try:
        content = loadmat(path, variable_names=["X", "y"])
    except Exception as error:
        raise DataError(f"{path}: cannot be read as a MATLAB file ({_words(error)})") from error
    for name in ("X", "y"):
        if name not in content:
            raise DataError(f"{path}: no array {name}, expected X (pixels) and y (labels)")
    pixels, digits = content["X"], content["y"]
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[:3] != (32, 32, 3):
        raise DataError(f"{path}: X is {pixels.dtype} {pixels.shape}, expected uint8 (32, 32, 3, N)")
    labels = _whole_labels(path, "y", digits.reshape(-1), pixels.shape[3], 1, 10)
    return np.ascontiguousarray(pixels.transpose(3, 2, 0, 1)), labels % 10


def read_imagenet32(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Return (images, labels) of one ImageNet32 npz: data uint8 (N, 3072), labels (N,) with 1..1000.

    Returns uint8 (N, 3, 32, 32) and int64 (N,), 0..999.  Raises DataError; an array that would need pickle is refused.
    """
    # A broken zip, deflate stream, array header or pickled array: BadZipFile, zlib.error, ValueError, KeyError...
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError("a single array, not an .npz archive")
        with archive:
            pixels, numbers = archive["data"], archive["labels"]
    except Exception as error:
        raise DataError(f"{path}: cannot be read as ImageNet32 data and labels ({_words(error)})") from error
    if pixels.dtype != np.uint8 or pixels.ndim != 2 or pixels.shape[1] != CIFAR_PIXELS:
        raise DataError(f"{path}: data is {pixels.dtype} {pixels.shape}, expected uint8 (N, {CIFAR_PIXELS})")
    labels = _whole_labels(path, "labels", numbers, len(pixels), 1, 1000) - 1
    return pixels.reshape(-1, 3, 32, 32), labels


def _whole_labels(path: str | Path, name: str, labels: np.ndarray, count: int, lowest: int, highest: int) -> np.ndarray:
    """Return the labels as int64, having checked that there are `count` whole numbers in lowest..highest."""
    if labels.dtype.kind not in "iu" or labels.shape != (count,):
        raise DataError(f"{path}: {name} is {labels.dtype} {labels.shape}, expected {count} integers")
    if count and not lowest <= int(labels.min()) <= int(labels.max()) <= highest:
        raise DataError(f"{path}: {name} from {labels.min()} to {labels.max()}, expected {lowest} to {highest}")
    return labels.astype(np.int64)


def _words(error: BaseException) -> str:
    """Return an exception's message on one line."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return " ".join(str(error).split()) or type(error).__name__
