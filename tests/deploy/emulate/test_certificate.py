"""Multiplications and the like, planted in C and compiled for each core: each is found, in the function that has it."""

import pytest
from deploy.emulate.toy import need, sources

from bitwren.deploy.emulate.build import build
from bitwren.deploy.emulate.certificate import certify
from bitwren.deploy.emulate.cores import CORES
from bitwren.deploy.emulate.disassembly import disassemble
from bitwren.deploy.emulate.tools import find_tool
from bitwren.errors import ToolError

END = "    scores[1] = -scores[0];\n"


def planted(line="", before="", end=END):
    """Return the toy with a line at the end of network_end, and lines before that function."""
    return sources(
        line=(end, f"{end}    {line}\n"),
        before=(
            "void network_end(void *arena, int32_t *scores)\n{",
            f"{before}\nvoid network_end(void *arena, int32_t *scores)\n{{",
        ),
    )


def certified(core, tmp_path, made, *flags):
    return certify(build(need(core), made, tmp_path, flags))


@pytest.mark.parametrize("core", CORES)
def test_the_toy_is_certified(core, tmp_path):
    image = build(need(core), sources(), tmp_path)
    certificate = certify(image)
    assert certificate.refusals(multiplications_allowed=False) == ()
    assert set(certificate.functions) == {"network_classify", "network_begin", "network_row", "network_end"}
    assert certificate.instructions > 20 and certificate.state == 0
    # The compiler's report of the stack, and what the instructions do.
    functions = disassemble(find_tool(f"{image.core.tools}objdump"), image.core.architecture, image.path)
    assert {name: functions[name].pushed for name in image.frames} == image.frames


VALUE = "scores[0] {} (scores[1] | 1);"
PLANTS = [  # a line of C; what it is on each core
    ("product", VALUE.format("*="), dict.fromkeys(CORES, "multiply")),
    ("long product", "scores[0] = (int32_t)((int64_t)scores[0] * scores[1] >> 16);", dict.fromkeys(CORES, "multiply")),
    ("quotient", VALUE.format("/="), dict.fromkeys(CORES, "divide")),
    ("remainder", VALUE.format("%="), dict.fromkeys(CORES, "divide")),
    ("index", "scores[0] += ((uint8_t *)arena)[scores[0] * scores[1]];", dict.fromkeys(CORES, "multiply")),
    ("float", "scores[0] = (int32_t)(0.3f + (float)scores[0]);", dict.fromkeys(CORES, "float")),
]


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize(
    ("line", "what"), [(line, what) for _, line, what in PLANTS], ids=[name for name, *_ in PLANTS]
)
def test_what_is_planted_is_found(core, line, what, tmp_path):
    certificate = certified(core, tmp_path, planted(line))
    assert ("network_end", what[core]) in {(f.function, f.what) for f in certificate.findings}
    assert certificate.refusals(multiplications_allowed=False)
    allowed = certificate.refusals(multiplications_allowed=True)
    assert bool(allowed) == (what[core] == "float")
    if what[core] == "multiply":
        assert certificate.multiplications["network_end"] >= 1


@pytest.mark.parametrize(
    ("core", "flags", "instruction"),
    [
        ("cortex-m4", ("-mfloat-abi=softfp", "-mfpu=fpv4-sp-d16"), "vadd.f32"),
        ("rv32imc", ("-march=rv32imfc",), "fadd.s"),
        ("cortex-m0", (), "calls __aeabi_fadd"),
        ("rv32ic", (), "calls __addsf3"),
    ],
)
def test_floats_with_and_without_a_unit(core, flags, instruction, tmp_path):
    certificate = certified(core, tmp_path, planted("scores[0] = (int32_t)(0.3f + (float)scores[0]);"), *flags)
    assert any(f.what == "float" and f.text.startswith(instruction) for f in certificate.findings)


@pytest.mark.parametrize("core", ["cortex-m0", "cortex-m4", "rv32ic", "rv64"])
@pytest.mark.parametrize(
    ("line", "before", "reason"),
    [
        (
            "scores[0] += chosen(scores)(scores[1]);",
            "int32_t (*chosen(void *))(int32_t);\n"
            "int32_t one(int32_t a) { return a + 1; }\nint32_t two(int32_t a) { return a + 2; }\n"
            "__attribute__((noipa)) int32_t (*chosen(void *a))(int32_t) { return *(int *)a ? one : two; }",
            "untraced jump",
        ),
        (
            "scores[0] = deep(scores[0]);",
            "int32_t deep(int32_t a);\n__attribute__((noinline)) "
            "int32_t deep(int32_t a) { return a < 2 ? a : (deep(a - 1) ^ deep(a - 2)); }",
            "is recursive",
        ),
        ("scores[0] += calls++;", "static int32_t calls = 1;", "4 bytes of variables, expected none"),
        ("scores[0] += calls++;", "static int32_t calls;", "4 bytes of variables, expected none"),
        ("volatile uint8_t a[(unsigned)scores[0] & 15]; a[0] = 0; scores[0] += a[0];", "", "has no bound"),
        ('__asm__ volatile("nop\\n.word 0xee000000" ::: "memory");', "", "untraced jump"),
    ],
    ids=["pointer", "recursion", "variable", "cleared variable", "variable stack", "data in the code"],
)
def test_what_makes_it_unprovable_is_refused(core, line, before, reason, tmp_path):
    refused = certified(core, tmp_path, planted(line, before)).refusals(multiplications_allowed=False)
    assert any(reason in text for text in refused), refused


def test_what_no_library_has_does_not_link(tmp_path):
    need("cortex-m4")
    made = planted("scores[0] = (int32_t)sqrtf((float)scores[0]);", "float sqrtf(float);")
    with pytest.raises(ToolError, match=r"arm-none-eabi-gcc failed: .*undefined reference to `sqrtf'"):
        certified("cortex-m4", tmp_path, made)


def test_a_source_that_does_not_compile_is_named(tmp_path):
    need("cortex-m4")
    with pytest.raises(ToolError, match=r"arm-none-eabi-gcc failed: network\.c:\d+:\d+: error: "):
        certified("cortex-m4", tmp_path, planted("scores[0] = ;"))
