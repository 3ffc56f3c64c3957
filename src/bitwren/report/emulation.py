"""What an emulated microcontroller measured, as JSON and for the terminal."""

import zlib

import numpy as np

from bitwren.deploy.emulate.emulation import Emulation
from bitwren.network.pack import encode


def describe_emulation(emulation: Emulation) -> dict:
    """Return the figures of an emulation, as JSON."""
    image, records, certificate = emulation.image, emulation.records, emulation.certificate
    median = float(np.median(records.instructions))
    code = image.span("at_network_start", "at_network_code_end")
    constants = image.span("at_network_constants", "at_network_end")
    return {
        "crc32": zlib.crc32(encode(emulation.network)),
        "core": image.core.name,
        "machine": image.machine.name,
        "compiler": image.compiler,
        "flags": list(image.flags),
        "object_sha256": image.object_sha256,
        "pictures": len(records.logits),
        "right": emulation.right,
        "logits": int(records.logits.size),
        "failures": list(emulation.failures()),
        "instructions": {
            "median": round(median),
            "least": round(float(records.instructions.min())),
            "most": round(float(records.instructions.max())),
            "counter": "minstret" if image.core.architecture == "riscv" else "SysTick",
            "per_tick": float(records.instructions_per_tick),
            "macs": emulation.macs,
            "per_mac": median / emulation.macs if emulation.macs else None,
        },
        "stack": {
            "measured": int(records.stack.max()),
            "bound": certificate.stack_bound,
            "declared": records.declared_stack,
            "path": list(certificate.stack_path),
        },
        "flash": {
            "network": code + constants,
            "code": code,
            "constants": constants,
            "image": image.span("at_flash_start", "at_flash_end"),
        },
        "ram": {
            "arena": records.arena,
            "state": certificate.state,
            "image": image.symbols["bss_end"] - image.symbols["data_start"],
        },
        "multiplications": emulation.network.total_multiplications,
        "certificate": {
            "refused": list(emulation.refusals()),
            "functions": list(certificate.functions),
            "instructions": certificate.instructions,
            "kinds": dict(certificate.kinds),
            "multiplications": certificate.multiplications,
        },
    }


def format_emulation(told: dict, certified: bool) -> str:
    """Return the figures of describe_emulation as lines. certified: with the certificate, or why there is none."""
    instructions, stack, flash, ram = told["instructions"], told["stack"], told["flash"], told["ram"]
    per_mac = instructions["per_mac"]
    rows = [
        ("core", f"{told['core']} (QEMU {told['machine']}), {told['compiler']} {' '.join(told['flags'])}"),
        ("pictures", f"{told['pictures']:,}" + _accuracy(told)),
        (
            "instructions",
            f"{instructions['median']:,} a picture (median; {instructions['least']:,} to {instructions['most']:,})",
        ),
        ("", "" if per_mac is None else f"{per_mac:.3f} for each of {instructions['macs']:,} multiply-accumulates"),
        ("stack", f"{stack['measured']:,} bytes measured, {_bound(stack)}, {stack['declared']:,} by network.h"),
        (
            "flash",
            f"{flash['network']:,} bytes of network ({flash['code']:,} code, {flash['constants']:,} constants), "
            f"{flash['image']:,} with the test board's code",
        ),
        ("RAM", f"{ram['arena']:,} bytes of arena, {ram['image']:,} with the test board's buffers, stack apart"),
        ("result", f"all {told['logits']:,} logits equal the reference's; self-test passed"),
    ]
    if told["failures"]:
        rows[-1:] = [("FAILED", failure) for failure in told["failures"]]
    if certified:
        rows += _certificate(told)
    return "\n".join(f"{name:<13} {text}" for name, text in rows if text)


def _accuracy(told: dict) -> str:
    return "" if told["right"] is None else f", {told['right']:,} right: {told['right'] / told['pictures']:.2%}"


def _bound(stack: dict) -> str:
    return "no bound" if stack["bound"] is None else f"at most {stack['bound']:,} by the compiler's report"


def _certificate(told: dict) -> list[tuple[str, str]]:
    certificate, listed = told["certificate"], 10
    needed = told["multiplications"] > 0
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in certificate["kinds"].items())
    rows = [
        ("", ""),
        ("certificate", "REFUSED" if certificate["refused"] else _claim(needed)),
        (
            "checked",
            f"{certificate['instructions']:,} instructions of {len(certificate['functions'])} functions: {kinds}",
        ),
        ("functions", ", ".join(certificate["functions"])),
        ("model", f"CRC-32 {told['crc32']:08x}"),
        ("object", f"SHA-256 {told['object_sha256']}"),
    ]
    if needed and certificate["multiplications"]:
        listing = ", ".join(f"{name} {count}" for name, count in certificate["multiplications"].items())
        rows.append(("multiply", f"or divide, instructions by function: {listing}"))
    rows += [("refused", text) for text in certificate["refused"][:listed]]
    if len(certificate["refused"]) > listed:
        rows.append(("", f"and {len(certificate['refused']) - listed} more"))
    return rows


def _claim(needed: bool) -> str:
    what = "is a float" if needed else "multiplies, divides or is a float"
    return f"nothing that the network can execute {what}; no memory management, no recursion, no variables"
