import dataclasses
import math
import re
import tomllib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bitwren.errors import UsageError
from bitwren.pictures import DATASETS
from bitwren.recipe import (
    TABLES,
    Recipe,
    from_tables,
    known_keys,
    load_recipe,
    packaged_recipes,
    parse_setting,
)
from bitwren.train.networks import FAMILIES

NAMES = sorted(packaged_recipes())
BASES = ["cifar", "imagenet"]  # what only others extend
ROWS = [name for name in NAMES if name not in BASES]

# Accuracy in per cent, authors' repository: 20-10 with cutout.
PAPER_2019 = {
    "cifar10-20-10-bn-32bit": 96.62,
    "cifar10-20-10-bn-1bit": 96.25,
    "cifar10-20-10-srelu-32bit": 95.66,
    "cifar10-20-10-srelu-1bit": 96.52,
    "cifar100-20-10-bn-32bit": 83.02,
    "cifar100-20-10-bn-1bit": 81.83,
    "cifar100-20-10-srelu-32bit": 79.37,
    "cifar100-20-10-srelu-1bit": 78.41,
}
# Error in per cent, arXiv 1802.08530.
ICLR_2018_ERRORS = {
    "iclr-cifar10-20-4-1bit": 6.13,
    "iclr-cifar100-20-4-1bit": 23.87,
    "iclr-cifar10-20-4-1bit-cutout": 5.34,
    "iclr-cifar100-20-4-1bit-cutout": 23.74,
    "iclr-cifar10-20-10-1bit": 4.72,
    "iclr-cifar100-20-10-1bit": 19.35,
    "iclr-cifar10-20-10-1bit-cutout": 3.92,
    "iclr-cifar100-20-10-1bit-cutout": 18.51,
    "iclr-cifar10-26-10-1bit": 4.46,
    "iclr-cifar100-26-10-1bit": 18.94,
    "iclr-cifar10-26-10-1bit-cutout": 3.41,
    "iclr-cifar100-26-10-1bit-cutout": 18.50,
    "iclr-cifar10-20-4-32bit": 5.02,
    "iclr-cifar100-20-4-32bit": 21.53,
    "iclr-cifar10-20-10-32bit": 4.22,
    "iclr-cifar100-20-10-32bit": 18.76,
    "iclr-svhn-20-4-1bit": 1.93,
    "iclr-svhn-20-4-32bit": 1.75,
    "iclr-mnist-20-4-1bit": 0.27,
    "iclr-imagenet-18-2.5-1bit": 31.03,
    "iclr-imagenet-18-2.5-32bit": 26.92,
    "iclr-imagenet32-20-10-1bit": 44.27,
}


# --- the recipes of the package ---------------------------------------------------------------------------------------


def test_published_figures():
    published = {name: load_recipe(name).published for name in NAMES}
    errors = {name: round(100 - error, 2) for name, error in ICLR_2018_ERRORS.items()}
    assert {name: figure for name, figure in published.items() if figure is not None} == PAPER_2019 | errors


@pytest.mark.parametrize("name", NAMES)
def test_packaged_recipe_says_what_it_is(name):
    with packaged_recipes()[name].open("rb") as file:
        tables = tomllib.load(file)
    recipe = load_recipe(name)
    assert recipe.name == name and recipe.title and tables["title"] == recipe.title
    assert tables.get("published") == recipe.published  # a row's figure stands in its own file
    titles = [load_recipe(other).title for other in NAMES]
    assert titles.count(recipe.title) == 1


@pytest.mark.parametrize("name", NAMES)
def test_packaged_recipe_builds(name):
    recipe = load_recipe(name)
    data = DATASETS[recipe.data.name]
    channels = recipe.data.channels or data.channels
    classes = len(data.classes) if data.classes else {"imagenet": 1000, "folder": 7}[data.name]
    options = dataclasses.asdict(recipe.network)
    with torch.device("meta"):
        net = FAMILIES[options.pop("family")](num_classes=classes, channels=channels, **options)
        height, width = recipe.data.image_size or data.size
        assert net(torch.empty(2, channels, height, width)).shape == (2, classes)
    convs = [p for p in net.parameters() if p.ndim == 4]
    assert convs[0].shape[1] == channels and convs[-1].shape[0] == classes
    assert recipe.train.epochs >= 1


