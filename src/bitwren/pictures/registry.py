"""Every data set: one table, read by `bitwren datasets`, by loading and by the tests.

Where the checksums come from: CIFAR-10's archive, the MD5 table at https://www.cs.toronto.edu/~kriz/cifar.html;
CIFAR-100's, several public loaders that agree; MNIST,
Fashion-MNIST and SVHN, torchvision's data sets (and Fashion-MNIST's README); the files inside CIFAR's archives,
github.com/rai-project/dldataset; the unpacked IDX files and ImageNet32, several public loaders that agree.
"""

from dataclasses import dataclass

from bitwren.errors import unknown_name
from bitwren.pictures import class_names


@dataclass(frozen=True)
class DatasetFile:
    """One published file of a data set.

    name: as published. checksum: "md5:..." of the file as published.
    unpacked: name -> MD5 of what the file holds. A single .gz is known by its content, since distributions compress it
    anew; an archive may stand unpacked in its place.
    urls: tried in order; none for a file that its publishers give to registered people only.
    """

    name: str
    checksum: str
    unpacked: tuple[tuple[str, str], ...] = ()
    urls: tuple[str, ...] = ()


@dataclass(frozen=True)
class Dataset:
    """One row of the table.

    form: how it is published, a key of readers.READERS, or "folder" for folders of pictures.
    terms: the licence or the terms of use. citation: who made it, and where it is described.
    classes, channels, size (H, W), train_count, test_count: None where the folder decides.
    train_files, test_files: what is read, in this order; an archive that holds both stands in both.
    folders: below the folder searched, where its archives unpack to. system: absolute folders, searched last.
    streamed: never held in memory.
    """

    name: str
    form: str
    summary: str
    terms: str
    citation: str
    classes: tuple[str, ...] | None = None
    channels: int | None = None
    size: tuple[int, int] | None = None
    train_count: int | None = None
    test_count: int | None = None
    train_files: tuple[DatasetFile, ...] = ()
    test_files: tuple[DatasetFile, ...] = ()
    folders: tuple[str, ...] = ()
    system: tuple[str, ...] = ()
    streamed: bool = False

    @property
    def files(self) -> tuple[DatasetFile, ...]:
        """Every file once."""
        return tuple(dict.fromkeys(self.train_files + self.test_files))


def find_dataset(name: str) -> Dataset:
    """Return the row of the table with this name; UsageError with the nearest name if there is none."""
    if name not in DATASETS:
        raise unknown_name("data set", name, DATASETS)
    return DATASETS[name]


def _idx_file(name: str, packed: str, content: str, bases: tuple[str, ...]) -> DatasetFile:
    return DatasetFile(f"{name}.gz", f"md5:{packed}", ((name, content),), tuple(f"{base}{name}.gz" for base in bases))


