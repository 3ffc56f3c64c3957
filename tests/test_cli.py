"""The command line: what it prints, its exit status, and one line instead of a traceback for whatever is wrong."""

import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import version

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from bitwren.cli import main

COMMANDS = (
    *("train", "evaluate", "predict", "info", "recipes", "datasets", "zoo"),
    *("bench", "convert", "verify", "export", "fit", "study"),
)
CLASSES = [str(digit) for digit in range(10)]


def call(capsys, *words):
    """Return status, stdout and stderr of one command."""
    capsys.readouterr()
    try:
        status = main([str(word) for word in words])
    except SystemExit as left:  # argparse prints help and leaves
        status = left.code
    return status, *capsys.readouterr()


def refuse(capsys, status, *words):
    """Check that a command fails with this status and one line on stderr; return the line."""
    got, out, err = call(capsys, *words)
    assert (got, out) == (status, ""), err
    assert err.startswith("bitwren: ") and err.count("\n") == 1 and err.endswith("\n"), err
    return err.removeprefix("bitwren: ").rstrip("\n")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run folder: the smallest network, one epoch of digits. Copy it to spoil it."""
    pytest.importorskip("torch")
    run = tmp_path_factory.mktemp("trained") / "run"
    small = ("network.depth=8", "network.width=0.25", "train.epochs=1", "train.batch=125")
    words = [word for key in small for word in ("--set", key)]
    assert main(["train", "digits", *words, "--out", str(run), "--quiet"]) == 0
    return run


@pytest.fixture
def run(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "run")


# ---------------------------------------------------------------- help, names


def test_help_names_every_command(capsys):
    status, out, err = call(capsys, "--help")
    assert (status, err) == (0, "")
    for command in COMMANDS:
        assert f"\n    {command} " in out
    assert max(map(len, out.splitlines())) <= 120


@pytest.mark.parametrize("words", [*[(name,) for name in COMMANDS], ("bench", "train")])
def test_help_of_each_command(capsys, words):
    status, out, err = call(capsys, *words, "--help")
    assert (status, err) == (0, "")
    assert out.startswith(f"usage: bitwren {' '.join(words)} ")
    assert "==SUPPRESS==" not in out
    assert max(map(len, out.splitlines())) <= 120


def test_version(capsys):
    assert call(capsys, "--version") == (0, f"bitwren {version('bitwren')}\n", "")


def test_without_a_command_help_goes_to_stderr(capsys):
    status, out, err = call(capsys)
    assert (status, out) == (2, "")
    assert err.startswith("usage: bitwren ")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["trian", "digits"], "unknown command 'trian'; did you mean 'train'?"),
        (["train", "digit"], "unknown recipe 'digit'; did you mean 'digits'?"),
        (["info", "cifar10-20-2"], "unknown recipe 'cifar10-20-2'; did you mean 'cifar10-20-1'?"),
        (["train", "digits", "--set", "network.widht=2"], "--set network.widht=2: unknown key 'network.widht'; did"),
        (["train", "digits", "--set", "width=2"], "did you mean 'network.width'?"),
        (["train", "digits", "--set", "data.name=cifar-10"], "unknown data set 'cifar-10'; did you mean 'cifar10'?"),
        (["train", "digits", "--set", "train.epochs=0"], "train.epochs is 0, expected 1 to 100000"),
        (["train", "digits", "--set", "train.epochs"], "--set train.epochs: expected table.key=value"),
        (["train", "none.toml"], "none.toml: no such recipe file"),
        (["train"], "RECIPE is missing"),
        (["train", "--resume"], "RECIPE is missing"),
        (["train", "digits", "--resum"], "unrecognized arguments: --resum (see bitwren --help)"),
        (["train", "digits", "--device", "gpu"], "device is 'gpu', expected auto, cpu, cuda or cuda:N"),
        (["train", "digits", "--device", "cuda:x"], "device is 'cuda:x', expected auto, cpu, cuda or cuda:N"),
        (["train", "digits", "--threads", "0"], "--threads is 0, expected at least 1"),
        (["train", "digits", "--threads", "two"], "argument --threads: invalid int value: 'two' (see bitwren"),
        (["train", "folder"], "needs the folder of its pictures; name it with --data-dir"),
        (["predict", "RUN"], "the following arguments are required: PICTURE (see bitwren predict --help)"),
        (["predict", "RUN", "x.png", "--top", "0"], "--top is 0, expected at least 1"),
        (["evaluate", "RUN", "--split", "tset"], "unknown split 'tset'; did you mean 'test'?"),
        (["evaluate", "RUN", "--checkpoint", "first"], "unknown checkpoint 'first'; "),
        (["recipes", "more"], "unrecognized arguments: more (see bitwren --help)"),
        (["bench", "trian"], "unknown command 'trian'; did you mean 'train'?"),
        (["bench"], "the following arguments are required: SUBJECT (see bitwren bench --help)"),
        (["--verbose"], "unrecognized arguments: --verbose (see bitwren --help)"),
    ],
)
def test_wrong_usage_is_one_line_and_2(capsys, tmp_path, monkeypatch, words, line):
    monkeypatch.chdir(tmp_path)
    assert line in refuse(capsys, 2, *words)
    assert os.listdir(tmp_path) == []


def test_lists(capsys):
    status, out, err = call(capsys, "recipes")
    assert (status, err) == (0, "")
    assert "cifar10-20-10-srelu-1bit            96.52 %  " in out
    status, out, err = call(capsys, "recipes", "--keys")
    assert (status, err) == (0, "")
    assert "\ntrain.learning_rate " in out
    status, out, err = call(capsys, "datasets")
    assert (status, err) == (0, "")
    assert out.startswith("digits ") or "\ndigits " in out


# ---------------------------------------------------------------- train


def test_train_says_what_it_made(capsys, trained):
    status, out, err = call(capsys, "train", "--resume", "--out", trained)  # finished: says it again
    assert status == 0
    accuracy, weights, saved, following = out.splitlines()
    result = json.loads((trained / "result.json").read_text())
    assert accuracy.startswith(f"accuracy   {result['test_accuracy']:.2%} of 359 test pictures (epoch 1, chosen on val")
    assert weights == "weights    4,804 x 1 bit = 601 bytes"
    assert str(trained) in saved
    assert following.startswith(f"next       bitwren evaluate {trained} ")
    assert err.splitlines()[-1] == f"run folder {trained}"
    assert call(capsys, "train", "--resume", "--out", trained, "--quiet") == (0, out, "")


def test_train_default_folder(capsys, monkeypatch, trained, tmp_path):
    shutil.copytree(trained, tmp_path / "runs" / "digits")
    monkeypatch.chdir(tmp_path)
    assert "runs/digits: a run is there already" in refuse(capsys, 2, "train", "digits")


# ---------------------------------------------------------------- evaluate


def test_evaluate_writes_what_it_prints(capsys, run):
    status, out, err = call(capsys, "evaluate", run)
    assert (status, err) == (0, "")
    result = json.loads((run / "result.json").read_text())
    written = json.loads((run / "evaluation-test" / "evaluation.json").read_text())
    assert written["pictures"] == 359
    assert written["top1"] == result["test_accuracy"]
    assert written["top5"] == result["test_top5"]
    assert (written["run"], written["split"], written["data"]) == (str(run), "test", "digits")
    assert np.sum(written["confusion"]) == 359
    assert np.trace(written["confusion"]) == round(359 * result["test_accuracy"])
    assert f"{written['top1']:.2%}" in out
    with Image.open(run / "evaluation-test" / "confusion.png") as picture:
        assert min(picture.size) > 100


def test_evaluate_other_splits_and_places(capsys, run, tmp_path):
    assert call(capsys, "evaluate", run, "--split", "validation", "--checkpoint", "last")[0] == 0
    written = json.loads((run / "evaluation-validation" / "evaluation.json").read_text())
    result = json.loads((run / "result.json").read_text())
    assert (written["pictures"], written["top1"]) == (216, result["validation_accuracy"])
    assert call(capsys, "evaluate", run, "digits", "--out", tmp_path / "a" / "b")[0] == 0
    assert json.loads((tmp_path / "a" / "b" / "evaluation.json").read_text())["pictures"] == 359


def test_evaluate_refuses_other_classes(capsys, run, tmp_path):
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            folder = tmp_path / "pets" / split / name
            folder.mkdir(parents=True)
            Image.new("L", (8, 8)).save(folder / "0.png")
    line = refuse(capsys, 1, "evaluate", run, tmp_path / "pets")
    assert line == f"the pictures' classes are ['cat', 'dog'], expected {CLASSES} as in {run}"
    line = refuse(capsys, 2, "evaluate", run, "digits", "--split", "training")
    assert "expected test" in line


def test_evaluate_needs_the_split(capsys, run, tmp_path):
    recipe = (run / "recipe.toml").read_text()
    (run / "recipe.toml").write_text(recipe.replace("validation = 0.15", "validation = 0.0"))
    assert "held out no validation pictures" in refuse(capsys, 2, "evaluate", run, "--split", "validation")


def test_evaluate_that_cannot_write(capsys, run, tmp_path):
    (tmp_path / "file").write_text("")
    assert str(tmp_path / "file") in refuse_any(capsys, "evaluate", run, "--out", tmp_path / "file")


def refuse_any(capsys, *words):
    status, _, err = call(capsys, *words)
    assert status in (1, 2)
    assert err.startswith("bitwren: ") and err.count("\n") == 1, err
    return err


# ---------------------------------------------------------------- predict


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Pictures of several sizes and modes, good ones, and some that are not pictures."""
    folder = tmp_path_factory.mktemp("pictures")
    generator = np.random.default_rng(0)
    pixels = Image.fromarray(generator.integers(0, 256, (30, 47, 4), dtype=np.uint8), "RGBA")
    for mode in ("L", "RGB", "RGBA", "1", "P", "CMYK", "I;16", "LA"):
        name = mode.replace(";", "")
        kind = "tif" if mode in ("CMYK", "I;16") else "png"
        picture = pixels.convert("L").convert("I;16") if mode == "I;16" else pixels.convert("RGB").convert(mode)
        picture.save(folder / f"{name}.{kind}")
    pixels.convert("L").resize((1, 1)).save(folder / "one pixel.png")
    (folder / "text.png").write_text("no picture")
    (folder / "empty.png").write_bytes(b"")
    (folder / "cut.png").write_bytes((folder / "RGB.png").read_bytes()[:400])
    (folder / "folder.png").mkdir()
    return folder