@pytest.mark.parametrize("name", [*PAPER_2019, *ICLR_2018_ERRORS])
def test_published_row_follows_the_paper(name):
    recipe = load_recipe(name)
    network, train, augment = recipe.network, recipe.train, recipe.augment
    imagenet = recipe.data.name.startswith("imagenet")
    dk, bits = re.search(r"-(\d+-[\d.]+)-", name)[1], re.search(r"(\d+)bit", name)[1]
    assert f"{network.depth}-{network.width:g}" == dk
    assert network.weight_bits == int(bits)
    assert (train.momentum, train.learning_rate, train.final_learning_rate) == (0.9, 0.1, 1e-5)
    assert train.weight_decay == (1e-4 if imagenet else 5e-4)
    assert imagenet or train.batch == 125
    assert (network.layer_scale, network.downsample, network.skip) == ("he", "avg3", True)
    assert recipe.data.validation == 0
    # The 2019 figures are from the authors' TensorFlow code, the ICLR ones from their MATLAB code.
    assert network.padding == ("same" if name in PAPER_2019 else "symmetric")
    if network.activation == "bn":
        assert train.schedule == "restarts" and train.first_cycle == 2
        assert train.epochs in (2, 6, 14, 30, 62, 126, 254)  # where a cycle ends
        assert network.temperature is None
        assert network.bn_affine == imagenet  # learned on ImageNet alone
    else:
        assert (train.schedule, train.epochs) == ("cosine", 300)
        expected = 25 if "cifar100" in name else 40 if bits == "1" else 80
        assert network.temperature == expected
    cutout = 18 if name in PAPER_2019 or name.endswith("cutout") else 0
    flip, shift = "svhn" not in name and "mnist" not in name, 0 if "mnist" in name else 4
    if recipe.data.name == "imagenet":
        assert (augment.crop, augment.flip, augment.shift, augment.cutout) == (True, True, 0, 0)
    else:
        assert (augment.crop, augment.flip, augment.shift, augment.cutout) == (False, flip, shift, cutout)


def test_mnist_takes_14_epochs():
    assert load_recipe("iclr-mnist-20-4-1bit").train.epochs == 14


@pytest.mark.parametrize("name", NAMES)
def test_tables_and_back(name):
    recipe = load_recipe(name)
    assert from_tables(name, recipe.tables(), "x") == recipe


@pytest.mark.parametrize("name", NAMES)
def test_what_changed_makes_the_same_run(name):
    recipe = load_recipe(name)
    again = from_tables(name, recipe.changed(), "x")
    assert again == dataclasses.replace(recipe, title="", published=None)


def test_what_changed_is_no_more_than_that():
    assert Recipe("x").changed() == {}
    told = load_recipe("digits", ["train.batch=125", "data.image_size=[9, 8]", "augment.shift=0"]).changed()
    assert told == {
        "data": {"name": "digits", "image_size": [9, 8], "validation": 0.15},
        "network": {"depth": 8, "layer_scale": "pow2", "downsample": "binomial", "temperature": 8.0},
        "train": {"epochs": 40, "learning_rate": 0.05},
    }


# --- --set ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("train.epochs=3", ("train.epochs", 3)),
        (" train.epochs = 3 ", ("train.epochs", 3)),
        ("train.learning_rate=1e-3", ("train.learning_rate", 0.001)),
        ("augment.flip=true", ("augment.flip", True)),
        ("data.image_size=[32, 48]", ("data.image_size", [32, 48])),
        ("data.name=digits", ("data.name", "digits")),
        ('data.name="a=b"', ("data.name", "a=b")),
        ("data.name=a=b", ("data.name", "a=b")),
        ("data.name=", ("data.name", "")),
        ("data.name=1\nflip=2", ("data.name", "1\nflip=2")),
    ],
)
def test_parse_setting(text, expected):
    assert parse_setting(text) == expected


