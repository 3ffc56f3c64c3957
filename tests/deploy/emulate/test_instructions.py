"""Mnemonics and names of functions: what multiplies, divides, is a float, or is not known."""

import pytest

from bitwren.deploy.emulate.instructions import DIVIDE, FLOAT, HARMLESS, MULTIPLY, UNKNOWN, hidden_by, kind_of


@pytest.mark.parametrize(
    ("architecture", "kind", "mnemonics"),
    [
        (
            "arm",
            MULTIPLY,
            "mul muls mulne mla mls umull umlal smull smlal smulbb smlabb smlatt smlalbt smlad smmlar smuad",
        ),
        ("arm", DIVIDE, "udiv sdiv sdivne"),
        ("arm", FLOAT, "vadd.f32 vmul.f32 vldr vmov vpush vcvt.f32.s32 vfma.f32 vmla.f32"),
        ("arm", UNKNOWN, "svc bkpt mcr cdp msr mrs wfi udf tbb tbh dmb blxns ldrex"),
        ("arm", "branch", "b b.n b.w beq.n bls.n blt.w bl bx blx cbz cbnz bne"),
        ("arm", "add", "add adds add.w addw subs sub.w rsb rsbs negs adc adcs sbc addeq subne.w"),
        ("arm", "other", "nop nop.w it ite itt itte itttt iteee"),
        ("arm", "lanes", "uadd8 sadd16 uxtab16 sxtb16 usada8 usad8 pkhbt uqsub8 shadd16 qadd"),
        ("arm", "load", "ldr ldr.w ldrb ldrsh.w ldmia.w ldrd pop ldrhs"),
        ("arm", "bits", "uxtb sxth.w ubfx bfi clz ssat usat"),
        ("riscv", MULTIPLY, "mul mulh mulhu mulhsu mulw c.mul"),
        ("riscv", DIVIDE, "div divu rem remu divw remuw"),
        ("riscv", FLOAT, "fadd.s fmul.d flw fsw c.flw c.fsdsp fcvt.s.w fmv.x.w fmadd.s"),
        ("riscv", UNKNOWN, "ecall ebreak c.ebreak csrrw fence fence.i amoadd.w lr.w unimp c.unimp sh1add vadd.vv"),
        ("riscv", "branch", "beq bne c.beqz c.bnez c.j c.jr c.jal c.jalr jal jalr"),
        ("riscv", "add", "add addi c.add c.addi c.addi16sp c.addi4spn sub c.sub addw c.subw"),
        ("riscv", "store", "sb sh sw sd c.sw c.swsp c.sdsp"),
    ],
)
def test_kinds(architecture, kind, mnemonics):
    assert {name: kind_of(architecture, name) for name in mnemonics.split()} == dict.fromkeys(mnemonics.split(), kind)


@pytest.mark.parametrize(
    ("what", "names"),
    [
        (MULTIPLY, "__mulsi3 __muldi3 __aeabi_lmul __mulvsi3 __multi3"),
        (DIVIDE, "__divsi3 __udivsi3 __umodsi3 __aeabi_idiv __aeabi_uidivmod __aeabi_ldivmod __udivmoddi4"),
        (
            FLOAT,
            "__addsf3 __muldf3 __floatsisf __fixunsdfsi __ltsf2 __aeabi_fadd __aeabi_dmul __aeabi_i2f __aeabi_d2iz",
        ),
        ("memory management", "malloc free calloc realloc _malloc_r _sbrk"),
        ("mathematics", "sqrt sqrtf expf log2 powf tanhf roundf floor"),
        (UNKNOWN, "printf abort __popcountsi2 __aeabi_uread4 freedom memcmp"),
    ],
)
def test_what_functions_hide(what, names):
    assert {name: hidden_by(name) for name in names.split()} == dict.fromkeys(names.split(), what)
    assert not any(HARMLESS.fullmatch(name) for name in names.split())


def test_harmless_ones():
    names = "memcpy memset memmove __aeabi_llsl __aeabi_llsr __aeabi_lasr __ashldi3 __ashrdi3 __lshrdi3"
    assert all(HARMLESS.fullmatch(name) for name in names.split())
