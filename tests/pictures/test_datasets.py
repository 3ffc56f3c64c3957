import dataclasses
import gzip
import hashlib
import io
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from bitwren.errors import DataError, UsageError
from bitwren.pictures import DATASETS, cache_folder, load_dataset
from bitwren.pictures.readers import READERS
from bitwren.pictures.registry import DatasetFile

SHARED = Path(__file__).parents[2] / ".." / "shared" / "data"


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """No test may read or fill the cache of the person who runs it."""
    monkeypatch.setenv("BITWREN_DATA", str(tmp_path / "cache"))
    return tmp_path / "cache"


def md5(content):
    return hashlib.md5(content).hexdigest()


def small(monkeypatch, name, contents, train, test, unpacked=None):
    """Replace a row of the table by one of a few pictures; contents: published name -> its bytes.

    unpacked: what an archive holds, (name, MD5) each; for single .gz files it follows from the contents.
    """
    row = DATASETS[name]

    def shrunk(file):
        inside = unpacked
        if inside is None:
            inside = tuple((n, md5(gzip.decompress(contents[file.name]))) for n, _ in file.unpacked)
        return DatasetFile(file.name, f"md5:{md5(contents[file.name])}", inside, file.urls)

    files = {file: shrunk(file) for file in row.files}
    row = dataclasses.replace(
        row,
        train_count=train,
        test_count=test,
        train_files=tuple(files[file] for file in row.train_files),
        test_files=tuple(files[file] for file in row.test_files),
        system=(),
    )
    monkeypatch.setitem(DATASETS, name, row)
    return row


def put(folder, contents):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def idx(array):
    return bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">u4").tobytes() + array.astype(np.uint8).tobytes()


def mnist_contents(labels=(0, 9, 4)):
    images = np.random.default_rng(0).integers(0, 256, (len(labels), 28, 28))
    return {
        "train-images-idx3-ubyte.gz": gzip.compress(idx(images)),
        "train-labels-idx1-ubyte.gz": gzip.compress(idx(np.array(labels))),
        "t10k-images-idx3-ubyte.gz": gzip.compress(idx(images[:2])),
        "t10k-labels-idx1-ubyte.gz": gzip.compress(idx(np.array(labels[:2]))),
    }


def cifar_contents(label_bytes, names):
    """Return name -> one record; the label of the i-th file is i."""
    rng = np.random.default_rng(0)
    return {name: bytes([5] * (label_bytes - 1) + [i]) + rng.bytes(3072) for i, name in enumerate(names)}


def tarred(contents, folder):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in contents.items():
            info = tarfile.TarInfo(f"{folder}/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


# --- the table ---


def test_every_row_is_whole():
    for name, row in DATASETS.items():
        assert row.name == name and row.summary and row.terms and row.citation
        assert row.form == "folder" or row.form in READERS
        if row.form == "folder":
            continue
        assert len(set(row.classes)) == len(row.classes) > 1
        assert row.channels in (1, 3) and len(row.size) == 2 and row.train_count > row.test_count > 0
        for file in row.files:
            digests = [file.checksum.removeprefix("md5:"), *(digest for _, digest in file.unpacked)]
            assert all(len(bytes.fromhex(digest)) == 16 for digest in digests)
            assert all(url.endswith("/" + file.name) for url in file.urls)
    assert len({file.checksum for row in DATASETS.values() for file in row.files}) == 24
    assert len(DATASETS["cifar100"].classes) == 100 and len(DATASETS["imagenet32"].classes) == 1000


def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(UsageError, match="unknown data set 'cifar-10'; did you mean 'cifar10'"):
        load_dataset("cifar-10")


def test_digits():
    pytest.importorskip("sklearn")
    split = load_dataset("digits")
    assert split.train.images.shape == (1438, 1, 8, 8) and split.test.images.shape == (359, 1, 8, 8)
    images = np.concatenate([split.train.images, split.test.images])
    assert set(np.unique(images)) == {round(v * 255 / 16) for v in range(17)}
    assert np.abs(np.bincount(split.test.labels) - np.bincount(split.train.labels) / 4).max() < 1.5
    from sklearn.datasets import load_digits

    # A partition of all 1,797, compared as multisets: two of the digits could be the same picture.
    whole = np.rint(load_digits().images.reshape(-1, 64) * 255 / 16).astype(np.uint8)
    assert sorted(map(bytes, images.reshape(-1, 64))) == sorted(map(bytes, whole))
    assert md5(load_dataset("digits").test.images.tobytes()) == md5(split.test.images.tobytes())


def test_broken_digits(tmp_path, monkeypatch):
    from importlib.machinery import ModuleSpec

    package = ModuleSpec("sklearn", None, is_package=True)
    package.submodule_search_locations.append(str(tmp_path))
    monkeypatch.setattr("bitwren.pictures.readers.find_spec", lambda name: package)
    with pytest.raises(DataError, match=r"digits.csv.gz: scikit-learn's digits cannot be read: .*not found"):
        load_dataset("digits")
    path = tmp_path / "datasets" / "data" / "digits.csv.gz"
    path.parent.mkdir(parents=True)
    for content, message in ((b"1,2,x\n", "could not convert"), (b"1,2,3\n", "cannot reshape")):
        path.write_bytes(gzip.compress(content))
        with pytest.raises(DataError, match=f"digits.csv.gz: scikit-learn's digits cannot be read: {message}"):
            load_dataset("digits")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": (16, 16)}, r"'digits' with size \(16, 16\), expected \(8, 8\)"),
        ({"channels": 3}, "'digits' with channels 3, expected 1"),
    ],
)
def test_a_fixed_set_keeps_its_shape(arguments, message):
    with pytest.raises(UsageError, match=message):
        load_dataset("digits", **arguments)


