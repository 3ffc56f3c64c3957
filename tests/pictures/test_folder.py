import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bitwren.errors import DataError, UsageError
from bitwren.pictures import list_folder, load_dataset, load_folder, streamed

SHARED = Path(__file__).parents[2] / ".." / "shared" / "data"


def paint(folder, names, size=(4, 6), value=0):
    """Put grey PNGs into a folder; the pixel value of the i-th is value + i."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(names):
        Image.fromarray(np.full(size, value + i, np.uint8)).save(folder / name, "PNG")


@pytest.fixture
def split_folder(tmp_path):
    paint(tmp_path / "train" / "cat", ["2.png", "10.png"], value=10)
    paint(tmp_path / "train" / "ant", ["a.png"], value=20)
    paint(tmp_path / "test" / "ant", ["a.png", "b.png"], value=30)
    paint(tmp_path / "test" / "cat", ["a.png"], value=40)
    return tmp_path


def test_train_and_test_folders(split_folder):
    listing = list_folder(split_folder)
    assert listing.classes == ("ant", "cat")
    names = [Path(file).relative_to(split_folder).as_posix() for file in listing.train_files]
    assert names == ["train/ant/a.png", "train/cat/10.png", "train/cat/2.png"]
    assert listing.train_labels.tolist() == [0, 1, 1] and listing.test_labels.tolist() == [0, 0, 1]

    split = load_folder(split_folder, channels=1)
    assert split.train.images.shape == (3, 1, 4, 6)
    assert split.train.images[:, 0, 0, 0].tolist() == [20, 11, 10]
    assert split.test.images[:, 0, 0, 0].tolist() == [30, 31, 40]
    assert split.train.classes == split.test.classes == ("ant", "cat")


def test_val_stands_in_for_test_only_where_there_is_none(split_folder):
    paint(split_folder / "val" / "other", ["a.png"])
    assert len(list_folder(split_folder).test_files) == 3
    os.rename(split_folder / "test", split_folder / "elsewhere")
    os.rename(split_folder / "val" / "other", split_folder / "val" / "ant")
    paint(split_folder / "val" / "cat", ["a.png"])
    assert len(list_folder(split_folder).test_files) == 2


def test_companion_and_hidden_files_are_passed_over(split_folder):
    for name in (".DS_Store", ".hidden.png", "notes.txt", "labels.CSV", "Thumbs.db"):
        (split_folder / "train" / "ant" / name).write_bytes(b"no picture")
    paint(split_folder / "train" / ".cache", ["a.png"])
    assert len(load_folder(split_folder).train) == 3


def test_one_folder_per_class_is_split_the_same_way_every_time(tmp_path):
    paint(tmp_path / "b", [f"{i:02}.png" for i in range(21)])
    paint(tmp_path / "a", [f"{i:02}.png" for i in range(5)], value=100)
    listing = list_folder(tmp_path)
    assert listing.classes == ("a", "b")
    assert np.bincount(listing.test_labels).tolist() == [1, 5]  # a fifth of 26, rounded up
    assert np.bincount(listing.train_labels).tolist() == [4, 16]
    assert not set(listing.train_files) & set(listing.test_files)
    assert list_folder(tmp_path).test_files == listing.test_files
    split = load_folder(tmp_path, channels=1)
    values = np.concatenate([split.train.images, split.test.images])[:, 0, 0, 0]
    assert sorted(values.tolist()) == [*range(21), *range(100, 105)]
    assert all(
        (value >= 100) == (label == 0)
        for value, label in zip(values, [*split.train.labels, *split.test.labels], strict=True)
    )


def test_a_class_may_be_called_train(tmp_path):
    for name in ("bus", "train"):
        paint(tmp_path / name, [f"{i}.png" for i in range(5)])
    assert list_folder(tmp_path).classes == ("bus", "train")


def test_layout_errors_name_the_folder(split_folder):
    with pytest.raises(DataError, match="absent: no such folder, expected a folder of pictures"):
        list_folder(split_folder / "absent")
    with pytest.raises(DataError, match=r"a\.png: not a directory, expected a folder"):
        list_folder(split_folder / "train" / "ant" / "a.png")
    with pytest.raises(DataError, match="ant: no folders in it, expected one per class"):
        list_folder(split_folder / "train" / "ant")
    with pytest.raises(DataError, match=r"ant: 1 pictures, expected 5 or more to set a test picture aside"):
        list_folder(split_folder / "train")
    (split_folder / "test" / "dog").mkdir()
    with pytest.raises(DataError, match="dog: 0 pictures, expected 1 or more"):
        list_folder(split_folder)
    paint(split_folder / "test" / "dog", ["a.png"])
    with pytest.raises(DataError, match="class 'dog' is in test/ but not in train/"):
        list_folder(split_folder)
    paint(split_folder / "train" / "dog", ["a.png"])
    (split_folder / "train" / "dog" / "more").mkdir()
    with pytest.raises(DataError, match="more: a folder inside a class, expected pictures"):
        list_folder(split_folder)
    os.rename(split_folder / "test", split_folder / "tests")
    with pytest.raises(DataError, match=r"has train/ but no test/ and no val/"):
        list_folder(split_folder)


@pytest.mark.parametrize("target", ["nowhere.png", "loop.png"])
def test_a_link_that_leads_nowhere_is_named(split_folder, target):
    os.symlink(target, split_folder / "train" / "cat" / "loop.png")
    with pytest.raises(DataError, match=r"loop\.png: cannot be read as a picture"):
        load_folder(split_folder)


@pytest.mark.parametrize("content", [b"", b"no picture"])
def test_a_broken_picture_is_named(split_folder, content):
    for name in ("b.png", "zz.unknown"):
        (split_folder / "test" / "cat" / name).write_bytes(content)
    with pytest.raises(DataError, match=r"test.cat.b\.png: cannot be read as a picture"):
        load_folder(split_folder)


def test_pictures_of_several_sizes_need_one(split_folder):
    paint(split_folder / "train" / "cat", ["3.png", "4.png"], size=(9, 5))
    with pytest.raises(UsageError, match=r"3\.png: picture of 9x5 pixels, the first has 4x6; set data\.image_size"):
        load_folder(split_folder)
    assert load_folder(split_folder, (5, 5)).train.images.shape == (5, 3, 5, 5)


def test_many_large_pictures_come_back_in_order(tmp_path):
    """Above 16 KiB a file several threads decode; the order must not depend on which is quicker."""
    rng = np.random.default_rng(0)
    for label in ("a", "b"):
        folder = tmp_path / "train" / label
        folder.mkdir(parents=True)
        for i in range(100):
            rows = rng.integers(0, 256, (100, 100, 3)).astype(np.uint8)
            rows[0, 0] = i
            Image.fromarray(rows).save(folder / f"{i:03}.bmp")
    os.symlink(tmp_path / "train", tmp_path / "test")
    assert load_folder(tmp_path).train.images[:, 0, 0, 0].tolist() == [*range(100), *range(100)]


def test_streamed_above_the_limit_only(split_folder):
    pixels = 6 * 3 * 4 * 6
    assert streamed("folder", split_folder, limit=pixels) is None
    assert streamed("folder", split_folder, (4, 6), limit=pixels - 1).classes == ("ant", "cat")
    assert streamed("folder", split_folder, (8, 6), limit=pixels).classes == ("ant", "cat")
    assert streamed("folder", split_folder, channels=1, limit=pixels // 3) is None
    with pytest.raises(UsageError, match=r"is streamed, .* set data\.image_size"):
        streamed("folder", split_folder, limit=pixels - 1)
    assert streamed("digits") is None


def test_imagenet_is_streamed_whatever_its_size(split_folder):
    listing = streamed("imagenet", split_folder, (8, 8))
    assert len(listing.train_files) == 3
    with pytest.raises(UsageError, match="does not fit in memory"):
        load_dataset("imagenet", split_folder)
    os.makedirs(split_folder / "imagenet")
    with pytest.raises(DataError, match="imagenet: no folders in it"):
        streamed("imagenet", split_folder, (8, 8))


def test_folder_by_name(split_folder):
    assert load_dataset("folder", split_folder, size=(2, 2)).test.images.shape == (3, 3, 2, 2)
    with pytest.raises(UsageError, match="'folder' needs the folder of its pictures; name it with --data-dir"):
        load_dataset("folder")


def test_the_jpeg_folder_of_cifar10(tmp_path):
    """40 pictures of the real thing, as a user would unpack it."""
    archive = SHARED / "cifar10-jpeg.tar.gz"
    if not archive.is_file():
        pytest.skip("no cifar10-jpeg.tar.gz here")
    import tarfile

    wanted: dict[str, int] = {}
    with tarfile.open(archive, "r|gz") as members:
        for member in members:
            folder, _, name = member.name.removeprefix("./").rpartition("/")
            if not member.isreg() or wanted.get(folder, 0) >= 2:
                continue
            wanted[folder] = wanted.get(folder, 0) + 1
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
            (tmp_path / folder / name).write_bytes(members.extractfile(member).read())
            if sum(wanted.values()) == 40:
                break
    split = load_folder(next(path for path in [tmp_path, *tmp_path.rglob("*")] if (path / "train").is_dir()))
    assert split.train.images.shape == split.test.images.shape == (20, 3, 32, 32)
    assert split.train.classes[:3] == ("airplane", "automobile", "bird")
    assert 60 < split.train.images.mean() < 190