def test_settings_apply_in_order_and_leave_the_row():
    recipe = load_recipe("cifar10-20-10-srelu-1bit", ["train.epochs=3", "train.epochs=4", "network.width=1"])
    assert recipe.train.epochs == 4 and recipe.network.width == 1.0
    assert recipe.published is None  # this is no longer what the authors trained
    assert load_recipe("digits", ["data.image_size=[9, 7]"]).data.image_size == (9, 7)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("epochs", "--set epochs: expected table.key=value"),
        ("=3", "--set =3: expected table.key=value"),
        ("train.epoch=3", "--set train.epoch=3: unknown key 'train.epoch'; did you mean 'train.epochs'?"),
        ("epochs=3", "--set epochs=3: unknown key 'epochs'; did you mean 'train.epochs'?"),
        ("train.epochs=0", "--set train.epochs=0: train.epochs is 0, expected 1 to 100000"),
        ("train.epochs=three", "--set train.epochs=three: train.epochs is 'three', expected a whole number"),
        ("augment.flip=yes", "--set augment.flip=yes: augment.flip is 'yes', expected true or false"),
        ("train.epochs=", "--set train.epochs=: train.epochs is '', expected a whole number"),
    ],
)
def test_wrong_settings(setting, message):
    with pytest.raises(UsageError) as caught:
        load_recipe("digits", [setting])
    assert str(caught.value) == message


# --- one test per error -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[train]\nepoch = 3", "unknown key 'train.epoch'; did you mean 'train.epochs'?"),
        ("[network]\nepochs = 3", "unknown key 'network.epochs'; did you mean 'train.epochs'?"),
        ("[trian]\nepochs = 3", "unknown key 'trian'; did you mean 'train'?"),
        ("titel = 'x'", "unknown key 'titel'; did you mean 'title'?"),
        ("zzz = 1", "unknown key 'zzz'; known: augment, data, extends, network, published, title, train"),
        ("train = 3", "train is 3, expected a table"),
        ("train = []", "train is [], expected a table"),
        ("[[train]]\nepochs = 3", "train is [{'epochs': 3}], expected a table"),
        ("title = 3", "title is 3, expected a text"),
        ("published = 100.5", "published is 100.5, expected an accuracy from 0 to 100"),
        ("published = true", "published is True, expected an accuracy from 0 to 100"),
        ("published = nan", "published is nan, expected an accuracy from 0 to 100"),
        ("[train]\nepochs = '3'", "train.epochs is '3', expected a whole number"),
        ("[train]\nepochs = 3.0", "train.epochs is 3.0, expected a whole number"),
        ("[train]\nepochs = true", "train.epochs is True, expected a whole number"),
        ("[train]\nmomentum = '0.9'", "train.momentum is '0.9', expected a number"),
        ("[train]\nmomentum = true", "train.momentum is True, expected a number"),
        ("[train]\nmomentum = 1979-05-27", "train.momentum is datetime.date(1979, 5, 27), expected a number"),
        ("[augment]\nflip = 1", "augment.flip is 1, expected true or false"),
        ("[data]\nname = 3", "data.name is 3, expected a text"),
        ("[train.epochs]\nx = 1", "train.epochs is {'x': 1}, expected a whole number"),
        ("[train]\nepochs = 0", "train.epochs is 0, expected 1 to 100000"),
        ("[train]\nlearning_rate = -1", "train.learning_rate is -1.0, expected 0 to 1000"),
        ("[train]\nlearning_rate = nan", "train.learning_rate is nan, expected 0 to 1000"),
        ("[train]\nlearning_rate = inf", "train.learning_rate is inf, expected 0 to 1000"),
        ("[network]\ntemperature = 0", "network.temperature is 0.0, expected 1e-06 to 1e+06"),
        ("[network]\nwidth = nan", "network.width is nan, expected 0.01 to 100"),
        ("[network]\nactivation = 'relu'", "network.activation is 'relu', expected one of 'srelu', 'bn'"),
        ("[network]\nweight_bits = 2", "network.weight_bits is 2, expected one of 1, 32"),
        ("[data]\nchannels = 4", "data.channels is 4, expected one of 1, 3"),
        ("[data]\nimage_size = 32", "data.image_size is 32, expected 2 whole numbers from 1 to 8192"),
        ("[data]\nimage_size = [32]", "data.image_size is [32], expected 2 whole numbers from 1 to 8192"),
        ("[data]\nimage_size = [0, 32]", "data.image_size is [0, 32], expected 2 whole numbers from 1 to 8192"),
        ("[data]\nimage_size = [8.0, 8]", "data.image_size is [8.0, 8], expected 2 whole numbers from 1 to 8192"),
        ("[data]\nimage_size = [true, 8]", "data.image_size is [True, 8], expected 2 whole numbers from 1 to 8192"),
        ("extends = 3", "extends is 3, expected a recipe's name"),
        ("extends = 'cifra'", "unknown recipe 'cifra'; did you mean 'cifar'?"),
        ("extends = 'r.toml'", "extends itself by way of r.toml"),
        ("extends = \"a\\nb.toml\"", "extends is 'a\\nb.toml', expected a recipe's name"),
        ("[train]\nepochs = 0x" + "f" * 9999, "train.epochs is a number of thousands of digits, expected 1 to 100000"),
        (f"title = [{'1, ' * 99}]", f"title is [{'1, ' * 25}1..., expected a text"),
    ],
)
def test_wrong_files(tmp_path, text, message):
    path = tmp_path / "r.toml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        load_recipe(path)
    assert str(caught.value) == f"{path}: {message}"


