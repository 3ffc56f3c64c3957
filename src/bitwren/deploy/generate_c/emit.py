"""The two files of a network: network.h and network.c."""

import dataclasses
import textwrap
import zlib

from bitwren.deploy.generate_c.constants import Field, array_text, literal
from bitwren.deploy.generate_c.emit_convolve import convolve
from bitwren.deploy.generate_c.emit_plain import plain
from bitwren.deploy.generate_c.emit_window import window
from bitwren.deploy.generate_c.plan import Form, Plan
from bitwren.deploy.generate_c.program import Program
from bitwren.deploy.generate_c.selftest import selftest
from bitwren.deploy.generate_c.template import render
from bitwren.network import graph
from bitwren.network.graph import Conv, Network
from bitwren.network.pack import encode

STACK = 512  # bytes; a test holds every core to it


@dataclasses.dataclass(frozen=True)
class Written:
    """The steps of a plan in C. names: of each step's function. constants: text of each step's.

    calls: (function, constants) of the steps that run after the picture's rows. constant_bytes: of all, in flash.
    """

    program: Program
    names: tuple[str, ...]
    constants: tuple[str, ...]
    calls: tuple[tuple[str, str], ...]
    constant_bytes: int

    @property
    def code(self) -> str:
        """The functions, without what all networks share."""
        return "\n".join((*self.program.kernels, *self.program.functions))


def write_steps(network: Network, plan: Plan) -> Written:
    """Return the steps of a plan in C."""
    program = Program(network, plan.arena, plan.compact)
    constants, calls, names = [], [], []
    total = 0
    for k, (form, scratch) in enumerate(zip(plan.forms, plan.scratch, strict=True)):
        by_rows = plan.by_rows and k == 0
        if form.step.kind == "Convolve":
            code = convolve(program, form, plan.tensors, scratch, by_rows)
        elif form.step.kind == "Window":
            code = window(program, form, plan.tensors, scratch)
        else:
            code = plain(program, form.step, plan.tensors, scratch)
        names.append(program.function(code))
        constants.append(_instance(f"step_{k + 1}", names[-1], form, code.fields, plan))
        total += sum(field.bytes for field in code.fields)
        if not by_rows:
            calls.append((names[-1], f"step_{k + 1}"))
    return Written(program, tuple(names), tuple(constants), tuple(calls), total + program.constant_bytes)


