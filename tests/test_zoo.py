"""The networks that come with the package: their cards tell the truth, and a name stands wherever a file does."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import bitwren
from bitwren.cli import main
from bitwren.deploy import model
from bitwren.deploy.zoo import find_model, packaged_networks, read_card
from bitwren.errors import ModelError, UsageError
from bitwren.network.pack import encode, read_bwn
from bitwren.recipe import from_tables, load_recipe

NAMES = list(packaged_networks())
SOURCE = Path(bitwren.__file__).parents[1]
DOCS = Path(__file__).parents[1] / "docs" / "zoo.md"
KEYS = {
    "": {"name", "title", "intended_use", "limits", "data", "accuracy", "network", "recipe", "made_by"},
    "data": {
        *("name", "about", "citation", "terms", "classes"),
        *("training_pictures", "validation_pictures", "test_pictures"),
    },
    "accuracy": {
        *("validation_float", "pictures", "float", "integer", "integer_interval_95", "predictions_changed"),
    },
    "network": {"input", "weights", "multiplications", "bytes", "sha256"},
    "recipe": {"name", "seeds", "epoch_chosen", "data", "network", "augment", "train"},
    "made_by": {"train", "train_commit", "convert", "convert_commit", "card", "versions", "processor"},
}
BLOCK = """
import socket, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchvision", "safetensors", "tqdm", "tomli_w"):
            raise ImportError(f"{name} is blocked")
sys.meta_path.insert(0, Refuse())
def refuse(*_, **__):
    raise OSError("the network is blocked")
