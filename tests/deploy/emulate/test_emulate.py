"""Images on emulated cores: exact, counted, and every way of being wrong is seen."""

import re
import subprocess

import numpy as np
import pytest
from deploy.emulate.toy import HEADER, NETWORK, SOURCE, need, pixels, sources
from network.examples import pictures as random_pictures
from network.examples import wide_resnet

from bitwren.deploy.emulate import boot as boot_module
from bitwren.deploy.emulate.boot import boot
from bitwren.deploy.emulate.build import build
from bitwren.deploy.emulate.cores import CORES
from bitwren.deploy.emulate.emulation import emulate
from bitwren.deploy.emulate.trace import trace
from bitwren.deploy.generate_c import generate
from bitwren.errors import ToolError
from bitwren.network.graph import PIXELS
from bitwren.report.emulation import describe_emulation, format_emulation


def run(core, tmp_path, made=None, count=3, flags=()):
    return emulate(NETWORK, made or sources(), need(core), pixels(count, 1), flags=flags, folder=tmp_path)


@pytest.mark.parametrize("core", CORES)
def test_the_toy_is_exact_and_measured(core, tmp_path, seed):
    pictures = pixels(5, seed)
    labels = (pictures.sum((1, 2, 3), dtype=np.int64) < 1600).astype(int)
    emulation = emulate(NETWORK, sources(), need(core), pictures, labels, folder=tmp_path)
    assert emulation.failures() == () and emulation.refusals() == ()
    assert emulation.right == 5
    told = describe_emulation(emulation)
    assert told["logits"] == 10 and told["instructions"]["macs"] == 32
    assert told["instructions"]["per_tick"] == {"cortex-m0": 62.5}.get(core, 40 if core.startswith("cortex") else 1)
    assert told["stack"]["measured"] <= told["stack"]["bound"] <= told["stack"]["declared"] == 64
    assert 40 <= told["flash"]["network"] < 200 < told["flash"]["image"] < 4096
    assert told["ram"]["arena"] == 18 and told["ram"]["state"] == 0
    assert "all 10 logits equal" in format_emulation(told, certified=True)


@pytest.mark.parametrize("core", CORES)
def test_the_count_of_instructions_is_that_of_a_trace(core, tmp_path):
    """Counted in another way: QEMU made to execute one instruction at a time and to write down each."""
    image = build(need(core), sources(), tmp_path)
    records = boot(image, pixels(4, 1).reshape(4, 16), 2)
    traced = trace(image) / 4
    resolution = float(records.instructions_per_tick) if core.startswith("cortex") else 0
    assert abs(records.instructions - traced).max() <= resolution


END = "void network_end("


def slow(turns):
    """Return the toy with a loop of so many turns, two instructions each."""
    loop = f'    for (uint32_t turn = 0; turn < {turns}u; ++turn)\n        __asm__ volatile("");\n'
    return sources(loop=("    network_begin(arena);\n", f"    network_begin(arena);\n{loop}"))


def test_the_counter_goes_round_without_losing_count(tmp_path):
    records = boot(build(need("cortex-m4"), slow(400_000_000), tmp_path), pixels(1, 1).reshape(1, 16), 2)
    assert abs(records.instructions[0] - 800_000_000) < 1000  # 20 million ticks; SysTick has 16.8 million


@pytest.mark.parametrize("core", CORES)
def test_a_generated_network_is_exact(core, tmp_path, seed):
    net = wide_resnet(8, 0.25, size=8, seed=seed)
    emulation = emulate(net, generate(net), need(core), random_pictures(net, 3, seed), folder=tmp_path)
    assert emulation.mismatch is None and emulation.records.damage == () and emulation.selftest == 0
    bound = emulation.certificate.stack_bound
    assert bound is not None and emulation.records.stack.max() <= bound


# ---------------------------------------------------------------- what is wrong is seen


@pytest.mark.parametrize("core", ["cortex-m0", "cortex-m4", "rv32ic", "rv64"])
@pytest.mark.parametrize(
    ("old", "new", "failure"),
    [
        ("-scores[0];", "1 - scores[0];", "picture 0, class 1: logit "),
        ("*(int32_t *)arena = 0;", "", "picture 0, class 0: logit "),  # reads what it never wrote
        ("scores[1] = ", "((uint8_t *)arena)[-1] = 1; scores[1] = ", "bytes before the arena were written"),
        ("scores[1] = ", "((uint8_t *)arena)[18] = 1; scores[1] = ", "bytes after the arena were written"),
        ("return scores[0] != -1600;", "return 3;", "network_selftest returned 3, expected 0"),
        ("NETWORK_STACK_BYTES 64", "NETWORK_STACK_BYTES 100", None),
    ],
)
def test_failures_are_named(core, old, new, failure, tmp_path):
    found = run(core, tmp_path, sources(plant=(old, new))).failures()
    assert (failure is None and found == ()) or any(text.startswith(failure) for text in found), found


def test_rows_are_checked_too(tmp_path):
    """network_classify is right, and network_row, called from outside, is not."""
    split = "void network_row(void *arena, const uint8_t *row)\n{"
    whole = f"void network_row(void *arena, const uint8_t *row)\n{{\n    add(arena, row + 1);\n}}\n\n{END}"
    source = SOURCE.replace(split, "static void add(void *arena, const uint8_t *row)\n{")
    source = source.replace("        network_row(arena, ", "        add(arena, ").replace(END, whole)
    (failure,) = run("cortex-m4", tmp_path, sources(source)).failures()
    assert failure.startswith("by rows, picture 0, class 0: logit ")


