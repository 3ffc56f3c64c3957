"""What a network needs of a microcontroller, as JSON and for the terminal."""

from collections.abc import Iterable

from bitwren.deploy.calibration import CALIBRATION
from bitwren.deploy.fit import Budget, Largest, Needs
from bitwren.terminal import aligned, byte_count


def describe_needs(needs: Needs, budget: Budget, megahertz: float) -> dict:
    """Return whether a network fits, and all that it needs, as JSON. megahertz: of the clock, for the seconds."""
    return {
        "fits": needs.fit(budget),
        "close": needs.close(budget),
        "core": budget.core,
        "optimise": needs.optimise,
        "flash": {
            "bytes": needs.flash(budget.core),
            "of": budget.flash,
            "weights": needs.weight_bytes,
            "constants": needs.constants,
            "code_estimated": needs.code[budget.core],
        },
        "ram": {"bytes": needs.ram, "of": budget.ram, "arena": needs.arena, "stack": needs.stack},
        "picture": {"bytes": needs.picture, "by_rows": needs.by_rows},
        "macs": needs.macs,
        "multiplications": needs.multiplications,
        "megahertz": megahertz,
        "estimated": {
            core: {
                "instructions": needs.instructions[core],
                "seconds": needs.instructions[core] / (megahertz * 1e6),
                "code": needs.code[core],
                "flash": needs.flash(core),
            }
            for core in CALIBRATION
        },
    }


def describe_largest(found: Iterable[Largest], budget: Budget) -> dict:
    """Return the largest value of each key with which a network fits, None where none does, as JSON."""
    return {
        one.key: one.needs
        and {
            "value": one.value,
            "optimise": one.needs.optimise,
            "flash": one.needs.flash(budget.core),
            "ram": one.needs.ram,
            "instructions": one.needs.instructions[budget.core],
        }
        for one in found
    }


def format_fit(told: dict) -> str:
    """Return what describe_needs tells as lines; told["largest"] and told["network"] too, where they are there."""
    flash, ram, picture = told["flash"], told["ram"], told["picture"]
    rows = [
        ("network", told["network"]),
        ("fits", f"{'yes' if told['fits'] else 'NO'}, on {told['core']}, generated with --optimise {told['optimise']}"),
        (
            "flash",
            f"{_of(flash)}: {flash['constants']:,} of constants ({flash['weights']:,} of them weights), "
            f"about {flash['code_estimated']:,} of code",
        ),
        ("RAM", f"{_of(ram)}: {ram['arena']:,} of arena, at most {ram['stack']:,} of stack"),
        (
            "close",
            "nearer the limit than the estimate of code can tell: bitwren emulate measures it" if told["close"] else "",
        ),
        (
            "picture",
            f"{picture['bytes']:,} bytes, "
            + ("row by row or, beside the RAM above, whole" if picture["by_rows"] else "held in the arena"),
        ),
        (
            "operations",
            f"{told['macs']:,} additions and subtractions, {told['multiplications']:,} multiplications a picture",
        ),
    ]
    lines = [f"{name:<13} {text}" for name, text in rows if text]
    table = [("core", "instructions", f"s at {told['megahertz']:g} MHz", "code", "flash")]
    for core, each in told["estimated"].items():
        size = f"{each['code']:,}", f"{each['flash']:,}"
        table.append((core, f"{each['instructions']:,}", f"{each['seconds']:.3g}", *size))
    lines += ["", *aligned(table, left=1), ""]
    for key, one in told.get("largest", {}).items():
        lines.append(f"{f'largest {key}':<13} {_largest(one)}")
    estimated = (
        "instructions, code and flash, by runs on emulated cores; seconds, the least: one instruction a cycle"
    )
    lines.append(f"{'estimated':<13} {estimated}")
    return "\n".join(lines)


def _of(memory: dict) -> str:
    return f"{memory['bytes']:,} of {memory['of']:,} bytes ({byte_count(memory['of'])})"


def _largest(one: dict | None) -> str:
    if one is None:
        return "none fits"
    return (
        f"{one['value']:g}: {one['flash']:,} bytes of flash, {one['ram']:,} of RAM, about {one['instructions']:,} "
        f"instructions (--optimise {one['optimise']})"
    )
