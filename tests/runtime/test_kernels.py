"""Every kernel set, every way of running, against the reference: all logits, and every value of every plane.

BITWREN_KERNEL_SCALE=10 runs ten times as many random networks, and the slow ones. BITWREN_EXPECT_KERNELS="portable avx2
neon" fails where one of these sets cannot be built and run here.
"""

import os
import re
import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from network.examples import conv, network, requantise
from network.strategies import networks_and_pictures
from runtime.cases import case, pictures_for, write_cases
from runtime.directed import GROUPS
from runtime.program import BUILDS, EXPECTED, RUNTIME, built, missing

from bitwren.network.graph import PIXELS, Sum

SCALE = int(os.environ.get("BITWREN_KERNEL_SCALE", "1"))
MACHINES = ("host", "sanitized", "arm")
WAYS = {"host": ("--threads", "1,3"), "sanitized": ("--threads", "2"), "arm": ("--threads", "2")}
SAMPLE = {"host": 1, "sanitized": 3, "arm": 6}  # one case of so many, where SCALE is 1


@pytest.fixture(params=MACHINES)
def program(request, builds):
    return built(request.param, builds)


@pytest.fixture
def host(builds):
    return built("host", builds)


def small():
    """Return a network of every kind of step that opens and starts quickly, and pictures."""
    weights = np.where(np.arange(4 * 9 * 2).reshape(4, 3, 3, 2) % 3, 1, -1)
    nodes = [
        conv("conv", PIXELS, weights, 1, (1, 1, 1, 1)),
        requantise("stream", "conv", 1, 0, 3),
        Sum("logits", "stream"),
    ]
    made = network((2, 9, 11), *nodes, zero=7, classes=4)
    return made, pictures_for(made, 20, 1)


# ------------------------------------------------------------------ agreement


def test_vector_operations(program, seed):
    program.agrees("--primitives", seed)


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("machine", MACHINES)
def test_directed_networks(machine, group, builds, case_file):
    sample = 1 if SCALE > 1 else SAMPLE[machine]
    built(machine, builds).agrees(*WAYS[machine], "--apart", "--sample", sample, case_file(group, SCALE))


def test_every_lookup_kernel_has_run(host, case_file):
    # The random draws of the groups above may change; this says when they no longer reach a tile, stride or group.
    files = [case_file(group) for group in ("convolutions", "1x1", "3x3")]
    lines = [
        line for line in host.agrees("--threads", "1", "--apart", *files).splitlines() if line.startswith("lookup")
    ]
    left_out = [line for line in lines if line.endswith("not run")]

    def exists(line):
        sixes, pairs = "any" not in line and "avx512" in host.sets, {"avx2", "avx512"} & set(host.sets)
        return (sixes or "groups of 6" not in line) and (pairs or "2 at once" not in line)

    assert len(lines) == 42 and left_out == [line for line in lines if not exists(line)]


@given(networks_and_pictures())
@settings(max_examples=25 * SCALE, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_random_networks(host, tmp_path, drawn):
    path = write_cases(tmp_path / "case", [("random", *drawn)])
    host.agrees("--threads", "1,2", "--apart", path)


@pytest.mark.parametrize("machine", MACHINES)
def test_many_random_networks(machine, builds, tmp_path):
    many = []
    program = built(machine, builds)

    @given(networks_and_pictures())
    @settings(max_examples=(100 if machine == "host" else 25) * SCALE, phases=[Phase.generate])
    def draw(drawn):
        many.append((f"random {len(many)}", *drawn))

    draw()
    path = write_cases(tmp_path / "cases", many)
    program.agrees(*WAYS[machine], "--apart", path)


def test_want_of_memory(program, tmp_path):
    program.agrees("--starve", write_cases(tmp_path / "cases", [("starved", *small())]))


# ------------------------------------------------------------------ the list of kernel sets


def test_expected_kernel_sets_run(builds):
    able = {name for name in MACHINES if not missing(BUILDS[name])}
    run = {name for machine in able for name in built(machine, builds).sets}
    for machine in sorted(able):
        print(f"{machine}: run {built(machine, builds).sets}, built {built(machine, builds).built}")
    assert set(EXPECTED) <= run, f"expected {sorted(set(EXPECTED) - run)} too, run were {sorted(run)}"


def test_every_vector_operation_is_listed():
    listed = set(re.findall(r"^BW_PRIMITIVE\((\w+)", (RUNTIME / "tests/primitives.inc").read_text(), re.M))
    defined = set(re.findall(r"^INLINE \w+ ([bvw]_\w+)\(", (RUNTIME / "source/kernels_portable.c").read_text(), re.M))
    assert listed == defined


# ------------------------------------------------------------------ the program itself


def test_a_wrong_logit_is_seen(host, tmp_path):
    made, pictures = small()
    content = bytearray(case("wrong", made, pictures))
    head, network_bytes = 64 + 5 * 4, struct.unpack_from("<I", content, 64)[0]
    logits = head + network_bytes + pictures.nbytes
    content[logits + 4 * (4 * 19 + 3)] ^= 1  # the last picture's last class
    (tmp_path / "wrong").write_bytes(content)
    done = host.run(tmp_path / "wrong")
    assert done.returncode == 1
    for name in host.sets:
        assert (
            f"FAILED wrong: kernels {name}, 3 threads, planned for 20, all at once: picture 19 class 3" in done.stdout
        )


def test_a_wrong_value_within_is_seen(host, tmp_path):
    made, pictures = small()
    content = bytearray(case("wrong", made, pictures))
    content[-4 * len(pictures) * 4 - 4] ^= 1  # the stream's last value, before the logits of the last node
    (tmp_path / "wrong").write_bytes(content)
    assert host.run(tmp_path / "wrong").returncode == 0  # logits are right
    done = host.run("--apart", tmp_path / "wrong")
    assert done.returncode == 1
    assert "planes apart: requantise2, picture 19 channel 3 row 8 column 10" in done.stdout


def test_an_expected_set_that_does_not_run_is_seen(host):
    done = host.run("--expect", "portable", "--expect", "altivec")
    assert done.returncode == 1
    assert "FAILED expected kernels altivec: not run" in done.stdout and "kernels portable: run" in done.stdout


@pytest.mark.parametrize(
    ("content", "message"), [(b"x" * 63, "not a file of cases"), (bytes(64) + b"\xff" * 20, "cut short")]
)
def test_a_broken_file_of_cases_is_refused(host, tmp_path, content, message):
    (tmp_path / "broken").write_bytes(content)
    done = host.run(tmp_path / "broken")
    assert done.returncode == 2 and message in done.stderr


@pytest.mark.parametrize("wrong", [["--threads", "0"], ["--threads", "1,,2"], ["--apart?", "x"], ["--expect"]])
def test_wrong_usage(host, wrong):
    done = host.run(*wrong)
    assert done.returncode == 2 and done.stderr.startswith("usage: agree")
