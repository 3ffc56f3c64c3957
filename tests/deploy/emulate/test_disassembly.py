"""Functions read from a disassembly: whom they call, where they jump, what stack they take."""

import textwrap

import pytest

from bitwren.deploy.emulate.certificate import ENTRIES, examine
from bitwren.deploy.emulate.disassembly import deepest, reachable, read_disassembly
from bitwren.errors import ToolError

END = {"arm": "bx\tlr", "riscv": "c.jr\tra"}
ARM = """
    00000040 <network_classify>:
      40:	push	{r4, r5, r6, lr}
      42:	sub	sp, #24
      44:	ldr	r3, [pc, #8]	@ (50 <network_classify+0x10>)
      46:	cmp	r0, #0
      48:	bne.n	44 <network_classify+0x4>
      4a:	bl	60 <inner>
      4c:	add	sp, #24
      4e:	pop	{r4, r5, r6, pc}
      50:	.word	0x00000100

    00000060 <inner>:
      60:	stmdb	sp!, {r4-r8, lr}
      64:	str.w	r1, [sp, #-8]!
      68:	ldmia.w	sp!, {r4-r8, lr}
      6c:	b.w	80 <outer>

    00000080 <outer>:
      80:	adds	r0, #1
      82:	bx	lr
      84:	nop
"""

RISCV = """
80000018 <network_classify>:
80000018:	c.addi16sp	sp,-64
8000001c:	sw	ra,60(sp)
80000020:	jal	ra,80000040 <inner>
80000024:	bne	a0,a1,8000001c <network_classify+0x4>
80000028:	auipc	ra,0x0
8000002c:	jalr	ra,24(ra) # 80000040 <inner>
80000030:	c.addi16sp	sp,64
80000034:	c.jr	ra

80000040 <inner>:
80000040:	c.addi	sp,-16
80000044:	c.addi	sp,16
80000048:	jal	zero,80000060 <outer>

80000060 <outer>:
80000060:	addi	a0,a0,1
80000064:	jalr	zero,0(ra)
"""


def read(architecture, text):
    return read_disassembly(architecture, textwrap.dedent(text).splitlines())


@pytest.mark.parametrize(("architecture", "text", "frames"), [("arm", ARM, (40, 32, 0)), ("riscv", RISCV, (64, 16, 0))])
def test_calls_and_stack(architecture, text, frames):
    functions = read(architecture, text)
    assert {name: f.calls for name, f in functions.items()} == {
        "network_classify": {"inner"},
        "inner": {"outer"},
        "outer": set(),
    }
    assert not any(f.untraced or f.unbounded for f in functions.values())
    pushed = {name: f.pushed for name, f in functions.items()}
    assert tuple(pushed.values()) == frames
    assert reachable(functions, ["inner"]) == ["inner", "outer"]
    assert deepest(functions, "network_classify", pushed) == (sum(frames), list(functions))


@pytest.mark.parametrize(
    ("architecture", "line"),
    [
        ("arm", "blx	r3"),
        ("arm", "bx	r3"),
        ("arm", "mov	pc, r3"),
        ("arm", "ldr.w	pc, [r3, r0, lsl #2]"),
        ("arm", "tbb	[pc, r0]"),
        ("arm", "add	pc, r3"),
        ("arm", "ldr.w	pc, [sp, #4]"),
        ("arm", "bl	90000 <elsewhere>"),
        ("riscv", "c.jr	a5"),
        ("riscv", "c.jalr	a5"),
        ("riscv", "jalr	ra,0(a5)"),
        ("riscv", "jalr	zero,8(ra)"),
        ("riscv", "jal	ra,90000 <elsewhere>"),
    ],
)
def test_a_jump_whose_goal_does_not_show_is_refused(architecture, line):
    functions = read(architecture, f"00000040 <network_classify>:\n  40:\t{line}\n  44:\t{END[architecture]}\n")
    assert len(functions["network_classify"].untraced) == 1
    certificate = examine(functions, {"network_classify"}, ["network_classify"], {"network_classify": 8})
    assert [f.what for f in certificate.findings if f.what == "untraced jump"] == ["untraced jump"]
    assert certificate.stack_bound is None


@pytest.mark.parametrize(
    "line", ["pop	{pc}", "pop	{r4, pc}", "ldmia.w	sp!, {r4, pc}", "ldr.w	pc, [sp], #4", "ldr	pc, [sp], #4"]
)
def test_a_return_by_the_stack_is_no_jump(line):
    f = read("arm", f"00000040 <f>:\n  40:\tnop\n  42:\t{line}\n")["f"]
    assert not f.untraced and not f.unbounded


