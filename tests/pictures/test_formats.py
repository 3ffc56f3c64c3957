import gzip
import io
import tarfile

import numpy as np
import pytest

from bitwren.errors import DataError
from bitwren.pictures.formats import parse_cifar, read_idx, read_imagenet32, read_svhn, read_tar_members


def idx(array):
    header = bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">u4").tobytes()
    return header + array.astype(np.uint8).tobytes()


IMAGES = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_idx_plain_and_gzipped_whatever_the_name(tmp_path, pack):
    path = tmp_path / "any.name"
    path.write_bytes(pack(idx(IMAGES)))
    assert np.array_equal(read_idx(path, 3), IMAGES)
    path.write_bytes(pack(bytes.fromhex("00000801 00000003 020700")))
    assert read_idx(path, 1).tolist() == [2, 7, 0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "magic number missing, expected 00000803"),
        (b"\0\0\x08\x01" + bytes(8), "magic number 00000801, expected 00000803"),
        (b"\0\0\x0d\x03" + bytes(8), "magic number 00000d03, expected 00000803"),
        (b"\0\0\x08\x03" + bytes(7), "7 bytes of IDX sizes, expected 12"),
        (idx(IMAGES)[:-1], r"23 bytes of IDX data, expected 24 for sizes \(2, 3, 4\)"),
        (idx(IMAGES) + b"x", "more than 24 bytes of IDX data, expected 24"),
        (b"\0\0\x08\x03" + b"\xff" * 12, "IDX sizes .* expected at most 2147483648"),
        (gzip.compress(idx(IMAGES), mtime=0)[:-9], "cannot be read as an IDX file"),
        (b"\x1f\x8b" + bytes(30), "cannot be read as an IDX file"),
    ],
)
def test_idx_errors(tmp_path, content, message):
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"{path}: .*{message}"):
        read_idx(path, 3)


def test_idx_missing(tmp_path):
    with pytest.raises(DataError, match="no such file or directory"):
        read_idx(tmp_path / "absent", 1)


def records(labels, label_bytes):
    """Record i: its labels, then pixels that are i in red, 100 + i in green, 200 + i in blue."""
    rows = []
    for i, label in enumerate(labels):
        planes = b"".join(bytes([base + i]) * 1024 for base in (0, 100, 200))
        rows.append(bytes([17] * (label_bytes - 1) + [label]) + planes)
    return b"".join(rows)


@pytest.mark.parametrize(("label_bytes", "classes"), [(1, 10), (2, 100)])
def test_cifar_records(label_bytes, classes):
    images, labels = parse_cifar(records([3, classes - 1], label_bytes), "x.bin", label_bytes, classes, 2)
    assert images.shape == (2, 3, 32, 32) and labels.tolist() == [3, classes - 1] and labels.dtype == np.int64
    assert images[1, :, 5, 6].tolist() == [1, 101, 201]
    assert (images.min(axis=(2, 3)) == images.max(axis=(2, 3))).all()


def test_cifar_pixels_are_row_major():
    record = bytes([0]) + bytes(range(256)) * 12
    images, _ = parse_cifar(record, "x.bin", 1, 10, 1)
    assert images[0, 0, 1, 2] == 34 and images[0, 2, 0, 3] == 3


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (records([1], 1)[:-1], "3072 bytes, expected 3073 for 1 CIFAR records"),
        (records([1, 1], 1), "6146 bytes, expected 3073 for 1 CIFAR records"),
        (records([10], 1), "record 0 has label 10, expected 0 to 9"),
    ],
)
def test_cifar_errors(data, message):
    with pytest.raises(DataError, match=f"x.bin: {message}"):
        parse_cifar(data, "x.bin", 1, 10, 1)


def tar(path, members):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            if content is None:
                info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
            else:
                info.size = len(content)
            archive.addfile(info, None if content is None else io.BytesIO(content))
    return path


def test_tar_members_are_read_by_exact_name(tmp_path):
    path = tar(tmp_path / "a.tar.gz", {"../d/one": b"bad", "d/one": b"123", "d/two": b"", "e": b"x"})
    assert read_tar_members(path, {"d/one": 3, "d/two": 0}) == {"d/one": b"123", "d/two": b""}
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.tar.gz"]