def test_the_systems_fashion_mnist(own_cache):
    if not Path("/usr/share/datasets/fashion-mnist").is_dir():
        pytest.skip("Debian's dataset-fashion-mnist is not installed")
    split = load_dataset("fashion-mnist", download=False)
    assert split.train.images.shape == (60000, 1, 28, 28) and split.test.images.shape == (10000, 1, 28, 28)
    assert np.bincount(split.train.labels).tolist() == [6000] * 10
    assert split.train.classes[split.train.labels[0]] == "Ankle boot"
    assert not own_cache.exists()


def test_the_class_order_of_cifar10_is_that_of_the_published_labels():
    path = SHARED / "cifar10-lossless-test500.npz"
    if not path.is_file():
        pytest.skip("no cifar10-lossless-test500.npz here")
    with np.load(path, allow_pickle=False) as archive:
        labels = next(archive[name] for name in archive.files if archive[name].ndim == 1)
    # The first pictures of the test set are well known: a cat, two ships, an airplane, two frogs, a car.
    names = [DATASETS["cifar10"].classes[label] for label in labels[:7]]
    assert names == ["cat", "ship", "ship", "airplane", "frog", "frog", "automobile"]


# --- every form, found where a user may have put it ---


@pytest.mark.parametrize("where", ["", "mnist"])
def test_idx_files_gzipped(tmp_path, monkeypatch, where):
    contents = mnist_contents()
    small(monkeypatch, "mnist", contents, 3, 2)
    put(tmp_path / "data" / where, contents)
    split = load_dataset("mnist", tmp_path / "data", download=False)
    assert split.train.images.shape == (3, 1, 28, 28) and split.test.labels.tolist() == [0, 9]


def test_idx_files_plain_or_compressed_anew(tmp_path, monkeypatch):
    contents = mnist_contents()
    small(monkeypatch, "mnist", contents, 3, 2)
    plain = {name.removesuffix(".gz"): gzip.decompress(content) for name, content in contents.items()}
    split = load_dataset("mnist", put(tmp_path / "plain", plain), download=False)
    assert split.train.labels.tolist() == [0, 9, 4]
    anew = {f"{name}.gz": gzip.compress(content, 1, mtime=1) for name, content in plain.items()}
    assert anew["train-images-idx3-ubyte.gz"] != contents["train-images-idx3-ubyte.gz"]
    assert len(load_dataset("mnist", put(tmp_path / "anew", anew), download=False).train) == 3


def test_idx_sets_that_do_not_fit_together(tmp_path, monkeypatch):
    contents = mnist_contents()
    contents["t10k-labels-idx1-ubyte.gz"] = contents["train-labels-idx1-ubyte.gz"]
    small(monkeypatch, "mnist", contents, 3, 2)
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte\.gz: 3 labels, expected 2, one per picture"):
        load_dataset("mnist", put(tmp_path / "data", contents))
    contents = mnist_contents(labels=(0, 10, 1))
    small(monkeypatch, "mnist", contents, 3, 2)
    with pytest.raises(DataError, match=r"train-labels-idx1-ubyte\.gz: label 10, expected 0 to 9"):
        load_dataset("mnist", put(tmp_path / "data", contents))
    contents = mnist_contents()
    small(monkeypatch, "mnist", contents, 4, 2)
    with pytest.raises(DataError, match=r"mnist: train pictures \(3, 1, 28, 28\), expected \(4, 1, 28, 28\)"):
        load_dataset("mnist", put(tmp_path / "data", contents))


