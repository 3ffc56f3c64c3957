"""The benchmark's own arithmetic and behaviour; no time is asserted."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from network.examples import wide_resnet

from bitwren.cli import main
from bitwren.deploy.float_form import FloatConv, float_form
from bitwren.errors import UsageError
from bitwren.network.pack import write_bwn
from bitwren.report import engines
from bitwren.report.benchmark import parse_counts, spread
from bitwren.report.benchmark_plot import plot_latency
from bitwren.report.benchmark_table import format_benchmark
from bitwren.report.engines import Engine, EngineError, Worker, missing_packages, parse_peers
from bitwren.report.peers.calibration import int8_scale
from bitwren.report.peers.ncnn_files import int8_weights, ncnn_files
from bitwren.report.peers.processor import CPUINFO, HELD_TO, has_vnni, processor
from bitwren.report.worker import time_runs


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("bench") / "small.bwn"
    write_bwn(path, wide_resnet(depth=8, width=0.25, size=8))
    return path


def bench(capsys, *words):
    status = main(["bench", *map(str, words)])
    return status, *capsys.readouterr()


QUICK = ("--rounds", "1", "--seconds", "0.001", "--batches", "1,2", "--threads", "1")


@pytest.fixture
def runtime():
    from bitwren.deploy.runtime import RuntimeMissing, kernel_sets

    try:
        kernel_sets()
    except RuntimeMissing as error:
        pytest.skip(str(error))


def test_spread_of_known_numbers():
    assert spread([5, 1, 2, 4, 3]) == {"median_s": 3, "quartiles_s": [2, 4], "runs": 5}
    assert spread([1.0]) == {"median_s": 1, "quartiles_s": [1, 1], "runs": 1}


def test_number_of_runs():
    ran = []
    assert len(time_runs(lambda: ran.append(0), 60, 7)) == 7
    assert len(ran) == 8  # the first is not counted
    assert len(time_runs(lambda: None, 0, 7)) == 1


def test_counts():
    assert parse_counts("--threads", "1, 2,2") == (1, 2)
    for wrong in ("", "0", "1,", "x", "-1", "1025", "1.5", "²"):
        with pytest.raises(UsageError, match="expected numbers of 1 to 1024"):
            parse_counts("--threads", wrong)


def test_peers():
    assert parse_peers(None) == []
    assert parse_peers("ncnn, openvino,ncnn") == ["ncnn", "openvino"]
    with pytest.raises(UsageError, match="unknown engine 'openvin'; did you mean 'openvino'"):
        parse_peers("openvin")


def test_int8_scale_of_known_numbers():
    assert int8_scale(np.zeros(4)) == 1
    assert int8_scale(np.array([127.0, -127, 1, 64])) == 1  # all whole numbers: no error
    rare = np.concatenate([np.random.default_rng(0).normal(size=10000), [20.0]])
    assert int8_scale(rare) > 127 / 20  # one far value is cut off, all others are rounded finer


def test_int8_weights():
    def step(weights, stride=1):
        return FloatConv("c", "x", np.asarray(weights, np.float32), np.zeros(len(weights)), stride, (1, 1, 1, 1))

    signs = np.where(np.arange(27).reshape(1, 3, 3, 3) % 2, 0.25, -0.25)
    integers, scales = int8_weights(step(signs))
    assert (integers == np.sign(signs)).all() and scales.tolist() == [4]
    others = np.linspace(-1, 1, 27).reshape(1, 3, 3, 3)
    assert np.abs(int8_weights(step(others))[0]).max() == 31
    assert np.abs(int8_weights(step(others, 2))[0]).max() == 127


def test_ncnn_layers_and_blobs_are_counted_right():
    text, _, _ = ncnn_files(float_form(wide_resnet(depth=8, width=0.25, size=8)))
    magic, counts, *layers = text.splitlines()
    made = [blob for line in layers for blob in line.split()[4 + int(line.split()[2]):][: int(line.split()[3])]]
    read = [blob for line in layers for blob in line.split()[4:][: int(line.split()[2])]]
    assert magic == "7767517"
    assert counts == f"{len(layers)} {len(made)}"
    assert len(set(made)) == len(made) and len(set(read)) == len(read)
    assert set(read) < set(made)


def test_ncnn_gives_the_float_form(tmp_path, seed):
    pytest.importorskip("ncnn")
    onnxruntime = pytest.importorskip("onnxruntime")
    from bitwren.deploy.export_float import float_onnx
    from bitwren.report.peers import ncnn

    for pool, shift_only in (("binomial", True), ("mean-real", False), ("mean", True), ("max", False)):
        form = float_form(wide_resnet(depth=8, width=0.5, size=16, pool=pool, shift_only=shift_only, seed=seed))
        pixels = np.random.default_rng(seed).integers(0, 256, (20, *form.shape), dtype=np.uint8)
        expected = onnxruntime.InferenceSession(float_onnx(form).SerializeToString())
        expected = expected.run(None, {"pixels": pixels.astype(np.float32)})[0]
        for kind, least in (("fp32", 0.99999), ("int8", 0.95)):
            ncnn.prepare(form, kind, pixels, tmp_path)
            got = ncnn.load(kind, tmp_path, 1, 1)[0](pixels)
            likeness = (got * expected).sum() / np.linalg.norm(got) / np.linalg.norm(expected)
            assert likeness > least, (pool, kind)


def test_a_run_without_peers(capsys, runtime, model, tmp_path):
    out, plot = tmp_path / "f" / "figures.json", tmp_path / "f" / "bars.svg"
    status, table, told = bench(capsys, model, *QUICK, "--layers", "--out", out, "--plot", plot)
    assert status == 0
    assert "lookups" in table and "small.bwn" in table
    assert all(line.startswith("bitwren: ") for line in told.splitlines())
    figures = json.loads(out.read_text())
    assert figures["model"]["bytes"] == model.stat().st_size
    assert {"command", "commit", "processor", "versions"} <= figures["made_by"].keys()
    ours = figures["engines"][0]
    assert (ours["engine"], ours["model_bytes"]) == ("bitwren", model.stat().st_size)
    assert [row["threads"] for row in ours["latency"]] == [1]
    assert [row["batch"] for row in ours["throughput"]] == [1, 2]
    assert sum(step["macs"] for step in figures["steps"]) > 0
    assert plot.read_text().lstrip().startswith("<?xml")
    for ending in (".png", ".svg"):
        plot_latency(figures, tmp_path / f"again{ending}")
    format_benchmark(figures)


def test_missing_peers_are_named_and_skipped(capsys, runtime, model, monkeypatch, tmp_path):
    found = engines.importlib.util.find_spec
    monkeypatch.setattr(
        engines.importlib.util, "find_spec", lambda name: None if name in ("nncf", "ncnn") else found(name)
    )
    assert missing_packages("ncnn") == ["ncnn"]
    out = tmp_path / "figures.json"
    status, table, _ = bench(capsys, model, *QUICK, "--against", "ncnn", "--out", out)
    assert status == 0
    assert "ncnn: not installed: pip install ncnn" in table
    assert [row["engine"] for row in json.loads(out.read_text())["skipped"]] == ["ncnn"]


def test_onnxruntime_beside_ours(capsys, runtime, model, tmp_path):
    pytest.importorskip("onnxruntime")
    out = tmp_path / "figures.json"
    status, _, _ = bench(capsys, model, *QUICK, "--against", "onnxruntime", "--files", tmp_path / "kept", "--out", out)
    assert status == 0
    figures = json.loads(out.read_text())
    peers = {row["kind"]: row for row in figures["engines"] if row["engine"] == "onnxruntime"}
    assert {"fp32", "int8"} <= peers.keys(), figures["skipped"]
    assert peers["int8"]["prepared"]["per_channel"] is True
    assert "onnxruntime" in figures["made_by"]["versions"]


def test_an_engine_that_cannot_run_is_one_line(model, tmp_path):
    job = {"threads": 1, "batch": 1, "folder": str(tmp_path), "model": str(model), "pixels": str(tmp_path / "p.npy")}
    np.save(tmp_path / "p.npy", np.zeros((1, 3, 8, 8), np.uint8))
    with pytest.raises(EngineError, match=r"^nothing x: "):
        Worker(Engine("nothing", "x"), job)


@pytest.mark.parametrize(
    ("words", "status", "line"),
    [
        (["nothing.bwn"], 1, "nothing.bwn: cannot be read"),
        (["MODEL", "--against", "tvm"], 2, "unknown engine 'tvm'"),
        (["MODEL", "--threads", "0"], 2, "--threads is '0', expected"),
        (["MODEL", "--batches", "1,x"], 2, "--batches is '1,x', expected"),
        (["MODEL", "--rounds", "0"], 2, "--rounds is 0, expected 1 to 1000"),
        (["MODEL", "--seconds", "nan"], 2, "--seconds is nan, expected more than 0"),
        (["MODEL", "--data-dir", "x"], 2, "--data-dir is given without --data"),
        (["MODEL", "--plot", "x.xyz"], 2, "x.xyz: the name ends in '.xyz', expected one of"),
    ],
)
def test_wrong_arguments(capsys, model, monkeypatch, tmp_path, words, status, line):
    monkeypatch.chdir(tmp_path)
    got, out, err = bench(capsys, *(model if word == "MODEL" else word for word in words))
    assert (got, out) == (status, "")
    assert err.startswith("bitwren: ") and line in err and err.count("\n") == 1


HIDING = Path(__file__).resolve().parents[2] / "evidence" / "avx2_only.c"


def test_what_is_hidden_is_not_told(monkeypatch):
    whole = processor()
    monkeypatch.setenv(HELD_TO, "avx2 fma")
    assert processor() == whole | {"held": True, "flags": [flag for flag in whole["flags"] if flag in ("avx2", "fma")]}
    assert not has_vnni()


def test_a_process_is_held_to_avx2(tmp_path, runtime):
    if "cpuid_fault" not in CPUINFO.read_text().split() or shutil.which("cc") is None:
        pytest.skip("this processor cannot fault at CPUID, or there is no C compiler")
    library = tmp_path / "avx2_only.so"
    subprocess.run(["cc", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-O2", HIDING, "-o", library], check=True)
    ask = [sys.executable, "-c", "from bitwren.deploy.runtime import kernel_sets; print(*kernel_sets())"]
    seen = [
        subprocess.run(ask, env=os.environ | hidden, capture_output=True, text=True, check=True).stdout.split()
        for hidden in ({}, {"LD_PRELOAD": str(library)})
    ]
    assert seen[1] == [name for name in seen[0] if name != "avx512"]
    ended = subprocess.run(
        [sys.executable, "-c", "import ctypes; ctypes.string_at(8)"], env=os.environ | {"LD_PRELOAD": str(library)}
    )
    assert ended.returncode == -signal.SIGSEGV  # its own faults are not answered