GOOD = ("L.png", "RGB.png", "RGBA.png", "1.png", "P.png", "CMYK.tif", "I16.tif", "LA.png", "one pixel.png")
BAD = ("text.png", "empty.png", "cut.png", "folder.png", "none.png")


def test_predict_pictures_of_any_size_and_mode(capsys, trained, pictures):
    status, out, err = call(capsys, "predict", trained, *(pictures / name for name in GOOD))
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert len(lines) == len(GOOD)
    for name, line in zip(GOOD, lines, strict=True):
        answer = line.removeprefix(str(pictures / name)).split()
        assert answer[0] in CLASSES
        assert 10 <= float(answer[1].rstrip("%")) <= 100


def test_predict_json(capsys, trained, pictures):
    status, out, _ = call(capsys, "predict", trained, pictures / "L.png", "--json", "--top", "99")
    assert status == 0
    answer = json.loads(out)
    assert answer["picture"] == str(pictures / "L.png")
    probabilities = [c["probability"] for c in answer["classes"]]
    assert sorted(c["class"] for c in answer["classes"]) == CLASSES
    assert probabilities == sorted(probabilities, reverse=True)
    assert sum(probabilities) == pytest.approx(1, abs=1e-9)


def test_predict_answers_for_the_good_ones_among_bad_ones(capsys, trained, pictures):
    names = ("L.png", *BAD, "RGB.png")
    status, out, err = call(capsys, "predict", trained, *(pictures / name for name in names))
    assert status == 1
    assert [line.split()[0] for line in out.splitlines()] == [str(pictures / "L.png"), str(pictures / "RGB.png")]
    lines = err.splitlines()
    assert len(lines) == len(BAD)
    for name, line in zip(BAD, lines, strict=True):
        assert line.startswith(f"bitwren: {pictures / name}: ")


