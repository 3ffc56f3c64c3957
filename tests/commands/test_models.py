"""The commands about integer networks, from a trained run to a verified file, as a user calls them."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from bitwren.cli import main
from bitwren.deploy import runtime
from bitwren.network.graph import Conv
from bitwren.network.pack import encode, read_bwn
from bitwren.recipe import load_recipe
from bitwren.train.checkpoint import load_tensors, save_tensors
from bitwren.train.run import open_run

BLOCK_TORCH = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "safetensors", "tqdm", "tomli_w"):
            raise ImportError(f"{name} is not installed")
sys.meta_path.insert(0, Refuse())
from bitwren.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A run of two epochs on the digits: enough to be above chance."""
    folder = tmp_path_factory.mktemp("runs") / "digits"
    settings = ["train.epochs=2", "network.width=0.25"]
    words = [word for s in settings for word in ("--set", s)]
    assert main(["train", "digits", *words, "--out", str(folder), "--quiet"]) == 0
    return folder


@pytest.fixture(scope="module")
def model(run_folder, tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "digits.bwn"
    assert main(["convert", str(run_folder), "-o", str(path), "--calibrate", "50"]) == 0
    return path


@pytest.fixture
def picture(tmp_path):
    """A digit as a user's file: larger, in colour."""
    image = Image.fromarray((load_digits().images[0] * 255 / 16).astype(np.uint8)).resize((40, 40)).convert("RGB")
    image.save(tmp_path / "nought.png")
    return tmp_path / "nought.png"


def test_convert_says_what_changed_and_what_is_left(run_folder, tmp_path, capsys):
    assert main(["convert", str(run_folder), "-o", str(tmp_path / "m.bwn"), "--calibrate", "50"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["float", "integer", "weights", "left", "saved", "next"]
    assert lines[0].endswith("of 216 validation pictures")
    assert lines[3] == "left       0 multiplications for a picture"


def test_convert_takes_the_checkpoint_that_is_named(run_folder, tmp_path):
    folder, words = tmp_path / "run", ["-o", str(tmp_path / "m.bwn"), "--calibrate", "50"]
    shutil.copytree(run_folder, folder)
    tensors, state = load_tensors(folder / "last.safetensors")
    turned = {name: -tensor if tensor.dim() == 4 else tensor for name, tensor in tensors.items()}
    for name, other in (("best", "last"), ("last", "best")):  # the other one has all signs turned
        save_tensors(folder / f"{name}.safetensors", tensors, state)
        save_tensors(folder / f"{other}.safetensors", turned, state)
        assert main(["convert", str(folder), "--checkpoint", name, *words]) == 0
        convolutions = [node for node in read_bwn(tmp_path / "m.bwn").nodes if isinstance(node, Conv)]
        latent = [p for p in open_run(folder).network(f"{name}.safetensors").parameters() if p.dim() == 4]
        assert len(latent) == len(convolutions)
        for conv, weight in zip(convolutions, latent, strict=True):
            assert np.array_equal(conv.weights, np.where(weight.detach() < 0, -1, 1).transpose(0, 2, 3, 1))
    os.unlink(folder / "last.safetensors")
    assert main(["convert", str(folder), "--checkpoint", "last", *words]) == 1


def test_converting_twice_gives_the_same_bytes(run_folder, model, tmp_path):
    assert main(["convert", str(run_folder), "-o", str(tmp_path / "again.bwn"), "--calibrate", "50"]) == 0
    assert (tmp_path / "again.bwn").read_bytes() == model.read_bytes() == encode(read_bwn(model))


def test_the_file_says_what_made_it(model):
    about = read_bwn(model).about
    assert (about["bits"], about["scales"], about["calibration_pictures"]) == (8, "error", 50)
    recipe = load_recipe("digits", ["train.epochs=2", "network.width=0.25"])
    assert about["recipe"] == "digits" and about["settings"] == recipe.changed()
    assert about["settings"]["train"] == {"batch": 32, "epochs": 2, "learning_rate": 0.05}  # no default is told


def test_verify_and_export_run_every_machine(model, tmp_path, capsys):
    report = tmp_path / "report" / "agreement.json"
    assert main(["verify", str(model), "--data", "digits", "--images", "5", "--out", str(report)]) == 0
    told = json.loads(report.read_text())
    machines = 3 + 4 * len(runtime.kernel_sets())  # of the runtime each set with 1 and 2 threads, singly and together
    assert told["equal"] and told["pictures"] == 5 and len(told["machines"]) == machines
    out = capsys.readouterr().out
    assert out.count("equal: ") == machines and "DIFFERS" not in out
    assert main(["export", str(model), "--to", "onnx", "-o", str(tmp_path / "m.onnx")]) == 0
    assert (tmp_path / "m.onnx").stat().st_size > 0


def test_info_as_a_table_and_as_json(model, capsys):
    assert main(["info", str(model)]) == 0
    assert "multiplications  0 for a picture" in capsys.readouterr().out
    assert main(["info", str(model), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["multiplications"] == 0 and told["weights"] == read_bwn(model).weights
    assert told["file_bytes"] == model.stat().st_size


def test_info_evaluate_and_predict_need_no_pytorch(model, picture):
    def run(*words):
        return subprocess.run([sys.executable, "-c", BLOCK_TORCH, *words], capture_output=True, text=True, timeout=120)

    shown = run("info", str(model))
    assert (shown.returncode, shown.stderr) == (0, "")
    measured = run("evaluate", str(model), "digits")
    assert (measured.returncode, measured.stderr) == (0, "")
    assert measured.stdout.startswith("top-1 ") and "359 pictures" in measured.stdout
    named = run("predict", str(model), str(picture), "--top", "3", "--json")
    assert (named.returncode, named.stderr) == (0, "")
    best = json.loads(named.stdout)["classes"]
    assert len(best) == 3 and best[0]["probability"] >= best[1]["probability"]
    needs = run("convert", "runs/none", "-o", "m.bwn")
    assert needs.returncode == 2
    assert needs.stderr == "bitwren: this command needs PyTorch: pip install 'bitwren[train]'\n"


def test_predict_answers_the_good_pictures_and_names_the_broken_ones(model, picture, tmp_path, capsys):
    broken = tmp_path / "broken.png"
    broken.write_bytes(picture.read_bytes()[:60])
    assert main(["predict", str(model), str(broken), str(picture)]) == 1
    out, err = capsys.readouterr()
    assert out.startswith(str(picture)) and err.startswith(f"bitwren: {broken}: ") and err.count("\n") == 1


def test_both_engines_give_the_same_answers(model, picture, capsys):
    told = []
    for words in ([], ["--threads", "1"], ["--engine", "runtime", "--threads", "3"], ["--engine", "reference"]):
        assert main(["predict", str(model), str(picture), "--top", "99", "--json", *words]) == 0
        assert main(["evaluate", str(model), "digits", *words]) == 0
        told.append(capsys.readouterr())
    assert told[0].err == "" and told.count(told[0]) == len(told)


def test_without_the_runtime_the_reference_answers_and_says_so(model, picture, capsys, tmp_path, monkeypatch):
    assert main(["predict", str(model), str(picture)]) == 0
    answer = capsys.readouterr().out
    monkeypatch.setattr("bitwren.deploy.runtime.FOLDER", tmp_path)
    runtime._library.cache_clear()
    try:
        assert main(["predict", str(model), str(picture)]) == 0
        out, err = capsys.readouterr()
        assert out == answer
        assert err.startswith(f"bitwren: the C runtime is not installed ({tmp_path}") and err.count("\n") == 1
        assert main(["predict", str(model), str(picture), "--engine", "runtime"]) == 2
        out, err = capsys.readouterr()
        assert out == "" and "install a C compiler" in err and err.count("\n") == 1
        assert main(["predict", str(model), str(picture), "--engine", "reference"]) == 0
        assert capsys.readouterr() == (answer, "")
    finally:
        runtime._library.cache_clear()


def test_run_and_model_agree(run_folder, model, picture, capsys):
    answers = []
    for target in (run_folder, model):
        assert main(["predict", str(target), str(picture)]) == 0
        answers.append(capsys.readouterr().out.split()[1])
    assert answers[0] == answers[1]


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["evaluate", "{model}"], 2, "DATA is missing: name of a data set, or a folder of pictures"),
        (["evaluate", "{model}", "digts"], 2, "unknown data set 'digts'; did you mean 'digits'?"),
        (
            ["evaluate", "{model}", "digits", "--split", "training"],
            2,
            "--split and --checkpoint belong to a run",
        ),
        (["info", "{model}", "--compare"], 2, "--set and --compare belong to a recipe"),
        (["convert", "{run}", "-o", "{tmp}/m.bwn", "--calibrate", "0"], 2, "--calibrate is 0, expected at least 1"),
        (["convert", "{run}", "-o", "{tmp}/m.bwn", "--bits", "12"], 2, "activation bits are 12, expected 4 to 9"),
        (["convert", "{tmp}", "-o", "{tmp}/m.bwn"], 1, "no run is there"),
        (["convert", "{run}", "-o", "{tmp}/none/m.bwn"], 1, "cannot be written"),
        (["import", "{tmp}/none.mat", "-o", "{tmp}/m.bwn"], 1, "cannot be read as a MATLAB file"),
        (["verify", "{model}", "--data-dir", "{tmp}"], 2, "--data-dir is given without --data"),
        (["verify", "{model}", "--images", "-1"], 2, "--images is -1"),
        (["verify", "{junk}"], 1, "junk.bwn: "),
        (["info", "{junk}"], 1, "junk.bwn: "),
        (["info", "{tmp}/none.bwn"], 1, "none.bwn: cannot be read: No such file or directory"),
        (["predict", "{tmp}/none.bwn", "x.png"], 1, "none.bwn: cannot be opened: No such file or directory"),
        (["fit", "{tmp}/none.bwn", "--flash", "1M", "--ram", "1M"], 1, "none.bwn: cannot be read: No such file or"),
        (["predict", "{junk}", "x.png"], 1, "junk.bwn: "),
        (["predict", "{junk}", "x.png", "--engine", "reference"], 1, "junk.bwn: "),
        (["predict", "{model}", "x.png", "--engine", "refrence"], 2, "unknown engine 'refrence'; did you mean 'refer"),
        (["predict", "{model}", "x.png", "--threads", "0"], 2, "--threads is 0, expected at least 1"),
        (["evaluate", "{model}", "digits", "--threads", "9999"], 2, "threads: 9999, expected 0 to 1024"),
        (["export", "{junk}", "--to", "onnx"], 1, "junk.bwn: "),
        (["export", "{model}", "--to", "onx"], 2, "unknown to 'onx'; did you mean 'onnx'?"),
    ],
)
def test_wrong_use_gives_one_line(words, status, message, model, run_folder, tmp_path, capsys):
    junk = tmp_path / "junk.bwn"
    junk.write_bytes(b"not a network")
    names = {"model": model, "run": run_folder, "tmp": tmp_path, "junk": junk}
    assert main([word.format(**names) for word in words]) == status
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("bitwren: ") and err.count("\n") == 1
    assert message in err