@pytest.mark.parametrize(("architecture", "line"), [("arm", "bl	40 <f>"), ("riscv", "jal	ra,40 <f>")])
def test_recursion_is_found(architecture, line):
    functions = read(architecture, f"00000040 <f>:\n  40:\t{line}\n  44:\tnop\n")
    assert functions["f"].calls == {"f"}
    assert deepest(functions, "f", {"f": 8}) is None
    assert any("f is recursive" in text for text in examine(functions, {"f"}, ["f"], {"f": 8}).stack_findings)


@pytest.mark.parametrize(("architecture", "line"), [("arm", "b.n	40 <f>"), ("riscv", "jal	zero,40 <f>")])
def test_a_loop_to_the_start_is_none(architecture, line):
    assert read(architecture, f"00000040 <f>:\n  40:\t{line}\n")["f"].calls == set()


def test_the_long_jump_of_thumb_1_is_no_call():
    text = "00000040 <f>:\n  40:\tnop\n  42:\tbx\tlr\n  44:\tbl\t42 <f+0x2>\n\n00000050 <g>:\n  50:\tbx\tlr\n"
    assert read("arm", text)["f"].calls == set()


@pytest.mark.parametrize(
    ("architecture", "last"), [("arm", "adds	r0, #1"), ("arm", "bne.n	40 <f>"), ("riscv", "beq	a0,a1,40 <f>")]
)
def test_a_function_without_an_end_goes_on_in_the_next(architecture, last):
    functions = read(architecture, f"00000040 <f>:\n  40:\t{last}\n\n00000050 <g>:\n  50:\tmul\tr0, r1\n")
    assert functions["f"].calls == {"g"}


def test_two_functions_of_one_name_are_both_kept():
    functions = read("arm", "00000040 <f>:\n  40:\tmul\tr0, r1\n  42:\tbx\tlr\n\n00000050 <f>:\n  50:\tbx\tlr\n")
    assert list(functions) == ["f", "f@50"]
    assert [i.kind for i in functions["f"].instructions] == ["multiply", "branch"]


def test_a_hidden_multiplication_is_named_with_its_caller():
    text = (
        "00000040 <f>:\n  40:\tbl\t50 <__mulsi3>\n  44:\tbx\tlr\n\n"
        "00000050 <__mulsi3>:\n  50:\tadds\tr0, #1\n  52:\tbx\tlr\n"
    )
    (finding,) = examine(read("arm", text), {"f"}, ["f"], {"f": 0}).findings
    assert (finding.function, finding.what, finding.text) == ("f", "multiply", "calls __mulsi3")


@pytest.mark.parametrize(
    ("name", "what"), [("malloc", "memory management"), ("sqrtf", "mathematics"), ("puts", "unknown")]
)
def test_functions_of_libraries_are_refused(name, what):
    text = f"00000040 <f>:\n  40:\tb.w\t50 <{name}>\n\n00000050 <{name}>:\n  50:\tbx\tlr\n"
    assert [f.what for f in examine(read("arm", text), {"f"}, ["f"], {"f": 0}).findings] == [what]


def test_the_other_link_register_returns_in_a_library_only():
    text = "00000040 <f>:\n  40:\tjal\tra,50 <__umodsi3>\n  44:\t{}\n\n00000050 <__umodsi3>:\n  50:\tjalr\tzero,0(t0)\n"
    found = {}
    for last in ("c.jr\tra", "jalr\tzero,0(t0)"):
        certificate = examine(read("riscv", text.format(last)), {"f"}, ["f"], {"f": 0})
        found[last] = sorted(f.what for f in certificate.findings)
    assert found == {"c.jr\tra": ["divide"], "jalr\tzero,0(t0)": ["divide", "untraced jump"]}


def test_stack_of_variable_size_has_no_bound():
    functions = read("arm", "00000040 <f>:\n  40:\tsub\tsp, r3\n  42:\tbx\tlr\n")
    assert examine(functions, {"f"}, ["f"], {}).stack_findings == ("the stack of f has no bound",)
    assert examine(functions, {"f"}, ["f"], {"f": 16}).stack_bound == 16  # the compiler's word is taken
    assert examine(functions, {"f"}, ["f"], {"f": None}).stack_bound is None


def test_an_image_without_the_network_gives_no_certificate():
    certificate = examine({}, set(), [], {})
    assert certificate.refusals(False) == (f"{ENTRIES[0]} was not found in the image",)


def test_a_tool_that_fails_is_named():
    from bitwren.deploy.emulate.tools import run_tool

    with pytest.raises(ToolError, match=r"^false failed: exit status 1$"):
        run_tool(["false"])
    with pytest.raises(ToolError, match=r"^/nowhere/cc: cannot be run: No such file or directory$"):
        run_tool(["/nowhere/cc"])
