"""A planted difference is found, and named: node, picture, channel, row, column, both values."""

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from network.examples import network, pictures, requantise, wide_resnet
from network.strategies import networks_and_pictures

from bitwren.cli import main
from bitwren.deploy import verify as module
from bitwren.deploy.generate_c import host
from bitwren.deploy.generate_c.host import compiled
from bitwren.deploy.runtime import kernel_sets
from bitwren.deploy.verify import (
    ENGINES,
    MACHINES,
    Difference,
    MachineReport,
    format_verification,
    made_up_pictures,
    verify,
)
from bitwren.errors import ModelError, UsageError
from bitwren.network import reference
from bitwren.network.graph import PIXELS, Sum
from bitwren.network.pack import write_bwn

WAYS = [
    f"C {kernels}, {threads}, {how}"
    for kernels in kernel_sets()
    for threads in ("1 thread", "2 threads")
    for how in ("singly", "together")
] + ["generated C"]
GENERATED_C = ENGINES["generated C"]
NET = wide_resnet(8, 0.25, size=8)
COUNT = 4 + 3 + 2 * module.RANDOM  # extreme and random pictures for three channels


def planted(*changes):
    """Return a machine like the reference, but for changes: (node, picture of all, channel, row, column, added)."""

    def prepare(net):
        done = 0

        def run(pixels):
            nonlocal done
            values = {name: array.copy() for name, array in reference.run_all(net, pixels).items() if name != PIXELS}
            for node, picture, *place, added in changes:
                if done <= picture < done + len(pixels):
                    values[node][picture - done, *place] += added
            done += len(pixels)
            return values

        return run

    return prepare


@pytest.fixture
def machines(monkeypatch):
    """Replace the machines by those of a test, and the engines by none."""
    monkeypatch.setattr(module, "ENGINES", {})
    return lambda **those: monkeypatch.setattr(module, "MACHINES", those)


@settings(max_examples=15)
@given(networks_and_pictures())
def test_all_machines_agree(given):
    verification = verify(*given, seed=3)
    assert verification.equal
    assert [(r.machine, r.skipped) for r in verification.machines] == [(name, None) for name in (*MACHINES, *WAYS)]
    for report in verification.machines:
        wanted = given[0].nodes if report.machine in MACHINES else given[0].nodes[-1:]
        assert report.tensors == tuple(node.name for node in wanted)


@pytest.mark.parametrize("at_once", [1, 10**5, 10**9])
def test_a_planted_difference_is_named(machines, monkeypatch, at_once):
    monkeypatch.setattr(module, "VALUES_AT_ONCE", at_once)
    pixels = pictures(NET, 5, 1)
    machines(same=planted(), other=planted(("0.0.act1", 3, 2, 7, 1, -1)))
    verification = verify(NET, pixels)
    assert not verification.equal
    same, other = verification.machines
    assert same.difference is None
    expected = int(reference.run_all(NET, pixels)["0.0.act1"][3, 2, 7, 1])
    assert other.difference == Difference("0.0.act1", "picture 3", 2, 7, 1, expected, expected - 1)
    place = "DIFFERS first at 0.0.act1, picture 3, channel 2, row 7, column 1"
    assert f"other         {place}: {expected - 1}, expected {expected}" in format_verification(verification)


@pytest.mark.parametrize("at_once", [1, 10**9])
def test_the_first_node_counts_then_the_first_picture(machines, monkeypatch, at_once):
    monkeypatch.setattr(module, "VALUES_AT_ONCE", at_once)
    stem = [(4, 1, 2, 3), (2, 3, 7, 7), (2, 3, 7, 6)]  # picture, channel, row, column
    machines(other=planted(("scores", 0, 0, 0, 0, 1), *(("stem", *place, 1) for place in stem)))
    found = verify(NET, pictures(NET, 5, 1)).machines[0].difference
    assert (found.node, found.picture, found.channel, found.row, found.column) == ("stem", "picture 2", 3, 7, 6)