_MNIST_URLS = ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/")
_MNIST = (
    ("train-images-idx3-ubyte", "f68b3c2dcbeaaa9fbdd348bbdeb94873", "6bbc9ace898e44ae57da46a324031adb"),
    ("train-labels-idx1-ubyte", "d53e105ee54ea40749a09fcbcd1e9432", "a25bea736e30d166cdddb491f175f624"),
    ("t10k-images-idx3-ubyte", "9fb629c4189551a2d022fa330f9573f3", "2646ac647ad5339dbf082846283269ea"),
    ("t10k-labels-idx1-ubyte", "ec29112dd5afa0611ce80d1b7f02629c", "27ae3e4e09519cfbb04c329615203637"),
)
_FASHION_URLS = (
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
)
_FASHION = (
    ("train-images-idx3-ubyte", "8d4fb7e6c68d591d4c3dfef9ec88bf0d", "f4a8712d7a061bf5bd6d2ca38dc4d50a"),
    ("train-labels-idx1-ubyte", "25c81989df183df01b3e8a0aad5dffbe", "9018921c3c673c538a1fc5bad174d6f9"),
    ("t10k-images-idx3-ubyte", "bef4ecab320f06d8554ea6380940ec79", "8181f5470baa50b63fa0f6fddb340f0a"),
    ("t10k-labels-idx1-ubyte", "bb300cfdad3c16e7a12a480ee83cd310", "15d484375f8d13e6eb1aabb0c3f46965"),
)
_CIFAR_URLS = ("https://www.cs.toronto.edu/~kriz/", "https://cave.cs.toronto.edu/kriz/")
# The test file comes last in each archive's list; the reader counts on it.
_CIFAR10 = DatasetFile(
    "cifar-10-binary.tar.gz",
    "md5:c32a1d4ab5d03f1284b67883e8d87530",
    (
        ("data_batch_1.bin", "5dd7e06a14cb22eb9f671a540d1b7c25"),
        ("data_batch_2.bin", "5ea93a67294ea407fff1d09f752e9692"),
        ("data_batch_3.bin", "942cd6a4bcdd0dd3c604fbe906cb4421"),
        ("data_batch_4.bin", "ae636b3ba5c66a11e91e8cb52e771fcb"),
        ("data_batch_5.bin", "53f37980c15c3d472c316c40844f3f0d"),
        ("test_batch.bin", "803d5f7f4d78ea53de84dbe85f74fb6d"),
    ),
    tuple(f"{base}cifar-10-binary.tar.gz" for base in _CIFAR_URLS),
)
_CIFAR100 = DatasetFile(
    "cifar-100-binary.tar.gz",
    "md5:03b5dce01913d631647c71ecec9e9cb8",
    (("train.bin", "6172c7755cfe09b2fe270c85cebc1b15"), ("test.bin", "4499cfba6c016c1be1438163640a0898")),
    tuple(f"{base}cifar-100-binary.tar.gz" for base in _CIFAR_URLS),
)
_SVHN_TRAIN, _SVHN_EXTRA, _SVHN_TEST = (
    DatasetFile(name, f"md5:{md5}", (), (f"http://ufldl.stanford.edu/housenumbers/{name}",))
    for name, md5 in (
        ("train_32x32.mat", "e26dedcc434d2e4c54c9b2d4a06d8373"),
        ("extra_32x32.mat", "a93ce644f1a588dc4d68dda5feec44a7"),
        ("test_32x32.mat", "eb5a983be6a315427106f1b164d9cef3"),
    )
)
_SVHN_TERMS = "non-commercial use only"
_SVHN_CITATION = "Netzer et al., Reading digits in natural images with unsupervised feature learning, 2011"
_IMAGENET_TERMS = "non-commercial research and education, after registration at image-net.org; no download here"
_IMAGENET32_TRAIN = (
    "464fde20de6eb44c28cc1a8c11544bb1",
    "bdb56e71882c3fd91619d789d5dd7c79",
    "83ff36d76ea26867491a281ea6e1d03b",
    "98ff184fe109d5c2a0f6da63843880c7",
    "62b8803e13c3e6de9498da7aaaae57c8",
    "e0b06665f890b029f1d8d0a0db26e119",
    "9731f469aac1622477813c132c5a847a",
    "60aed934b9d26b7ee83a1a83bdcfbe0f",
    "b96328e6affd718660c2561a6fe8c14c",
    "1dc618d544c554220dd118f72975470c",
)