@pytest.mark.parametrize(("name", "label_bytes"), [("cifar10", 1), ("cifar100", 2)])
@pytest.mark.parametrize("form", ["archive", "unpacked", "loose"])
def test_cifar(tmp_path, monkeypatch, name, label_bytes, form):
    row = DATASETS[name]
    (archive,), folder = row.files, row.folders[0]
    members = cifar_contents(label_bytes, [member for member, _ in archive.unpacked])
    packed = {archive.name: tarred(members, folder)}
    small(monkeypatch, name, packed, len(members) - 1, 1, unpacked=tuple((n, md5(c)) for n, c in members.items()))
    data = put(tmp_path / "data" / (folder if form == "unpacked" else ""), packed if form == "archive" else members)
    split = load_dataset(name, tmp_path / "data" if form == "unpacked" else data, download=False)
    assert split.train.labels.tolist() == list(range(len(members) - 1))
    assert split.test.labels.tolist() == [len(members) - 1]
    assert split.test.images.tobytes() == members[archive.unpacked[-1][0]][label_bytes:]


@pytest.mark.parametrize(("name", "train"), [("svhn", 5), ("svhn-train", 3)])
def test_svhn(tmp_path, monkeypatch, name, train):
    savemat = pytest.importorskip("scipy.io").savemat
    contents = {}
    for file, count in (("train_32x32.mat", 3), ("extra_32x32.mat", 2), ("test_32x32.mat", 1)):
        buffer = io.BytesIO()
        savemat(buffer, {"X": np.zeros((32, 32, 3, count), np.uint8), "y": np.full((count, 1), 10, np.uint8)})
        contents[file] = buffer.getvalue()
    small(monkeypatch, name, contents, train, 1)
    split = load_dataset(name, put(tmp_path / "data", contents), download=False)
    assert split.train.images.shape == (train, 3, 32, 32) and split.test.labels.tolist() == [0]


def test_imagenet32(tmp_path, monkeypatch):
    contents = {}
    for i, file in enumerate(DATASETS["imagenet32"].files, 1):
        buffer = io.BytesIO()
        np.savez(buffer, data=np.full((2, 3072), i, np.uint8), labels=np.array([i, 1000]))
        contents[file.name] = buffer.getvalue()
    small(monkeypatch, "imagenet32", contents, 20, 2)
    data = put(tmp_path / "Imagenet32_train_npz", contents).parent
    split = load_dataset("imagenet32", data)
    assert split.train.labels.tolist()[:4] == [0, 999, 1, 999]
    assert split.train.images[:, 0, 0, 0].tolist() == [i for i in range(1, 11) for _ in range(2)]
    assert split.test.labels.tolist() == [10, 999]
    small(monkeypatch, "imagenet32", contents, 19, 2)
    with pytest.raises(DataError, match=r"batch_10\.npz: brings the training set to 20 pictures, expected 19"):
        load_dataset("imagenet32", data)
    small(monkeypatch, "imagenet32", contents, 21, 2)
    with pytest.raises(DataError, match=r"train pictures \(20, 3, 32, 32\), expected \(21, 3, 32, 32\)"):
        load_dataset("imagenet32", data)


# --- checksums and downloads ---


def test_one_changed_byte_is_a_wrong_checksum(tmp_path, monkeypatch):
    contents = mnist_contents()
    small(monkeypatch, "mnist", contents, 3, 2)
    data = put(tmp_path / "data", contents)
    load_dataset("mnist", data)
    path = data / "t10k-labels-idx1-ubyte.gz"
    changed = gzip.compress(idx(np.array([0, 8])))
    path.write_bytes(changed)
    expected = md5(contents[path.name])
    with pytest.raises(DataError, match=f"{path}: MD5 {md5(changed)}, expected {expected}; remove the file"):
        load_dataset("mnist", data)
    path.write_bytes(contents[path.name][:-1])
    with pytest.raises(DataError, match=f"{path}: MD5 .* expected {expected}"):
        load_dataset("mnist", data)


def test_a_wrong_checksum_of_an_unpacked_file(tmp_path, monkeypatch):
    contents = mnist_contents()
    small(monkeypatch, "mnist", contents, 3, 2)
    plain = {name.removesuffix(".gz"): gzip.decompress(content) for name, content in contents.items()}
    plain["train-images-idx3-ubyte"] = plain["train-images-idx3-ubyte"][:-1] + b"\0"
    data = put(tmp_path / "data", plain)
    with pytest.raises(DataError, match=f"{data / 'train-images-idx3-ubyte'}: MD5 .*, expected "):
        load_dataset("mnist", data)


