"""The cores that firmware is built for, and the machines of QEMU that they are booted on."""

from dataclasses import dataclass

MEBIBYTE = 1 << 20
PACKAGES = {  # what brings a program, on Debian and its kin
    "arm-none-eabi-gcc": "gcc-arm-none-eabi",
    "arm-none-eabi-objdump": "binutils-arm-none-eabi",
    "arm-none-eabi-nm": "binutils-arm-none-eabi",
    "riscv64-unknown-elf-gcc": "gcc-riscv64-unknown-elf",
    "riscv64-unknown-elf-objdump": "binutils-riscv64-unknown-elf",
    "riscv64-unknown-elf-nm": "binutils-riscv64-unknown-elf",
    "qemu-system-arm": "qemu-system-arm",
    "qemu-system-riscv32": "qemu-system-misc",
    "qemu-system-riscv64": "qemu-system-misc",
}


@dataclass(frozen=True)
class Machine:
    """A machine of QEMU. options: that choose it; flash and ram: start and bytes."""

    name: str
    emulator: str
    options: tuple[str, ...]
    flash: tuple[int, int]
    ram: tuple[int, int]


@dataclass(frozen=True)
class Core:
    """A core. tools: the compiler's prefix; flags: that choose the core; machines: the first that the image fits."""

    name: str
    architecture: str  # of instructions.py
    tools: str
    flags: tuple[str, ...]
    machines: tuple[Machine, ...]


def _arm(name: str, kilobytes: tuple[int, int] | None = None) -> Machine:
    flash, ram = kilobytes or (4096, 4096)
    return Machine(name, "qemu-system-arm", ("-M", name), (0, flash << 10), (0x20000000, ram << 10))


def _virt(bits: int) -> Machine:
    # All of virt's memory can be written; its first half stands for flash.
    flash, ram = (0x80000000, 32 * MEBIBYTE), (0x82000000, 32 * MEBIBYTE)
    return Machine("virt", f"qemu-system-riscv{bits}", ("-M", "virt", "-bios", "none"), flash, ram)


_MICROBIT, _AN385 = _arm("microbit", (256, 16)), _arm("mps2-an385")
_THUMB = ("-mthumb", "-mfloat-abi=soft", "-mno-unaligned-access")
_RISCV = ("-mcmodel=medany", "-msmall-data-limit=0")

CORES = {
    core.name: core
    for core in (
        # small-multiply: the variant whose multiplier takes 32 cycles, so that the compiler puts shifts in its place.
        # A Cortex-M3 runs what was built for a Cortex-M0, where it does not fit the 16 KiB of the smaller board.
        Core("cortex-m0", "arm", "arm-none-eabi-", ("-mcpu=cortex-m0.small-multiply", *_THUMB), (_MICROBIT, _AN385)),
        Core("cortex-m3", "arm", "arm-none-eabi-", ("-mcpu=cortex-m3", *_THUMB), (_AN385,)),
        Core("cortex-m4", "arm", "arm-none-eabi-", ("-mcpu=cortex-m4", *_THUMB), (_arm("mps2-an386"),)),
        Core("cortex-m7", "arm", "arm-none-eabi-", ("-mcpu=cortex-m7", *_THUMB), (_arm("mps2-an500"),)),
        *(
            Core(arch, "riscv", "riscv64-unknown-elf-", (f"-march={march}", f"-mabi={abi}", *_RISCV), (_virt(bits),))
            for arch, march, abi, bits in (
                ("rv32ic", "rv32ic", "ilp32", 32),  # rv32imc without its multiplier
                ("rv32imc", "rv32imc", "ilp32", 32),
                ("rv64", "rv64imac", "lp64", 64),
            )
        ),
    )
}