_ROWS = (
    Dataset(
        "digits",
        form="digits",
        summary="handwritten digits of 8x8 pixels, part of scikit-learn: no download",
        terms="CC BY 4.0",
        citation="Alpaydin and Kaynak, Optical recognition of handwritten digits, UCI, 1998",
        classes=class_names.DIGITS,
        channels=1,
        size=(8, 8),
        train_count=1438,
        test_count=359,
    ),
    Dataset(
        "cifar10",
        form="cifar",
        summary="10 classes of small colour photographs",
        terms="no licence stated; its authors ask to be cited",
        citation="Krizhevsky, Learning multiple layers of features from tiny images, 2009",
        classes=class_names.CIFAR10,
        channels=3,
        size=(32, 32),
        train_count=50_000,
        test_count=10_000,
        train_files=(_CIFAR10,),
        test_files=(_CIFAR10,),
        folders=("cifar-10-batches-bin",),
    ),
    Dataset(
        "cifar100",
        form="cifar",
        summary="100 (fine) classes of small colour photographs",
        terms="no licence stated; its authors ask to be cited",
        citation="Krizhevsky, Learning multiple layers of features from tiny images, 2009",
        classes=class_names.CIFAR100,
        channels=3,
        size=(32, 32),
        train_count=50_000,
        test_count=10_000,
        train_files=(_CIFAR100,),
        test_files=(_CIFAR100,),
        folders=("cifar-100-binary",),
    ),
    Dataset(
        "svhn",
        form="svhn",
        summary="digits of house numbers, with the extra training set, as wide residual networks are compared on it",
        terms=_SVHN_TERMS,
        citation=_SVHN_CITATION,
        classes=class_names.DIGITS,
        channels=3,
        size=(32, 32),
        train_count=604_388,  # 73,257 and 531,131 extra
        test_count=26_032,
        train_files=(_SVHN_TRAIN, _SVHN_EXTRA),
        test_files=(_SVHN_TEST,),
    ),
    Dataset(
        "svhn-train",
        form="svhn",
        summary="digits of house numbers, without the extra training set",
        terms=_SVHN_TERMS,
        citation=_SVHN_CITATION,
        classes=class_names.DIGITS,
        channels=3,
        size=(32, 32),
        train_count=73_257,
        test_count=26_032,
        train_files=(_SVHN_TRAIN,),
        test_files=(_SVHN_TEST,),
    ),
    Dataset(
        "mnist",
        form="idx",
        summary="handwritten digits",
        terms="CC BY-SA 3.0",
        citation="LeCun, Bottou, Bengio and Haffner, Gradient-based learning applied to document recognition, 1998",
        classes=class_names.DIGITS,
        channels=1,
        size=(28, 28),
        train_count=60_000,
        test_count=10_000,
        train_files=tuple(_idx_file(*row, _MNIST_URLS) for row in _MNIST[:2]),
        test_files=tuple(_idx_file(*row, _MNIST_URLS) for row in _MNIST[2:]),
    ),
    Dataset(
        "fashion-mnist",
        form="idx",
        summary="10 classes of clothes, in grey; Debian's package dataset-fashion-mnist is found too",
        terms="MIT",
        citation="Xiao, Rasul and Vollgraf, Fashion-MNIST, 2017, arXiv 1708.07747",
        classes=class_names.FASHION,
        channels=1,
        size=(28, 28),
        train_count=60_000,
        test_count=10_000,
        train_files=tuple(_idx_file(*row, _FASHION_URLS) for row in _FASHION[:2]),
        test_files=tuple(_idx_file(*row, _FASHION_URLS) for row in _FASHION[2:]),
        system=("/usr/share/datasets/fashion-mnist",),
    ),
    Dataset(
        "imagenet32",
        form="imagenet32",
        summary="ImageNet's 1000 classes at 32x32 pixels (npz form, 3.9 GB in memory)",
        terms=_IMAGENET_TERMS,
        citation="Chrabaszcz, Loshchilov and Hutter, A downsampled variant of ImageNet, 2017, arXiv 1707.08819",
        classes=class_names.IMAGENET32,
        channels=3,
        size=(32, 32),
        train_count=1_281_167,
        test_count=50_000,
        train_files=tuple(
            DatasetFile(f"train_data_batch_{number}.npz", f"md5:{md5}")
            for number, md5 in enumerate(_IMAGENET32_TRAIN, 1)
        ),
        test_files=(DatasetFile("val_data.npz", "md5:a8c04a389f2649841fb7a01720da9dd9"),),
        folders=("Imagenet32_train_npz", "Imagenet32_val_npz"),
    ),
    Dataset(
        "imagenet",
        form="folder",
        summary="ImageNet's 1000 classes: a folder with train/<class>/* and val/<class>/*, streamed",
        terms=_IMAGENET_TERMS,
        citation="Russakovsky et al., ImageNet large scale visual recognition challenge, 2015",
        train_count=1_281_167,
        test_count=50_000,
        streamed=True,
    ),
    Dataset(
        "folder",
        form="folder",
        summary="your own pictures: train/<class>/* and test/<class>/*, or one folder per class",
        terms="yours",
        citation="none",
    ),
)

# Name -> row.
DATASETS = {row.name: row for row in _ROWS}