@pytest.mark.parametrize(("core", "store"), [("cortex-m4", "str r0, [sp, #-200]"), ("rv32ic", "sw a0, -200(sp)")])
def test_more_stack_than_the_bound_is_seen(core, store, tmp_path):
    found = run(core, tmp_path, sources(plant=("scores[1] =", f'__asm__ volatile("{store}"); scores[1] ='))).failures()
    assert any("bytes of stack were used, more than the bound of" in text for text in found), found


def test_a_declared_stack_too_small_is_seen(tmp_path):
    body = "volatile uint32_t many[20]; many[19] = 0; scores[1] ="
    found = run("cortex-m4", tmp_path, sources(plant=("scores[1] =", body))).failures()
    assert any(re.match(r"NETWORK_STACK_BYTES is 64, expected at least \d+", text) for text in found), found


def test_all_the_stack_used_is_seen(tmp_path):
    body = "volatile uint8_t many[70000]; for (int i = 0; i < 70000; ++i) many[i] = 1; scores[1] ="
    assert "the stack overflowed" in run("cortex-m4", tmp_path, sources(plant=("scores[1] =", body))).failures()


@pytest.mark.parametrize(
    ("core", "body"),
    [
        ("cortex-m0", '__asm__ volatile("udf #0");'),
        ("cortex-m4", "*(volatile uint32_t *)0xF0000000 = 1;"),
        ("cortex-m4", "*(volatile uint8_t *)0x1000 = 1;"),
        ("rv32ic", "*(volatile uint8_t *)0x80001000 = 1;"),
        ("cortex-m4", 'uint32_t w; __asm__ volatile("ldr %0, [%1, #1]" : "=r"(w) : "r"(arena)); scores[0] = (int)w;'),
        ("rv32ic", '*(volatile uint32_t *)0x40 = 1; __asm__ volatile(".word 0");'),
    ],
    ids=["m0 no instruction", "m4 nothing there", "m4 flash", "rv32 flash", "m4 unaligned", "rv32 no instruction"],
)
def test_a_fault_is_named(core, body, tmp_path):
    with pytest.raises(ToolError, match="after 0 of 3 pictures: the processor met a fault"):
        run(core, tmp_path, sources(plant=("scores[1] =", f"{body} scores[1] =")))


def test_an_image_that_hangs_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(boot_module, "_STALLED", 1)
    with pytest.raises(ToolError, match="picture 0 has not ended after 1 seconds"):
        run("cortex-m4", tmp_path, sources(plant=("scores[1] =", 'for (;;) __asm__ volatile(""); scores[1] =')))


def test_an_interrupt_ends_the_emulator(tmp_path, monkeypatch):
    started = []

    class Recorded(subprocess.Popen):
        def __init__(self, *words, **options):
            super().__init__(*words, **options)
            started.append(self)

    def interrupt(done, total):
        raise KeyboardInterrupt

    image = build(need("cortex-m4"), slow(20_000_000), tmp_path)
    monkeypatch.setattr(boot_module.subprocess, "Popen", Recorded)
    with pytest.raises(KeyboardInterrupt):
        boot(image, pixels(50, 1).reshape(50, 16), 2, interrupt)
    assert started[0].poll() is not None


def test_the_small_board_first_then_the_larger(tmp_path):
    small = build(need("cortex-m0"), sources(), tmp_path / "small")
    large = build(need("cortex-m0"), sources(arena=("ARENA_BYTES 18", "ARENA_BYTES 20000")), tmp_path / "large")
    assert (small.machine.name, large.machine.name) == ("microbit", "mps2-an385")


def test_what_fits_no_board_is_refused(tmp_path):
    with pytest.raises(ToolError, match=r"region `?RAM'? overflowed"):
        build(need("cortex-m4"), sources(arena=("ARENA_BYTES 18", "ARENA_BYTES 5000000")), tmp_path)


def test_a_header_of_another_network_is_refused(tmp_path):
    with pytest.raises(ToolError, match=r"network\.h says 12 bytes and 2 classes, expected 16 and 2"):
        run("cortex-m4", tmp_path, sources(height=("NETWORK_HEIGHT 4", "NETWORK_HEIGHT 3")), count=0)


def test_the_same_source_gives_the_same_object(tmp_path):
    one, other = (build(need("cortex-m4"), sources(), tmp_path / name) for name in ("one", "other"))
    assert one.object_sha256 == other.object_sha256


def test_the_picture_is_given_channels_innermost(tmp_path):
    from network.examples import conv, network

    from bitwren.network.graph import Sum

    net = network((3, 2, 2), conv("c", PIXELS, np.array([[1, -1, -1]]).reshape(1, 1, 1, 3)), Sum("s", "c"))
    header = HEADER.replace("CHANNELS 1", "CHANNELS 3").replace("HEIGHT 4", "HEIGHT 2").replace("WIDTH 4", "WIDTH 2")
    source = SOURCE.replace("*sum += row[x] - 100", "*sum += row[3 * x] - row[3 * x + 1] - row[3 * x + 2]")
    source = source.replace("pixels + 4 * y", "pixels + 6 * y").replace("    scores[1] = -scores[0];\n", "")
    source = source.replace("return scores[0] != -1600", "return scores[0]")
    made = sources(source, header.replace("CLASSES 2", "CLASSES 1"))
    assert emulate(net, made, need("cortex-m4"), random_pictures(net, 3, 1), folder=tmp_path).failures() == ()
