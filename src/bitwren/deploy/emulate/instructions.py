"""What each instruction does, by its mnemonic: the lists that a certificate stands on.

They name what is known. A mnemonic that no list has is "unknown", and a certificate refuses it: a processor's
extension, or an instruction that nobody thought of, cannot slip through.
"""

import re

MULTIPLY, DIVIDE, FLOAT, UNKNOWN = "multiply", "divide", "float", "unknown"
REFUSED = (MULTIPLY, DIVIDE, FLOAT, UNKNOWN)

_CONDITIONS = ("eq", "ne", "cs", "hs", "cc", "lo", "mi", "pl", "vs", "vc", "hi", "ls", "ge", "lt", "gt", "le", "al")
_SIGNS = ("u", "s", "q", "uq", "sh", "uh")

_ARM = {  # kind: mnemonics without the S that sets flags and without condition
    "move": "mov movw movt mvn adr",
    "add": "add addw adc sub subw sbc rsb neg",
    "logic": "and orr eor bic orn",
    "shift": "lsl lsr asr ror rrx",
    "compare": "cmp cmn tst teq",
    "bits": "uxtb uxth sxtb sxth ubfx sbfx bfi bfc clz rev rev16 revsh rbit ssat usat",
    "load": "ldr ldrb ldrh ldrsb ldrsh ldrd ldm ldmia ldmdb pop",
    "store": "str strb strh strd stm stmia stmdb push",
    "branch": "b bl bx blx cbz cbnz",
    "other": "nop",
    # Sums of several lanes in one word, and sums that saturate; none has a product.
    "lanes": " ".join(
        [sign + name for sign in _SIGNS for name in ("add8", "add16", "sub8", "sub16", "asx", "sax")]
        + ["uxtab uxtab16 uxtah uxtb16 sxtab sxtab16 sxtah sxtb16 qadd qsub qdadd qdsub"]
        + ["sel usad8 usada8 pkhbt pkhtb ssat16 usat16"]
    ),
    MULTIPLY: " ".join(
        ["mul mla mls umull umlal umaal smull smlal smulwb smulwt smlawb smlawt smlad smladx smlald smlaldx"]
        + ["smlsd smlsdx smlsld smlsldx smmul smmulr smmla smmlar smmls smmlsr smuad smuadx smusd smusdx"]
        + [name + halves for name in ("smul", "smla", "smlal") for halves in ("bb", "bt", "tb", "tt")]
    ),
    DIVIDE: "udiv sdiv",
}
_SETS_FLAGS = ("move", "add", "logic", "shift", MULTIPLY)

_RISCV = {
    "move": "li mv lui auipc",
    "add": "add addi addi16sp addi4spn sub addw addiw subw",
    "logic": "and andi or ori xor xori",
    "shift": "sll slli srl srli sra srai sllw slliw srlw srliw sraw sraiw",
    "compare": "slt slti sltu sltiu",
    "load": "lb lh lw ld lbu lhu lwu lwsp ldsp",
    "store": "sb sh sw sd swsp sdsp",
    "branch": "beq bne blt bge bltu bgeu beqz bnez j jal jr jalr",
    "other": "nop",
    MULTIPLY: "mul mulh mulhu mulhsu mulw",
    DIVIDE: "div divu rem remu divw divuw remw remuw",
}


def _arm_spellings() -> dict[str, str]:
    kinds = {f"it{rest}": "other" for n in range(4) for rest in _words("te", n)}
    for kind, names in _ARM.items():
        for name in names.split():
            for sets_flags in ("", "s") if kind in _SETS_FLAGS else ("",):
                for condition in ("", *_CONDITIONS):
                    kinds[name + sets_flags + condition] = kind
    return kinds


def _words(letters: str, length: int) -> list[str]:
    return [""] if length == 0 else [a + rest for a in letters for rest in _words(letters, length - 1)]


_KINDS = {"arm": _arm_spellings(), "riscv": {name: kind for kind, names in _RISCV.items() for name in names.split()}}
_FLOAT = {"arm": re.compile(r"v\w"), "riscv": re.compile(r"f(?!ence)\w")}  # VFP and Neon; F, D and Q


def kind_of(architecture: str, mnemonic: str) -> str:
    """Return what an instruction does, for a mnemonic as objdump prints it (RISC-V: with -M no-aliases)."""
    name = mnemonic.removesuffix(".w").removesuffix(".n") if architecture == "arm" else mnemonic.removeprefix("c.")
    known = _KINDS[architecture].get(name)
    return known or (FLOAT if _FLOAT[architecture].match(name) else UNKNOWN)


# Functions of the compiler's own library and of memory.c that hide nothing: copies, and shifts of 64-bit numbers.
HARMLESS = re.compile(r"mem(cpy|set|move)|__aeabi_(ll(sl|sr)|lasr)|__(ash[lr]|lshr)di3")
_MATHEMATICS = "sqrt|exp2?|log(2|10)?|pow|sin|cos|tanh?|floor|ceil|round|l?rint|fabs|fmin|fmax"
_HIDES = (  # the first that matches tells what a function of a library hides
    ("memory management", re.compile(r"_?(malloc|calloc|realloc|free|sbrk)(_r)?$")),
    ("mathematics", re.compile(rf"({_MATHEMATICS})f?$")),
    # __aeabi_fadd, __aeabi_i2d, __aeabi_d2uiz; __addsf3, __floatsisf, __fixunsdfdi, __ltdf2
    (FLOAT, re.compile(r"__aeabi_(c?[fd]|[iul]+2)|__\w+[sdth]f|__(fix|float)")),
    (DIVIDE, re.compile(r"[\w.]*(div|mod)")),
    (MULTIPLY, re.compile(r"\w*mul")),
)


def hidden_by(function: str) -> str:
    """Return what a function that is not the network's own hides, by its name; UNKNOWN where the name tells nothing."""
    return next((what for what, pattern in _HIDES if pattern.match(function)), UNKNOWN)