@pytest.mark.parametrize("at_once", [1, 10**9])
def test_a_difference_of_an_engine(machines, monkeypatch, at_once):
    def engine(net, pixels):
        logits = reference.run(net, pixels)
        other = logits.copy()
        other[5 + 1, 3] -= 1
        return {"one way": logits, "another way": other}

    def missing(net, pixels):
        raise UsageError("no compiler")

    machines()
    monkeypatch.setattr(module, "ENGINES", {"gone": missing, "C": engine})
    monkeypatch.setattr(module, "VALUES_AT_ONCE", at_once)
    verification = verify(NET, pictures(NET, 5, 1))
    assert [r.machine for r in verification.machines] == ["one way", "another way", "gone"]
    right, wrong, gone = verification.machines
    assert right.tensors == ("scores",) and right.difference is None and gone.skipped == "no compiler"
    assert (wrong.difference.picture, wrong.difference.channel) == ("all 255", 3)
    assert wrong.difference.got == wrong.difference.expected - 1 and not verification.equal


def test_a_difference_of_the_generated_c(machines, monkeypatch):
    def faulty(net):
        def run(pixels):
            logits = right(pixels)
            logits[5 + 3, 7] += 1
            return logits

        right = compiled(net)
        return run

    machines()
    monkeypatch.setattr(module, "ENGINES", {"generated C": GENERATED_C})
    monkeypatch.setattr(module, "compiled", faulty)
    pixels = pictures(NET, 5, 1)
    (report,) = verify(NET, pixels).machines
    everything = np.concatenate([pixels, made_up_pictures(pixels.shape[1:], 0)[0]])
    expected = int(reference.run(NET, everything)[5 + 3, 7])
    assert report.difference == Difference("scores", "chessboard, inverted", 7, 0, 0, expected, expected + 1)
    monkeypatch.setattr(module, "compiled", compiled)
    assert verify(NET, pixels).machines == (MachineReport("generated C", None, ("scores",), None),)


def test_generated_c_without_a_compiler(machines, monkeypatch, tmp_path):
    machines()
    monkeypatch.setattr(module, "ENGINES", {"generated C": GENERATED_C})
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    (report,) = verify(NET).machines
    assert report.skipped == "no C compiler found: install gcc or clang, or set CC"
    monkeypatch.setenv("CC", "no-such-compiler -O1")
    (report,) = verify(NET).machines
    assert report.skipped == "the C compiler no-such-compiler cannot be run: No such file or directory"


def test_a_network_that_the_generator_refuses(machines, monkeypatch):
    def no_plan(net, optimise):
        raise ModelError("no plan: it is too large")

    machines()
    monkeypatch.setattr(module, "ENGINES", {"generated C": GENERATED_C})
    monkeypatch.setattr(host, "plan", no_plan)
    (report,) = verify(NET).machines
    assert report.skipped == "no C can be generated for this network: no plan: it is too large"


def test_a_difference_in_a_made_up_picture(machines):
    machines(other=planted(("stem", 5 + 1, 0, 0, 0, 1)))
    assert verify(NET, pictures(NET, 5, 1)).machines[0].difference.picture == "all 255"


def test_only_the_logits_are_needed(machines):
    machines(short=lambda net: lambda pixels: {"scores": reference.run_all(net, pixels)["scores"]})
    verification = verify(NET)
    assert verification.equal and verification.machines[0].tensors == ("scores",)
    assert format_verification(verification).endswith("short         equal: 1 tensor, every value")


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (lambda v: {}, "other gives no 'scores', the logits"),
        (lambda v: {**v, "more": v["scores"]}, "other gives a tensor 'more', which the network has not"),
        (lambda v: {**v, "scores": v["scores"][:, :9]}, r"scores has shape \(.*, 9, 1, 1\), expected \(.*, 10, 1, 1\)"),
    ],
)
def test_a_machine_with_other_tensors(machines, tensors, message):
    machines(other=lambda net: lambda pixels: tensors(reference.run_all(net, pixels)))
    with pytest.raises(ModelError, match=message):
        verify(NET)


def test_a_machine_that_is_not_there_is_skipped(machines):
    def missing(net):
        raise UsageError("not installed: pip install it")

    machines(missing=missing, same=planted())
    verification = verify(NET, seed=9)
    assert verification.equal
    assert [r.skipped for r in verification.machines] == ["not installed: pip install it", None]
    assert format_verification(verification) == (
        f"reference     NumPy, on 0 pictures and {COUNT} extreme and random ones (seed 9)\n"
        "missing       skipped: not installed: pip install it\n"
        f"same          equal: {len(NET.nodes)} tensors, every value"
    )