def test_missing_files(tmp_path):
    tmp_path.joinpath("data").mkdir()
    with pytest.raises(
        DataError, match=r"cifar-10-binary\.tar\.gz: not found in .*data.*, and not to be downloaded; it"
    ):
        load_dataset("cifar10", tmp_path / "data", download=False)
    with pytest.raises(
        DataError, match=r"train_data_batch_1\.npz: not found in .*; its publishers ask for registration"
    ):
        load_dataset("imagenet32", tmp_path / "data")
    with pytest.raises(DataError, match="absent: no such folder, expected the files of data set 'cifar10'"):
        load_dataset("cifar10", tmp_path / "absent")


@pytest.fixture
def server(tmp_path):
    """Serve tmp_path/site on this machine; gives its address."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    (tmp_path / "site").mkdir()
    http = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=tmp_path / "site"))
    threading.Thread(target=http.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{http.server_port}"
    http.shutdown()
    http.server_close()


def with_urls(monkeypatch, row, bases):
    def moved(files):
        return tuple(dataclasses.replace(f, urls=tuple(f"{base}/{f.name}" for base in bases)) for f in files)

    monkeypatch.setitem(
        DATASETS,
        row.name,
        dataclasses.replace(row, train_files=moved(row.train_files), test_files=moved(row.test_files)),
    )


def test_download_once_from_the_first_mirror_that_works(tmp_path, monkeypatch, server, own_cache):
    pytest.importorskip("pooch")
    contents = mnist_contents()
    row = small(monkeypatch, "mnist", contents, 3, 2)
    with_urls(monkeypatch, row, [f"{server}/absent", server])
    put(tmp_path / "site", contents)
    assert len(load_dataset("mnist", progress=False).train) == 3
    assert sorted(path.name for path in (own_cache / "mnist").iterdir()) == sorted(contents)
    for name in contents:
        (tmp_path / "site" / name).unlink()
    assert len(load_dataset("mnist").train) == 3


def test_what_arrives_changed_is_refused_and_not_kept(tmp_path, monkeypatch, server, own_cache):
    pytest.importorskip("pooch")
    contents = mnist_contents()
    row = small(monkeypatch, "mnist", contents, 3, 2)
    with_urls(monkeypatch, row, [server])
    first = "train-images-idx3-ubyte.gz"
    put(tmp_path / "site", {first: b"something else"})
    with pytest.raises(DataError) as caught:
        load_dataset("mnist", progress=False)
    wanted = f"what arrived has MD5 {md5(b'something else')}, expected {md5(contents[first])}"
    assert f"{server}/{first}: {wanted}" in str(caught.value) and "\n" not in str(caught.value)
    assert list((own_cache / "mnist").iterdir()) == []


def test_no_network_says_where_to_put_the_file(monkeypatch, own_cache):
    pytest.importorskip("pooch")
    row = small(monkeypatch, "mnist", mnist_contents(), 3, 2)
    with_urls(monkeypatch, row, ["http://127.0.0.1:9"])  # the discard port: nothing listens
    with pytest.raises(DataError) as caught:
        load_dataset("mnist", progress=False)
    assert str(caught.value) == (
        "http://127.0.0.1:9/train-images-idx3-ubyte.gz: cannot be downloaded (ConnectionError); "
        f"fetch it by other means and put it into {own_cache / 'mnist'}"
    )


def test_a_status_is_told(monkeypatch, server):
    pytest.importorskip("pooch")
    row = small(monkeypatch, "mnist", mnist_contents(), 3, 2)
    with_urls(monkeypatch, row, [server])
    with pytest.raises(DataError, match=r"cannot be downloaded \(HTTP status 404\)"):
        load_dataset("mnist", progress=False)


@pytest.mark.parametrize(
    ("module", "name", "needed"),
    [("sklearn", "digits", "scikit-learn"), ("scipy.io", "svhn-train", "SciPy"), ("pooch", "mnist", "pooch")],
)
def test_a_missing_library_is_named(tmp_path, monkeypatch, module, name, needed):
    import sys

    if name == "svhn-train":
        contents = {file.name: b"any" for file in DATASETS[name].files}
        small(monkeypatch, name, contents, 3, 1)
        put(tmp_path / "cache" / name, contents)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UsageError, match=rf"{needed}.* missing; pip install 'bitwren\[train\]'"):
        load_dataset(name)


def test_cache_folder(monkeypatch, tmp_path):
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("BITWREN_DATA")
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "bitwren"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "bitwren"
