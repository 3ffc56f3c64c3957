"""A study file becomes the runs that it describes, or one line that says what is wrong in it."""

from itertools import product
from pathlib import Path

import pytest

from bitwren.errors import UsageError
from bitwren.recipe import load_recipe
from bitwren.study.grid import read_study

STUDIES = Path(__file__).resolve().parents[2] / "study"
TWO_AXES = """
name = "small"
recipe = "digits"
seeds = [3, 1]
[settings]
"train.epochs" = 2
[axes]
"network.activation" = ["bn", "srelu"]
"network.weight_bits" = [1, 32]
"""


def read(tmp_path, text):
    path = tmp_path / "study.toml"
    path.write_text(text)
    return read_study(path)


def test_every_combination_once(tmp_path):
    study = read(tmp_path, TWO_AXES)
    points = [(r.recipe.network.activation, r.recipe.network.weight_bits, r.recipe.train.seed) for r in study.runs]
    assert points == [(*point, seed) for seed in (3, 1) for point in product(["bn", "srelu"], [1, 32])]
    assert [r.id for r in study.runs[:3]] == ["bn-1-seed3", "bn-32-seed3", "srelu-1-seed3"]
    assert study.runs[1].axes == {"activation": "bn", "weight_bits": 32}
    assert {r.data for r in study.runs} == {"digits"}
    base = load_recipe("digits")
    for run in study.runs:
        assert run.recipe.train.epochs == 2 and run.seed == run.recipe.train.seed
        assert (run.recipe.data, run.recipe.augment) == (base.data, base.augment)
        assert run.recipe.published is None


def test_keys_may_be_written_either_way(tmp_path):
    nested = TWO_AXES.replace('"train.epochs"', "train.epochs").replace('"network.activation"', "network.activation")
    assert read(tmp_path, nested.replace('"network.weight_bits"', "network.weight_bits")).runs == (
        read(tmp_path, TWO_AXES).runs
    )


def test_a_list_is_a_text_in_the_records(tmp_path):
    study = read(tmp_path, TWO_AXES + '"data.image_size" = [[8, 8], [8, 9]]\n')
    assert [run.axes["image_size"] for run in study.runs[:2]] == ["8x8", "8x9"]
    assert study.runs[1].id == "bn-1-8x9-seed3" and study.runs[1].recipe.data.image_size == (8, 9)