@pytest.mark.parametrize("text", ["[train", "title = 'a'\ntitle = 'b'", "title =", "= 3", "title = 'a", "\0"])
def test_invalid_toml(tmp_path, text):
    path = tmp_path / "r.toml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        load_recipe(path)
    assert str(caught.value).startswith(f"{path}: not valid TOML: ") and "\n" not in str(caught.value)


def test_numbers_too_large_for_their_kind(tmp_path):
    path = tmp_path / "r.toml"
    for digits in (400, 10_000):  # more than a float holds; more than Python reads
        path.write_text(f"[train]\nlearning_rate = 1{'0' * digits}")
        with pytest.raises(UsageError, match=r"^\S+r.toml: "):
            load_recipe(path)
        with pytest.raises(UsageError, match=r"^--set train.momentum=-10+: "):
            load_recipe("digits", [f"train.momentum=-1{'0' * digits}"])
    path.write_text(f"[train]\nlearning_rate = -1{'0' * 400}")
    with pytest.raises(UsageError, match=r"train.learning_rate is -inf, expected 0 to 1000$"):
        load_recipe(path)


def test_nesting_too_deep(tmp_path):
    path = tmp_path / "r.toml"
    path.write_text("title = " + "[" * 100_000)
    with pytest.raises(UsageError, match=r"^\S+r.toml: not valid TOML: "):
        load_recipe(path)
    with pytest.raises(UsageError, match=r"^--set train.epochs=\[+: train.epochs is "):
        load_recipe("digits", ["train.epochs=" + "[" * 100_000])


