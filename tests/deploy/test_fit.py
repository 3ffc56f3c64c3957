"""What `bitwren fit` tells is what the generator makes; its estimates are near what emulated cores measure."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from network.examples import network, requantise, wide_resnet
from network.strategies import networks_and_pictures

from bitwren.cli import main
from bitwren.deploy import fit as module
from bitwren.deploy.calibration import CALIBRATION, CODE_OFF, INSTRUCTIONS_OFF
from bitwren.deploy.emulate.boot import boot
from bitwren.deploy.emulate.build import build
from bitwren.deploy.emulate.cores import CORES
from bitwren.deploy.fit import OBJECTIVES, Budget, best_needs, largest, needs
from bitwren.deploy.generate_c import generate
from bitwren.network.graph import PIXELS, Sum
from bitwren.network.pack import write_bwn
from bitwren.recipe import load_recipe
from bitwren.report.fit import describe_needs, format_fit

RESULTS = Path(__file__).resolve().parents[2] / "results" / "fit.json"
NET = wide_resnet(8, 0.5, size=16)
PLENTY = Budget("cortex-m4", 1 << 20, 1 << 20)


def constant(files, name):
    """Return a number that network.h defines."""
    return int(re.search(rf"NETWORK_{name} (\d+)u", files["network.h"].decode())[1])


@pytest.mark.parametrize("optimise", OBJECTIVES)
@settings(max_examples=20)
@given(networks_and_pictures())
def test_arena_and_constants_are_the_generated_header_s(optimise, given):
    files, told = generate(given[0], optimise=optimise), needs(given[0], optimise)
    assert told.arena == constant(files, "ARENA_BYTES") and told.constants == constant(files, "CONSTANT_BYTES")
    assert told.stack == 512 and told.macs == constant(files, "MACS")
    assert told.multiplications == constant(files, "MULTIPLICATIONS")
    assert set(told.code) == set(told.instructions) == set(CALIBRATION)


def test_the_calibration_is_that_of_the_evidence():
    held = json.loads(RESULTS.read_text(encoding="utf-8"))
    assert set(held["estimates"]) == set(CALIBRATION)
    for core, calibration in CALIBRATION.items():
        estimate = held["estimates"][core]
        assert list(calibration.instructions) == estimate["instructions"]
        assert list(calibration.code) == estimate["code"]
        for what, most in (("instructions", INSTRUCTIONS_OFF), ("code", CODE_OFF)):
            errors = estimate["errors"][what]["shifts only"]
            assert -most < errors["least"] < errors["greatest"] < most


@pytest.mark.parametrize("core", CALIBRATION)
def test_estimates_are_near_an_emulated_core(core, tmp_path):
    for tool in (f"{CORES[core].tools}gcc", *(machine.emulator for machine in CORES[core].machines)):
        if shutil.which(tool) is None:
            pytest.skip(f"needs {tool}")
    for optimise in OBJECTIVES:
        told = needs(NET, optimise)
        image = build(CORES[core], generate(NET, optimise=optimise), tmp_path / optimise)
        pixels = np.random.default_rng(0).integers(0, 256, (1, 3 * 16 * 16), dtype=np.uint8)
        measured = boot(image, pixels, 10).instructions[0]
        assert told.instructions[core] == pytest.approx(measured, rel=INSTRUCTIONS_OFF)
        code = image.span("at_network_start", "at_network_code_end")
        assert told.code[core] == pytest.approx(code, rel=CODE_OFF)
        constants = image.span("at_network_constants", "at_network_end")
        assert told.constants == pytest.approx(constants, abs=256)


def test_fits_to_the_byte():
    told = needs(NET, "speed")
    budget = Budget("cortex-m0", told.flash("cortex-m0"), told.ram)
    assert told.fit(budget)
    assert not told.fit(dataclasses.replace(budget, flash=budget.flash - 1))
    assert not told.fit(dataclasses.replace(budget, ram=budget.ram - 1))
    assert told.weight_bytes == NET.weights / 8


@pytest.mark.parametrize(("share", "close"), [(-1.1, False), (-0.9, True), (0, True), (0.9, True), (1.1, False)])
def test_what_the_estimate_of_code_cannot_decide_is_said(share, close):
    told = needs(NET, "speed")
    budget = Budget("cortex-m3", round(told.flash("cortex-m3") + share * CODE_OFF * told.code["cortex-m3"]), told.ram)
    assert told.close(budget) == close
    text = format_fit({"network": "n", **describe_needs(told, budget, 80.0)})
    assert ("nearer the limit than the estimate of code can tell" in text) == close
    assert not told.close(dataclasses.replace(budget, ram=told.ram - 1))  # it does not fit, whatever the code


def test_the_quicker_objective_that_fits_is_chosen():
    quick, small = needs(NET, "speed"), needs(NET, "memory")
    assert small.arena < quick.arena and small.instructions["cortex-m4"] > quick.instructions["cortex-m4"]
    assert best_needs(NET, PLENTY) == quick
    assert best_needs(NET, dataclasses.replace(PLENTY, ram=quick.ram - 1)) == small
    assert best_needs(NET, dataclasses.replace(PLENTY, ram=small.ram - 1)) == small
    assert best_needs(NET, dataclasses.replace(PLENTY, ram=quick.ram - 1), ("speed",)) == quick
    less = needs(NET, "size")
    assert less.ram == quick.ram and less.flash("cortex-m4") < quick.flash("cortex-m4")
    assert quick.instructions["cortex-m4"] < less.instructions["cortex-m4"] < small.instructions["cortex-m4"]
    assert best_needs(NET, dataclasses.replace(PLENTY, flash=quick.flash("cortex-m4") - 1)) == less


@given(st.integers(0, 300))
def test_the_last_that_gives_something(most):
    tried = []

    def trial(k):
        tried.append(k)
        return f"needs of {k}" if k <= most else None

    assert module._last(trial) == (most, f"needs of {most}" if most else None)
    assert len(tried) <= 2 * most.bit_length() + 1 and len(set(tried)) == len(tried)


# ------------------------------------------------------------------ with PyTorch


@pytest.fixture
def digits():
    pytest.importorskip("torch")
    return load_recipe("digits"), (1, 10, (8, 8))


def fits(recipe, pictures, budget, **changes):
    from bitwren.network.untrained import untrained

    changed = dataclasses.replace(recipe, network=dataclasses.replace(recipe.network, **changes))
    return best_needs(untrained(changed, *pictures), budget).fit(budget)


def test_the_largest_fits_and_the_next_does_not(digits):
    budget, tried = Budget("cortex-m0", 16_000, 6_000), []
    width, depth = largest(*digits, budget, progress=tried.append)
    assert (width.key, depth.key) == ("width", "depth") and tried[0] == "width 0.0625"
    assert width.needs.fit(budget) and fits(*digits, budget, width=width.value)
    assert not fits(*digits, budget, width=width.value + 1 / 16)
    assert depth.needs is None and depth.value is None  # not even 8 at the recipe's own width
    (_, depth) = largest(*digits, dataclasses.replace(budget, flash=32_000, ram=20_000))
    assert depth.value % 6 == 2 and depth.needs.fit(dataclasses.replace(budget, flash=32_000, ram=20_000))


def test_nothing_is_planned_where_the_weights_alone_do_not_fit(digits, monkeypatch):
    monkeypatch.setattr(module, "plan", None)
    assert [one.value for one in largest(*digits, Budget("cortex-m4", 10, 1 << 30))] == [None, None]


def test_a_family_of_one_depth():
    pytest.importorskip("torch")
    recipe = load_recipe("digits", ["network.family=resnet18", "network.depth=18"])
    assert [one.key for one in largest(recipe, (1, 10, (8, 8)), Budget("cortex-m4", 10, 10))] == ["width"]


def test_untrained_networks_are_the_recipe_s(digits):
    from bitwren.network.pack import encode
    from bitwren.network.untrained import untrained

    recipe, pictures = digits
    net = untrained(recipe, *pictures)
    assert (net.channels, net.height, net.width, len(net.classes)) == (1, 8, 8, 10)
    assert net.total_multiplications == 0 and net.about["recipe"] == "digits"
    assert encode(net) == encode(untrained(recipe, *pictures))


# ------------------------------------------------------------------ the command


def call(capsys, *words):
    """Return status, stdout and stderr of bitwren fit."""
    status = main(["fit", *map(str, words)])
    return status, *capsys.readouterr()


def told_as_json(capsys, *words):
    """Return status and what bitwren fit --json tells; a failure shows what it said instead, "interrupted" say."""
    status, out, err = call(capsys, *words, "--json")
    assert err == ""
    return status, json.loads(out)


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.bwn"
    write_bwn(path, network((1, 8, 8), requantise("r", PIXELS), Sum("s", "r")))
    return path


def test_command_on_a_model(model, capsys):
    status, out, err = call(capsys, model, "--flash", "256K", "--ram", "1M", "--mhz", "64", "--core", "cortex-m0")
    assert (status, err) == (0, "")
    assert "model.bwn: 0 weights, 1 x 8 x 8 pixels, 1 classes" in out and "fits          yes, on cortex-m0" in out
    assert "of 262,144 bytes (256.0 KiB)" in out and "of 1,048,576 bytes (1.00 MiB)" in out and "s at 64 MHz" in out
    assert all(f"\n{core} " in out for core in CALIBRATION)
    assert "largest" not in out  # nothing tells what family it is of
    assert max(map(len, out.splitlines())) <= 120


def test_command_as_json(model, capsys):
    status, told = told_as_json(capsys, model, "--flash", "262144", "--ram", "64k")
    assert status == 0 and told["fits"] and told["optimise"] == "speed"
    assert told["flash"]["of"] == 262144 and told["ram"]["of"] == 65536
    assert told["flash"]["bytes"] == told["flash"]["constants"] + told["flash"]["code_estimated"]
    for each in told["estimated"].values():
        assert each["seconds"] == each["instructions"] / 80e6


def test_command_where_it_does_not_fit(model, capsys):
    status, out, err = call(capsys, model, "--flash", "100", "--ram", "1M")
    assert (status, err) == (1, "") and "fits          NO, on cortex-m4" in out


def test_command_on_a_recipe(capsys):
    pytest.importorskip("torch")
    words = ("--set", "network.width=0.25", "--flash", "13K", "--ram", "6K")
    status, out, err = call(capsys, "digits", *words)
    assert (status, err) == (0, "") and "digits, random weights: 4," in out
    assert re.search(r"^largest width +0\.\d+: [\d,]+ bytes of flash", out, re.MULTILINE)
    assert re.search(r"^largest depth +\d+: ", out, re.MULTILINE)
    status, told = told_as_json(capsys, "digits", *words, "--no-search")
    assert status == 0 and "largest" not in told


def test_command_on_a_converted_model_searches_its_family(digits, tmp_path, capsys):
    from bitwren.network.untrained import untrained

    recipe, pictures = load_recipe("digits", ["network.width=0.25"]), digits[1]
    write_bwn(tmp_path / "digits.bwn", untrained(recipe, *pictures))
    told = [
        told_as_json(capsys, target, *more, "--flash", "13K", "--ram", "6K")[1]["largest"]
        for target, more in ((tmp_path / "digits.bwn", ()), ("digits", ("--set", "network.width=0.25")))
    ]
    assert told[0] == told[1] and told[0]["width"]["value"] >= 0.25


@pytest.mark.parametrize("about", [{"recipe": "x", "settings": {"network": {"depth": "deep"}}}, {"settings": 3}, {}])
def test_a_model_that_tells_nothing_of_its_family(about, tmp_path, capsys):
    write_bwn(tmp_path / "m.bwn", network((1, 8, 8), requantise("r", PIXELS), Sum("s", "r"), about=about))
    status, out, err = call(capsys, tmp_path / "m.bwn", "--flash", "1M", "--ram", "1M")
    assert (status, err) == (0, "") and "largest" not in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--flash", "256Q"], "argument --flash: '256Q' is no size, expected bytes, or a number with K or M: 256K"),
        (["--flash", "0"], "'0' is no size"),
        (["--flash", "-1K"], "expected one argument"),
        (["--flash", "1.5K"], "'1.5K' is no size"),
        (["--ram", ""], "'' is no size"),
        (["--ram", "٣K"], "is no size"),
        (["--mhz", "0"], "--mhz is 0, expected a positive number"),
        (["--mhz", "nan"], "--mhz is nan, expected a positive number"),
        (["--core", "cortex-m9"], "unknown core 'cortex-m9'; did you mean 'cortex-m"),
        (["--set", "network.width=2"], "--set belongs to a recipe; a .bwn file stays as it is"),
    ],
)
def test_command_refuses(model, capsys, words, message):
    status, out, err = call(capsys, model, "--flash", "1M", "--ram", "1M", *words)
    assert (status, out) == (2, "") and message in err and err.count("\n") == 1


def test_command_refuses_what_is_no_network(tmp_path, capsys):
    status, _, err = call(capsys, "cifar10-20-l", "--flash", "1M", "--ram", "1M")
    assert status == 2 and err == "bitwren: unknown recipe 'cifar10-20-l'; did you mean 'cifar10-20-1'?\n"
    (tmp_path / "broken.bwn").write_bytes(b"no network")
    status, _, err = call(capsys, tmp_path / "broken.bwn", "--flash", "1M", "--ram", "1M")
    assert status == 1 and "broken.bwn" in err and err.count("\n") == 1
    status, _, err = call(capsys, "digits", "--ram", "1M")
    assert status == 2 and "--flash" in err
