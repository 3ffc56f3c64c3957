"""What the processor can do, as Linux tells it, less what is hidden from the engines."""

import os
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
TOLD = ("avx2", "fma", "avx512f", "avx512bw", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "asimd", "asimddp")
HELD_TO = "BITWREN_HELD_TO"  # environment: the flags, by spaces, that are left to see where something hides the others


def processor() -> dict:
    """Return the processor's name and the instruction sets that matter here; empty where Linux does not tell.

    "held": true where HELD_TO is set, and only then.
    """
    try:
        text = CPUINFO.read_text()
    except OSError:
        return {"name": "", "flags": []}
    fields = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    flags = fields.get("flags", fields.get("Features", "")).split()
    told = {"name": fields.get("model name", ""), "flags": [flag for flag in TOLD if flag in flags]}
    if HELD_TO in os.environ:
        left = os.environ[HELD_TO].split()
        told |= {"flags": [flag for flag in told["flags"] if flag in left], "held": True}
    return told


def has_vnni() -> bool:
    """Return whether unsigned times signed bytes are summed in 32 bits at once."""
    return any(flag in ("avx512_vnni", "avx_vnni", "asimddp") for flag in processor()["flags"])