@pytest.mark.parametrize(
    ("package", "machine", "install"),
    [("onnx", "ONNX Runtime", "onnx"), ("onnxruntime", "ONNX Runtime", "onnx"), ("torch", "PyTorch", "train")],
)
def test_packages_that_are_not_installed(monkeypatch, package, machine, install):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, "bitwren.network.simulate", raising=False)
    with pytest.raises(UsageError, match=rf"pip install 'bitwren\[{install}\]'$"):
        MACHINES[machine](NET)


def test_made_up_pictures():
    pixels, names = made_up_pictures((2, 3, 5), 7)
    assert pixels.dtype == np.uint8 and pixels.shape == (len(names), 2, 3, 5) and len(set(names)) == len(names)
    assert pixels[0].max() == 0 and pixels[1].min() == 255
    assert pixels[2, 0].tolist()[0] == [0, 255, 0, 255, 0] and np.array_equal(255 - pixels[2], pixels[3])
    assert pixels[4, 0].min() == 255 and pixels[4, 1].max() == 0
    assert np.array_equal(pixels, made_up_pictures((2, 3, 5), 7)[0])
    assert not np.array_equal(pixels, made_up_pictures((2, 3, 5), 8)[0])
    assert set(np.unique(pixels[-1])) <= {0, 255}


def test_progress():
    seen = []
    verify(network((1, 1, 1), requantise("r", PIXELS)), progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (4 + 2 * module.RANDOM,) * 2


def test_pictures_of_another_size():
    with pytest.raises(ModelError, match=r"expected uint8 \(N, 3, 8, 8\)"):
        verify(NET, np.zeros((1, 3, 8, 9), np.uint8))


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.bwn"
    write_bwn(path, NET)
    return path


def test_command_verify(model, capsys):
    assert main(["verify", str(model), "--seed", "4"]) == 0
    out = capsys.readouterr().out
    assert out.count(f"equal: {len(NET.nodes)} tensors, every value") == len(MACHINES)
    told = [line.split("  ") for line in out.splitlines()]
    assert [(words[0], words[-1].strip()) for words in told[-len(WAYS) :]] == [
        (way, "equal: 1 tensor, every value") for way in WAYS
    ]
    assert f"on 0 pictures and {COUNT} extreme and random ones (seed 4)" in out


def test_command_verify_with_pictures(tmp_path, capsys):
    path = tmp_path / "grey.bwn"
    write_bwn(path, network((1, 8, 8), requantise("r", PIXELS), Sum("s", "r")))
    assert main(["verify", str(path), "--data", "digits", "--images", "7"]) == 0
    assert "on 7 pictures and" in capsys.readouterr().out


def test_command_verify_fails_where_a_machine_differs(model, machines, capsys):
    machines(other=planted(("conv1", 0, 0, 0, 0, 1)))
    assert main(["verify", str(model)]) == 1
    assert "other         DIFFERS first at conv1, all 0, channel 0, row 0, column 0" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--images", "-1"], "--images is -1 and --seed 0, expected at least 0 each"),
        (["--seed", "-1"], "--seed -1, expected at least 0"),
        (["--data-dir", "."], "--data-dir is given without --data"),
        (["--data", "digits"], "data set 'digits' with channels 3, expected 1"),
    ],
)
def test_command_verify_refuses(model, capsys, words, message):
    assert main(["verify", str(model), *words]) == 2
    assert message in capsys.readouterr().err


def test_command_export(model, capsys):
    assert main(["export", str(model), "--to", "onnx"]) == 0
    size = model.with_suffix(".onnx").stat().st_size
    out = capsys.readouterr().out
    assert f"{NET.weights:,} in {size:,} bytes" in out and f"saved      {model.with_suffix('.onnx')}" in out
    assert main(["export", str(model), "--to", "onnx", "-o", str(model.parent / "other.onnx")]) == 0
    assert (model.parent / "other.onnx").read_bytes() == model.with_suffix(".onnx").read_bytes()


def test_command_export_refuses_another_target(model, capsys):
    assert main(["export", str(model), "--to", "onx"]) == 2
    assert "did you mean 'onnx'?" in capsys.readouterr().err
