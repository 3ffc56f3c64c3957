"""bitwren emulate: what it prints and writes, its exit status, and one line for whatever is missing or wrong."""

import json

import numpy as np
import pytest
from deploy.emulate.toy import NETWORK, need, sources
from network.examples import wide_resnet
from PIL import Image

from bitwren.cli import main
from bitwren.deploy.emulate import build as build_module
from bitwren.network.pack import write_bwn


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.bwn"
    write_bwn(path, wide_resnet(8, 0.25, size=8, classes=3))
    return path


def call(capsys, *words):
    capsys.readouterr()
    status = main(["emulate", *map(str, words)])
    return status, *capsys.readouterr()


def refused(capsys, status, *words):
    got, out, err = call(capsys, *words)
    assert (got, out) == (status, "") and err.startswith("bitwren: ") and err.count("\n") == 1, err
    return err[len("bitwren: ") : -1]


@pytest.mark.parametrize(("core", "optimise"), [("cortex-m4", "speed"), ("rv32ic", "memory"), ("cortex-m0", "size")])
def test_it_measures_and_certifies(capsys, tmp_path, model, core, optimise):
    need(core)
    words = (model, "--core", core, "--images", 2, "--optimise", optimise, "--certify", "--out", tmp_path / "out.json")
    status, out, err = call(capsys, *words, "--build", tmp_path / "built")
    assert (status, err) == (0, ""), out
    assert "all 6 logits equal the reference's" in out
    assert "nothing that the network can execute multiplies, divides or is a float" in out
    told = json.loads((tmp_path / "out.json").read_text())
    assert (told["core"], told["optimise"], told["pictures"], told["right"]) == (core, optimise, 2, None)
    assert told["failures"] == told["certificate"]["refused"] == []
    assert told["certificate"]["multiplications"] == {}
    assert told["stack"]["measured"] <= told["stack"]["bound"] <= told["stack"]["declared"]
    assert (tmp_path / "built" / "image.elf").exists()


def test_a_general_network_lists_its_multiplications(capsys, tmp_path):
    need("cortex-m4")
    path = tmp_path / "general.bwn"
    write_bwn(path, wide_resnet(8, 0.25, size=8, classes=3, pool="mean-real", shift_only=False))
    status, out, _ = call(capsys, path, "--core", "cortex-m4", "--images", 1, "--certify")
    assert status == 0, out
    assert "\nmultiply " in out and "certificate   nothing that the network can execute is a float;" in out


def test_accuracy_is_told_where_labels_are_known(capsys, tmp_path, model):
    need("cortex-m4")
    rng = np.random.default_rng(1)
    for name in ("class 0", "class 1", "class 2"):
        for split in ("train", "test"):
            (tmp_path / "data" / split / name).mkdir(parents=True)
            for k in range(2):
                picture = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
                picture.save(tmp_path / "data" / split / name / f"{k}.png")
    status, out, err = call(capsys, model, "--core", "cortex-m4", "--data", tmp_path / "data")
    assert (status, err) == (0, "")
    assert " right: " in out and "pictures      6, " in out


def test_a_difference_is_exit_status_1(capsys, tmp_path, monkeypatch):
    need("cortex-m4")
    path = tmp_path / "toy.bwn"
    write_bwn(path, NETWORK)
    wrong = sources(plant=("scores[0] = *(int32_t *)arena;", "scores[0] = *(int32_t *)arena * 3;"))
    monkeypatch.setattr("bitwren.deploy.generate_c.generate", lambda network, **_: wrong)
    status, out, _ = call(capsys, path, "--core", "cortex-m4", "--images", 1, "--certify")
    assert status == 1
    assert "\nFAILED        picture 0, class 0: logit " in out and "equal" not in out


def test_a_refused_certificate_is_exit_status_1(capsys, tmp_path, monkeypatch):
    need("cortex-m4")
    path = tmp_path / "toy.bwn"
    write_bwn(path, NETWORK)
    made = sources(
        plant=("*(int32_t *)arena = 0;", "*(volatile int32_t *)arena = 5; *(int32_t *)arena *= *(int32_t *)arena - 5;")
    )
    monkeypatch.setattr("bitwren.deploy.generate_c.generate", lambda network, **_: made)
    status, out, _ = call(capsys, path, "--core", "cortex-m4", "--images", 1)
    assert status == 0 and "certificate" not in out
    status, out, _ = call(capsys, path, "--core", "cortex-m4", "--images", 1, "--certify")
    assert status == 1
    assert "certificate   REFUSED" in out and "refused       multiply: mul" in out


@pytest.mark.parametrize(
    ("core", "missing", "package"),
    [
        ("cortex-m0", "arm-none-eabi-gcc", "gcc-arm-none-eabi"),
        ("cortex-m7", "qemu-system-arm", "qemu-system-arm"),
        ("rv32ic", "riscv64-unknown-elf-gcc", "gcc-riscv64-unknown-elf"),
        ("rv64", "qemu-system-riscv64", "qemu-system-misc"),
    ],
)
def test_what_is_missing_is_named_with_its_package(capsys, model, monkeypatch, core, missing, package):
    need(core)
    import shutil

    there = shutil.which
    monkeypatch.setattr(
        "bitwren.deploy.emulate.tools.shutil.which", lambda name: None if name == missing else there(name)
    )
    line = refused(capsys, 1, model, "--core", core)
    assert line == f"{missing} is not installed; on Debian or Ubuntu: apt install {package}"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("--core", "cortex-m5"), "unknown core 'cortex-m5'; did you mean 'cortex-m"),
        ((), "the following arguments are required: --core"),
        (("--core", "rv64", "--images", "0"), "--images is 0 and --seed 0, expected at least 1 and at least 0"),
        (("--core", "rv64", "--seed", "-1"), "--images is 20 and --seed -1, expected at least 1 and at least 0"),
        (("--core", "rv64", "--data-dir", "x"), "--data-dir is given without --data"),
        (("--core", "rv64", "--flags", "'"), '--flags is "\'": No closing quotation'),
    ],
)
def test_wrong_usage(capsys, model, words, line):
    assert refused(capsys, 2, model, *words).startswith(line)


def test_a_file_that_is_no_network(capsys, tmp_path):
    (tmp_path / "x.bwn").write_bytes(b"nothing")
    assert "x.bwn" in refused(capsys, 1, tmp_path / "x.bwn", "--core", "cortex-m4")


def test_flags_reach_the_compiler(capsys, model):
    need("cortex-m4")
    line = refused(capsys, 1, model, "--core", "cortex-m4", "--images", 1, "--flags=-fno-such-thing")
    assert line.startswith("arm-none-eabi-gcc failed: ") and "-fno-such-thing" in line
    assert "-fno-such-thing" not in build_module.FLAGS