def test_extends_in_a_circle(tmp_path):
    for name, parent in (("a", "b"), ("b", "c"), ("c", "a")):
        (tmp_path / f"{name}.toml").write_text(f"extends = '{parent}.toml'")
    with pytest.raises(UsageError) as caught:
        load_recipe(tmp_path / "a.toml")
    assert str(caught.value) == f"{tmp_path / 'a.toml'}: extends itself by way of a.toml -> b.toml -> c.toml"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("digit", "unknown recipe 'digit'; did you mean 'digits'?"),
        ("absent.toml", "absent.toml: no such recipe file"),
        ("folder/x.toml", "folder/x.toml: no such recipe file"),
        ("nul\0.toml", "nul\\x00.toml: cannot be read (embedded null byte)"),
    ],
)
def test_missing_recipe(name, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as caught:
        load_recipe(name)
    assert str(caught.value).replace("\0", "\\x00") == message


def test_missing_parent(tmp_path):
    (tmp_path / "r.toml").write_text("extends = 'parent.toml'")
    with pytest.raises(UsageError) as caught:
        load_recipe(tmp_path / "r.toml")
    assert str(caught.value) == f"{tmp_path / 'parent.toml'}: no such recipe file"


def test_a_folder_and_a_binary_file(tmp_path):
    with pytest.raises(UsageError, match=f"^{re.escape(str(tmp_path))}: cannot be read .*[Ii]s a directory"):
        load_recipe(tmp_path)
    path = tmp_path / "r.toml"
    path.write_bytes(b"\x89PNG\r\n\x1a\n\xff")
    with pytest.raises(UsageError, match=f"^{re.escape(str(path))}: cannot be read .*codec can't decode byte 0x89"):
        load_recipe(path)


# --- extends ----------------------------------------------------------------------------------------------------------


def test_extends_changes_only_what_it_names(tmp_path):
    base = "title = 'b'\npublished = 9\n[train]\nepochs = 7\nbatch = 3\n[network]\ndepth = 8"
    (tmp_path / "base.toml").write_text(base)
    (tmp_path / "deeper").mkdir()
    child = tmp_path / "deeper" / "child.toml"
    child.write_text("extends = '../base.toml'\n[train]\nepochs = 5")
    recipe = load_recipe(child)
    assert recipe.name == "child" and recipe.network.depth == 8
    assert (recipe.train.epochs, recipe.train.batch) == (5, 3)
    assert (recipe.title, recipe.published) == ("", None)  # another row: not the parent's title nor its figure
    child.write_text("extends = '../base.toml'")
    assert (load_recipe(child).title, load_recipe(child).published) == ("b", 9)


def test_a_recipe_is_frozen_and_its_defaults_are_in_range():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Recipe("x").train.epochs = 3
    assert from_tables("x", Recipe("x").tables(), "x") == Recipe("x")
    for key, field in known_keys().items():
        assert field.metadata["meaning"], key
    assert set(TABLES) == {"data", "network", "augment", "train"}


# --- whatever the file says, the user gets one line -------------------------------------------------------------------


def loads_or_refuses(path, content):
    path.write_bytes(content)
    try:
        recipe = load_recipe(path)
    except UsageError as error:
        assert "\n" not in str(error)
    else:
        assert isinstance(recipe, Recipe)
        assert math.isfinite(recipe.train.learning_rate)


TOKENS = r"""
[train] [network] [[data]] [ ] { } = " ' # . , extends title published epochs epochs=3 width=0.5 train data.name cifar
nan inf -1 1e999 true 1979-05-27 \u0000 \n é image_size=[8,8] r.toml .toml /
"""
WORDS = st.sampled_from([*TOKENS.split(), "\n", "\0"])


@settings(max_examples=150)
@given(st.one_of(st.binary(max_size=200), st.lists(WORDS, max_size=25).map(lambda w: " ".join(w).encode())))
def test_any_bytes_as_a_file(tmp_path_factory, content):
    loads_or_refuses(tmp_path_factory.getbasetemp() / "r.toml", content)


VALUES = st.recursive(
    st.one_of(st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.just(10**400)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=2)),
    max_leaves=5,
)


@settings(max_examples=150)
@given(st.sampled_from(sorted(known_keys())), VALUES)
def test_any_value_of_any_key(key, value):
    table, _, last = key.partition(".")
    try:
        recipe = from_tables("x", {table: {last: value}}, "x")
    except UsageError as error:
        assert str(error).startswith(f"x: {key} is ")
    else:
        assert from_tables("x", recipe.tables(), "x") == from_tables("x", recipe.changed(), "x") == recipe


def test_a_loop_of_links(tmp_path):
    path = tmp_path / "r.toml"
    path.symlink_to(path)
    with pytest.raises(UsageError, match=r"^\S+r.toml: cannot be read "):
        load_recipe(path)