def c_files(network: Network, plan: Plan, command: str, version: str) -> dict[str, str]:
    """Return network.h and network.c by name. command: what the user typed, for the stamp."""
    steps = write_steps(network, plan)
    stamp = dict(
        title=_title(network),
        version=version,
        checksum=f"{zlib.crc32(encode(network)):08x}",
        command=_comment(command),
        summary=_summary(network, plan, steps.constant_bytes),
        classes=[_string(name) for name in network.classes],
    )
    first, last = plan.forms[0], plan.forms[-1].step.writes
    geometry = first.lookups[0].geometry if first.lookups else None
    source = render(
        "main.c.in",
        **stamp,
        header="network.h",
        common=steps.program.common(steps.code),
        kernels="\n".join(steps.program.kernels),
        functions="\n".join(steps.program.functions),
        constants="\n".join(steps.constants),
        by_rows=plan.by_rows,
        first=steps.names[0],
        first_step="step_1",
        first_type=first.step.writes.ctype,
        first_turn=geometry.first_turn if geometry else 0,
        turns=geometry is not None and geometry.slots > 1,
        rows_left=geometry is not None and geometry.rows_left,
        state_at=plan.scratch[0]["state"],
        pixels_at=plan.tensors.get(graph.PIXELS, 0),
        calls=steps.calls,
        logit_type=last.ctype,
        logits_at=plan.tensors[last.name],
        selftest=selftest(network),
    )
    header = render(
        "header.h.in",
        **{**stamp, "classes": len(network.classes)},
        pixel_order={1: "of one byte", 3: "R G B"}.get(network.channels, f"of {network.channels} bytes"),
        channels=network.channels,
        height=network.height,
        width=network.width,
        arena=-(-plan.arena // 4) * 4,
        stack=STACK,
        constants=steps.constant_bytes,
        macs=macs(network),
        multiplications=network.total_multiplications,
        logit_scale=repr(network.logit_scale),
    )
    return {"network.h": header, "network.c": source}


def macs(network: Network) -> int:
    """Return the multiply-accumulates of a picture."""
    return sum(graph.macs(n, network.tensors[n.name].shape) for n in network.nodes if isinstance(n, Conv))


def _title(network: Network) -> str:
    made = network.about.get("recipe") if isinstance(network.about, dict) else None
    made = f" {_comment(made)}" if isinstance(made, str) else ""
    pixels = f"{network.channels} x {network.height} x {network.width} pixels"
    return f"Network{made}: {pixels} to {len(network.classes)} classes."


def _summary(network: Network, plan: Plan, constants: int) -> str:
    count = "more than" if plan.compact else "about"  # the planner counts functions of their own; shared ones take more
    lines = [
        f"weights          {network.weights:,}",
        f"operations       {macs(network):,} additions and subtractions of the convolutions, "
        f"{network.total_multiplications:,} multiplications",
        f"arena            {plan.arena:,} bytes",
        f"constants        {constants:,} bytes of flash, beside the code",
        f"instructions     {count} {plan.instructions / 1e6:.2f} million for a picture (Cortex-M4, estimated)",
    ]
    return "\n".join(f" * {line}" for line in lines)


def _instance(name: str, struct: str, form: Form, fields: list[Field], plan: Plan) -> str:
    """Return the constants of a step: its arrays, then its struct, with what the step does before them."""
    arrays, members = [], []
    for field in fields:
        if field.is_array:
            arrays.append(array_text(f"{name}_{field.name}", field.ctype, field.value))
            members.append(f"    {name}_{field.name},")
        else:
            members.append(f"    {literal(field.ctype, field.value)}, /* {field.name} */")
    about = textwrap.indent("\n".join(_about(form, plan.compact)), " * ")[3:]
    return (
        f"/* {about}\n */\n"
        + "\n".join(arrays)
        + ("\n" if arrays else "")
        + f"static const struct {struct} {name} = {{\n"
        + "\n".join(members)
        + "\n};\n"
    )


def _about(form: Form, compact: bool) -> list[str]:
    step = form.step
    lines = [f"{step.kind}: {', '.join(node.name for node in step.nodes)}"]
    for tensor in step.reads:
        lines.append(f"reads   {_tensor(tensor)}")
    for tensor in (step.writes, step.also):
        if tensor is not None:
            lines.append(f"writes  {_tensor(tensor)}")
    for v in form.lookups:
        g = v.geometry
        shapes = f"{g.channels} x {g.height} x {g.width} -> {g.filters} x {g.rows} x {g.columns}"
        blocks = f", {v.blocks} blocks" if v.blocks > 1 else ""
        lines.append(
            f"lookup  {shapes}, window {g.window}, "
            f"stride {g.stride}; groups {' '.join(map(str, v.groups))}{blocks}; "
            f"{g.tiles} x {g.tile} words; sums in {'32 bits' if v.wide else '16 bit lanes'}"
        )
    if form.scratch:
        lines.append("scratch " + ", ".join(f"{name} {size}" for name, size in form.scratch) + " bytes")
    count = "more than" if compact else "about  "
    lines.append(f"{count} {form.instructions:,.0f} instructions (Cortex-M4, estimated)")
    return lines


def _tensor(tensor) -> str:
    return f"{tensor.name}: {tensor.channels} x {tensor.height} x {tensor.width} {tensor.ctype}"


def _comment(text: str) -> str:
    """Return text that may stand in a comment."""
    return " ".join(text.replace("*/", "* /").replace("/*", "/ *").replace("\\", "/").split())


def _string(text: str) -> str:
    """Return a C string: ASCII, everything else as octal escapes of its UTF-8 bytes, which end after three digits."""
    out = "".join(chr(b) if 32 <= b < 127 and chr(b) not in '"\\?' else f"\\{b:03o}" for b in text.encode())
    return f'"{out}"'