def test_predict_a_file_name_that_is_no_text(trained, pictures, tmp_path):
    """A name of bytes that are not UTF-8, printed to a pipe: escaped, not a traceback. One process, as users have."""
    name = os.fsencode(tmp_path) + b"/\xff\xfe.png"
    shutil.copy(pictures / "L.png", name)
    words = [os.fsencode(word) for word in (sys.executable, "-m", "bitwren", "predict", str(trained))]
    ended = subprocess.run([*words, name], capture_output=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert b"/\\udcff\\udcfe.png " in ended.stdout


# ---------------------------------------------------------------- run folders


SPOILT = {
    "not there": (lambda run: shutil.rmtree(run), 1, "no such file or folder"),
    "empty": (lambda run: [path.unlink() for path in run.iterdir() if path.is_file()], 1, "no run is there (expected"),
    "no run.json": (lambda run: (run / "run.json").unlink(), 1, "run.json: cannot be read"),
    "no best": (lambda run: (run / "best.safetensors").unlink(), 1, "this run has not finished its first epoch"),
    "half a best": (lambda run: os.truncate(run / "best.safetensors", 5000), 1, "not a readable checkpoint"),
    "another network": (
        lambda run: (run / "recipe.toml").write_text((run / "recipe.toml").read_text().replace("0.25", "0.5")),
        1,
        "another network?",
    ),
    "recipe broken": (lambda run: (run / "recipe.toml").write_text("]"), 1, "recipe.toml: not valid TOML"),
}


@pytest.mark.parametrize("how", SPOILT)
@pytest.mark.parametrize("command", ["evaluate", "predict", "info"])
def test_a_run_folder_that_is_not_whole(capsys, run, pictures, command, how):
    spoil, status, reason = SPOILT[how]
    spoil(run)
    words = [command, run, *([pictures / "L.png"] if command == "predict" else [])]
    if command == "info" and how in ("no best", "half a best", "another network"):
        assert call(capsys, *words)[0] == 0  # it looks at the recipe alone
        return
    line = refuse_any(capsys, *words)
    if not (command == "info" and how == "not there"):  # then it could as well be a recipe's name
        assert reason in line
        assert call(capsys, *words)[0] == status


def test_info(capsys, trained):
    status, out, err = call(capsys, "info", trained)
    assert (status, err) == (0, "")
    assert "4,804" in out
    status, out, err = call(capsys, "info", "digits", "--set", "network.width=0.25", "--compare", "--json")
    assert (status, err) == (0, "")
    assert len(json.loads(out)) == 2
    assert "--set changes a recipe" in refuse(capsys, 2, "info", trained, "--set", "network.width=2")


# ---------------------------------------------------------------- no traceback, whatever is wrong


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (PermissionError(13, "Permission denied", "/secret"), "/secret: Permission denied"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (OSError(), "OSError"),
        (MemoryError(), "out of memory"),
        (MemoryError("Unable to allocate 9 TiB"), "out of memory: Unable to allocate 9 TiB"),
        (KeyboardInterrupt(), "interrupted"),
    ],
)
def test_what_the_system_refuses_is_one_line(capsys, monkeypatch, error, line):
    def refuse_it(*_):
        raise error

    monkeypatch.setattr("bitwren.recipe.packaged_recipes", refuse_it)
    assert refuse(capsys, 1, "recipes") == line