def test_tar_errors(tmp_path):
    path = tar(tmp_path / "a.tar.gz", {"d/one": b"123", "link": None})
    with pytest.raises(DataError, match=f"{path}: d/one is 3 bytes, expected 4 bytes"):
        read_tar_members(path, {"d/one": 4})
    with pytest.raises(DataError, match="link is not a plain file"):
        read_tar_members(path, {"link": 4})
    with pytest.raises(DataError, match="d/absent has 0 bytes, expected 9"):
        read_tar_members(path, {"d/absent": 9})
    whole = tar(path, {"d/one": np.random.default_rng(0).bytes(20000)}).read_bytes()
    path.write_bytes(whole[:5000])
    with pytest.raises(DataError, match=f"{path}: "):
        read_tar_members(path, {"d/one": 20000})
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(DataError, match=r"cannot be read as a \.tar\.gz archive"):
        read_tar_members(path, {"d/one": 3})


def test_svhn(tmp_path):
    savemat = pytest.importorskip("scipy.io").savemat
    path = tmp_path / "train_32x32.mat"
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 4)).astype(np.uint8)
    savemat(path, {"X": pixels, "y": np.array([[1], [10], [9], [5]], np.uint8)})
    images, labels = read_svhn(path)
    assert labels.tolist() == [1, 0, 9, 5] and labels.dtype == np.int64
    assert images[2, 1, 30, 4] == pixels[30, 4, 1, 2] and images.flags.c_contiguous


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"X": np.zeros((32, 32, 3, 2), np.uint8)}, "no array y, expected"),
        ({"y": np.ones((2, 1), np.uint8)}, "no array X, expected"),
        ({"X": np.zeros((32, 32, 3, 2)), "y": np.ones((2, 1), np.uint8)}, r"X is float64 \(32, 32, 3, 2\), expected"),
        ({"X": np.zeros((32, 3, 2), np.uint8), "y": np.ones((2, 1), np.uint8)}, r"X is uint8 \(32, 3, 2\), expected"),
        ({"X": np.zeros((32, 32, 3, 2), np.uint8), "y": np.ones((3, 1), np.uint8)}, r"y is uint8 \(3,\), expected 2"),
        ({"X": np.zeros((32, 32, 3, 2), np.uint8), "y": np.zeros((2, 1), np.uint8)}, "y from 0 to 0, expected 1 to 10"),
        ({"X": np.zeros((32, 32, 3, 2), np.uint8), "y": np.array([[1], [11]])}, "y from 1 to 11, expected 1 to 10"),
        (b"MATLAB 5.0 MAT-file, or not", "cannot be read as a MATLAB file"),
        (b"", "cannot be read as a MATLAB file"),
    ],
)
def test_svhn_errors(tmp_path, content, message):
    savemat = pytest.importorskip("scipy.io").savemat
    path = tmp_path / "train_32x32.mat"
    path.write_bytes(content) if isinstance(content, bytes) else savemat(path, content)
    with pytest.raises(DataError, match=f"{path}: {message}"):
        read_svhn(path)


def test_imagenet32(tmp_path):
    path = tmp_path / "val_data.npz"
    data = np.random.default_rng(0).integers(0, 256, (3, 3072)).astype(np.uint8)
    np.savez(path, data=data, labels=np.array([1, 1000, 7]))
    images, labels = read_imagenet32(path)
    assert np.array_equal(images.reshape(3, -1), data) and labels.tolist() == [0, 999, 6]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"data": np.zeros((2, 3072), np.uint8)}, "cannot be read as ImageNet32"),
        ({"data": np.zeros((2, 3072)), "labels": np.ones(2, int)}, r"data is float64 \(2, 3072\), expected uint8"),
        ({"data": np.zeros((2, 3071), np.uint8), "labels": np.ones(2, int)}, r"data is uint8 \(2, 3071\), expected"),
        ({"data": np.zeros((2, 3072), np.uint8), "labels": np.ones(3, int)}, r"labels is int64 \(3,\), expected 2"),
        ({"data": np.zeros((2, 3072), np.uint8), "labels": np.ones(2)}, "labels is float64"),
        ({"data": np.zeros((2, 3072), np.uint8), "labels": np.zeros(2, int)}, "labels from 0 to 0, expected 1 to 1000"),
        ({"data": np.array([{}]), "labels": np.ones(1, int)}, "cannot be read as ImageNet32 .*pickle"),
        (b"PK\3\4 torn off", "cannot be read as ImageNet32"),
        (b"", "cannot be read as ImageNet32"),
    ],
)
def test_imagenet32_errors(tmp_path, content, message):
    path = tmp_path / "val_data.npz"
    path.write_bytes(content) if isinstance(content, bytes) else np.savez(path, **content)
    with pytest.raises(DataError, match=f"{path}: {message}"):
        read_imagenet32(path)


def test_a_single_array_is_no_imagenet32(tmp_path):
    path = tmp_path / "val_data.npz"
    with open(path, "wb") as stream:
        np.save(stream, np.zeros(3))
    with pytest.raises(DataError, match="a single array"):
        read_imagenet32(path)