socket.socket = refuse
"""


@pytest.fixture
def picture(tmp_path):
    drawn = np.zeros((40, 30), np.uint8)
    drawn[5:35, 12:18] = 255
    Image.fromarray(drawn).save(tmp_path / "one.png")
    return tmp_path / "one.png"


def refused(words, status, capsys):
    """Return the one line that a command ends with."""
    assert main([str(word) for word in words]) == status
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("bitwren: ") and err.count("\n") == 1, err
    return err


# ---------------------------------------------------------------- what is shipped


def test_the_digits_are_there():
    assert "digits" in NAMES


def test_every_file_of_the_zoo_is_a_network_or_its_card():
    folder = SOURCE / "bitwren" / "zoo"
    assert {f.name for f in folder.iterdir()} == {f"{name}{end}" for name in NAMES for end in (".bwn", ".toml")}


@pytest.mark.parametrize("name", NAMES)
def test_a_card_has_every_key(name):
    card = read_card(name)
    for table, keys in KEYS.items():
        got = set(card[table] if table else card)
        assert got - {"also", "from", "teacher", "processes"} == keys, table
    assert card["name"] == name and all(card[text].strip() for text in ("title", "intended_use", "limits"))
    for measured in (card["accuracy"], *([card["accuracy"]["also"]] if "also" in card["accuracy"] else [])):
        low, high = measured["integer_interval_95"]
        assert low <= measured["integer"] <= high and 0 <= measured["float"] <= 1 <= measured["pictures"]
        right = measured["integer"] * measured["pictures"]
        assert right == pytest.approx(round(right), abs=1e-6)
        changed = abs(measured["integer"] - measured["float"]) * measured["pictures"]
        assert changed <= measured["predictions_changed"] + 1e-6
    assert card["accuracy"]["pictures"] == card["data"]["test_pictures"]


@pytest.mark.parametrize("name", NAMES)
def test_a_card_tells_what_the_file_holds(name):
    path, card = packaged_networks()[name], read_card(name)
    content, network = path.read_bytes(), read_bwn(path)
    assert card["network"] == {
        "input": [network.channels, network.height, network.width],
        "weights": network.weights,
        "multiplications": network.total_multiplications,
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    assert encode(network) == content and card["data"]["classes"] == list(network.classes)
    told = {key: dict(card["recipe"][key]) for key in ("data", "network", "augment", "train")}
    told["train"]["seed"] = card["recipe"]["seeds"][0]
    recipe = from_tables(network.about["recipe"], network.about["settings"], name)
    # A card made before there was a key says nothing of it, which stands for its default.
    assert from_tables(recipe.name, told, name).tables() == recipe.tables()
    assert recipe.name == card["recipe"]["name"]
    assert network.about["trained_by_commit"] == card["made_by"]["train_commit"]


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_of_the_package_trains_it_again(name):
    told = DOCS.read_text(encoding="utf-8")
    recipe, settings = re.search(rf"^\| `{name}` \| `([^`]*)` \|([^|]*)\|$", told, re.MULTILINE).groups()
    tables, card = load_recipe(recipe, re.findall("`([^`]*)`", settings)).tables(), read_card(name)
    tables["train"].pop("seed")
    for table in ("network", "augment", "train"):
        # A card made before there was a key says nothing of it.
        assert card["recipe"][table] == {key: tables[table][key] for key in card["recipe"][table]}


def test_the_package_stays_under_two_megabytes():
    skipped = {"__pycache__", "lib"}
    files = (p for p in (SOURCE / "bitwren").rglob("*") if p.is_file() and not skipped & {*p.parts})
    assert sum(p.stat().st_size for p in files) < 2_000_000


@pytest.mark.parametrize("engine", ["runtime", "reference"])
def test_the_digits_are_read_as_well_as_the_card_says(engine):
    pytest.importorskip("sklearn")
    from bitwren.pictures import load_dataset

    test, accuracy = load_dataset("digits").test, read_card("digits")["accuracy"]
    assert len(test.labels) == accuracy["pictures"] == 359
    answers = bitwren.load("digits", engine).predict(test.images)
    assert (answers == test.labels).mean() == accuracy["integer"]
    assert accuracy["integer"] >= 0.985


# ---------------------------------------------------------------- names


def test_an_existing_path_goes_first(tmp_path, monkeypatch):
    other = tmp_path / "digits"
    shutil.copy(packaged_networks()["digits"], other)
    assert find_model("digits") == packaged_networks()["digits"]
    monkeypatch.chdir(tmp_path)
    assert find_model("digits") == Path("digits")
    other.write_bytes(b"not a network")
    with pytest.raises(ModelError, match="digits"):
        bitwren.load("digits")


@pytest.mark.parametrize("path", ["none.bwn", "runs/digits", "./none/digits"])
def test_what_looks_like_a_path_stays_one(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_model(path) == Path(path)
    with pytest.raises(ModelError):
        bitwren.load(path)


@pytest.mark.parametrize("name", ["digts", "x" * 300, "a\0b", "", "digits\n"])
def test_an_unknown_name_is_one_clear_line(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((UsageError, ModelError)) as caught:
        bitwren.load(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "words",
    [
        ["predict", "digts", "x.png"],
        ["evaluate", "digts", "digits"],
        ["verify", "digts"],
        ["export", "digts", "--to", "onnx"],
        ["generate", "digts", "-o", "out"],
        ["emulate", "digts", "--core", "cortex-m0"],
        ["bench", "model", "digts"],
        ["info", "digts"],
        ["zoo", "digts"],
    ],
)
def test_every_command_names_the_nearest(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert "did you mean 'digits'?" in refused(words, 2, capsys)


# ---------------------------------------------------------------- commands


def test_the_list_and_the_card(capsys):
    assert main(["zoo"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[2 : 2 + len(NAMES)]] == NAMES
    assert main(["zoo", "digits"]) == 0
    assert capsys.readouterr().out == packaged_networks()["digits"].with_suffix(".toml").read_text(encoding="utf-8")


def test_a_name_does_what_the_file_does(picture, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("copy").mkdir()
    shutil.copy(packaged_networks()["digits"], "copy")
    told = []
    for target in ("digits", "copy/digits.bwn"):
        assert main(["info", target, "--json"]) == 0
        assert main(["predict", target, str(picture), "--top", "3", "--json"]) == 0
        assert main(["generate", target, "-o", "made"]) == 0
        told.append((capsys.readouterr().out, Path("made/network.c").read_bytes()))
        assert main(["verify", target]) == 0
        assert "DIFFERS" not in capsys.readouterr().out
    assert told[0] == told[1]
    assert main(["bench", "digits", "--rounds", "1", "--seconds", "0.01", "--threads", "1", "--batches", "1"]) == 0


def test_the_recipe_of_that_name_is_still_found(capsys):
    pytest.importorskip("torch")
    assert main(["info", "digits", "--set", "network.width=0.25"]) == 0
    assert "digits: scikit-learn" in capsys.readouterr().out
    assert main(["info", "digits"]) == 0
    assert "requantise" in capsys.readouterr().out


def test_export_writes_here_and_not_into_the_package(tmp_path, monkeypatch, capsys):
    pytest.importorskip("onnx")
    monkeypatch.chdir(tmp_path)
    assert main(["export", "digits", "--to", "onnx"]) == 0
    assert (tmp_path / "digits.onnx").stat().st_size > 0
    assert not packaged_networks()["digits"].with_suffix(".onnx").exists()


def test_without_pytorch_and_without_a_connection(picture):
    def run(code, *words):
        environment = os.environ | {"PYTHONPATH": str(SOURCE)}
        done = subprocess.run(
            [sys.executable, "-c", BLOCK + code, *map(str, words)],
            env=environment,
            cwd=picture.parent,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    command = "from bitwren.cli import main; sys.exit(main(sys.argv[1:]))"
    assert run(command, "zoo").count("\n") >= 3
    assert run(command, "predict", "digits", picture).startswith(f"{picture}  1 ")
    run(command, "info", "digits")
    load = "import numpy, bitwren; print(bitwren.load('digits').predict(numpy.zeros((2, 1, 8, 8), 'uint8')).shape)"
    assert run(load) == "(2,)\n"


def test_both_engines_take_names():
    pictures = np.random.default_rng(0).integers(0, 256, (5, 1, 8, 8), dtype=np.uint8)
    logits = [model.load("digits", engine).logits(pictures) for engine in model.ENGINES]
    assert np.array_equal(*logits)