def test_a_reader_that_leaves(trained):
    process = subprocess.Popen(
        [sys.executable, "-m", "bitwren", "recipes"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.close()
    assert (process.stderr.read(), process.wait()) == (b"", 1)
    process.stderr.close()


WORDS = [*COMMANDS, "digits", "folder", "nothing", "RUN", "PICTURE", "OUT", "cpu", "validation", "last", "a.toml"]
WORDS += ["--set", "--out", "-o", "--resume", "--top", "--json", "--threads", "--data", "--data-dir", "--split"]
WORDS += ["--device", "--quiet", "--compare", "--keys", "--version", "--checkpoint", "-", "--", "--="]
WORDS += ["train.epochs=0", "network.depth=9", "network.width=nan", "data.name=nothing", "=", "0", "-1", "1e999"]
WORDS += ["", "/", "/dev/null", "\ud800", "ä", "a" * 300, "x\ny", "["]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(words=st.lists(st.sampled_from(WORDS) | st.text(st.characters(exclude_characters="\0"), max_size=5), max_size=5))
@example(words=["info", "a" * 300])
@example(words=["train", "\ud800"])
@example(words=["predict", "RUN", "x\ny"])
@example(words=["evaluate", "/dev/null"])
@example(words=["train", "digits", "--out", "/dev/null", "--set", "network.depth=9"])
def test_no_words_give_a_traceback(capsys, monkeypatch, tmp_path, trained, pictures, words):
    """Whatever the words, the status is 0, 1 or 2, and a failure is lines that say so, or help."""
    monkeypatch.chdir(tmp_path)
    if words[:1] in (["train"], ["bench"]) and not {"--help", "-h"} & set(words):
        words = [*words, "--set", "network.depth=9"]  # refused at the latest where the network is made
    if words[:2] == ["bench", "train"]:
        return
    known = {"RUN": str(trained), "PICTURE": str(pictures / "L.png"), "OUT": str(tmp_path / "out")}
    status, _, err = call(capsys, *(known.get(word, word) for word in words))
    assert status in (0, 1, 2)
    assert "Traceback" not in err
    for line in err.rstrip("\n").split("\n") if status and words else []:  # predict has one for each picture
        assert line.startswith("bitwren: "), err