def test_bundles_and_rules(tmp_path):
    text = """
name = "bundled"
[[axes.data]]
label = "digits"
recipe = "digits"
[[axes.data]]
label = "mine"
recipe = "folder"
data_dir = "photos"
"augment.shift" = 2
[axes]
"train.learning_rate" = [0.1, 0.05]
[[rules]]
when = { data = "mine", learning_rate = 0.05 }
skip = true
[[rules]]
when = { learning_rate = [0.1, 0.05], data = ["digits"] }
"network.temperature" = 7.0
"""
    runs = read(tmp_path, text).runs
    assert [r.id for r in runs] == ["digits-0.1-seed0", "digits-0.05-seed0", "mine-0.1-seed0"]
    assert [r.data for r in runs] == ["digits", "digits", "mine"]
    assert [r.data_dir for r in runs] == [None, None, tmp_path / "photos"]
    assert [r.recipe.data.name for r in runs] == ["digits", "digits", "folder"]
    assert [r.recipe.network.temperature for r in runs] == [7.0, 7.0, load_recipe("folder").network.temperature]
    assert [r.recipe.augment.shift for r in runs] == [1, 1, 2]


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ('name = "small"', "", "name is missing, expected a text"),
        ('name = "small"', 'name = "a/b"', "name is 'a/b', expected letters, digits and ._+- only"),
        ('name = "small"', 'nmae = "small"', "unknown key 'nmae'; did you mean 'name'?"),
        ('recipe = "digits"', "", "recipe is missing"),
        ('recipe = "digits"', 'recipe = "digit"', "unknown recipe 'digit'; did you mean 'digits'?"),
        ('recipe = "digits"', "recipe = 3", "recipe is 3, expected a name"),
        ("[3, 1]", "[3, 3]", "seeds is [3, 3], expected a list of different whole numbers"),
        ("[3, 1]", "[true]", "seeds is [True], expected"),
        ("[3, 1]", "[-1]", "train.seed is -1, expected 0 to"),
        ("train.epochs", "train.epoch", "settings: unknown key 'train.epoch'; did you mean 'train.epochs'?"),
        ("train.epochs", "width", "settings: unknown key 'width'; did you mean 'network.width'?"),
        ('"train.epochs" = 2', '"train.epochs" = 0', "settings: train.epochs is 0, expected 1 to 100000"),
        ('"train.epochs" = 2', '"train.seed" = 2', "train.seed is set, expected it in seeds"),
        ("weight_bits", "weight_bit", "axes.network.weight_bit: unknown key 'network.weight_bit'; did you mean"),
        ("[1, 32]", "[1, 2]", "network.weight_bits is 2, expected one of 1, 32"),
        ("[1, 32]", "[1, 1]", "values ['1', '1'], expected different ones"),
        ("[1, 32]", "[]", "is [], expected a list of values"),
        ("[1, 32]", "1", "is 1, expected a list of values"),
        ("[axes]", "[[axes]]", "axes is [{"),
        ("[1, 32]", '[{ "network.depth" = 8 }]', "label is missing, expected a text"),
        ("[1, 32]", '[{ label = "x y" }]', "label is 'x y', expected letters"),
        ("[1, 32]", '[{ label = "a", "network.dept" = 8 }]', "'a': unknown key 'network.dept'; did you mean"),
        ("[axes]", '[[rules]]\nwhen = { activatio = "bn" }\n[axes]', "unknown axis 'activatio'; did you mean"),
        ("[axes]", '[[rules]]\nwhen = { activation = "b" }\n[axes]', "unknown value of activation 'b'; did you"),
        ("[axes]", "[[rules]]\nskip = true\n[axes]", "rule 1: when is None, expected a table"),
        ("[axes]", '[[rules]]\nwhen = { activation = ["bn", "srelu"] }\nskip = true\n[axes]', "no runs are left"),
        ("[axes]", "[axes", "cannot be read as TOML"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path, old, new, line):
    assert old in TWO_AXES
    with pytest.raises(UsageError) as error:
        read(tmp_path, TWO_AXES.replace(old, new, 1))
    assert line in str(error.value)
    assert str(error.value).startswith(str(tmp_path / "study.toml"))


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UsageError, match="no such study file"):
        read_study(tmp_path / "none.toml")


@pytest.mark.parametrize(("name", "runs"), [("paper", 60), ("two-cores", 36), ("remedies", 42)])
def test_the_studies_that_come_along(name, runs):
    study = read_study(STUDIES / f"{name}.toml")
    assert (study.name, len(study.runs)) == (name, runs)
    for run in study.runs:
        network = run.recipe.network
        assert network.activation == "srelu" or network.temperature == 1.0 or run.data == "imagenet"


@pytest.mark.parametrize(
    ("row", "run"),
    [
        (f"{data}-20-10-{activation}-{bits}bit", f"{data}-{activation}-{bits}-20-10-seed0")
        for data, activation, bits in product(("cifar10", "cifar100"), ("bn", "srelu"), (1, 32))
    ],
)
def test_the_paper_is_as_its_recipes(row, run):
    runs = {run.id: run.recipe for run in read_study(STUDIES / "paper.toml").runs}
    ours, theirs = runs[run], load_recipe(row)
    assert (ours.data, ours.augment, ours.train) == (theirs.data, theirs.augment, theirs.train)
    tables = [recipe.tables()["network"] for recipe in (ours, theirs)]
    assert tables[0] == {"temperature": 1.0} | tables[1]
