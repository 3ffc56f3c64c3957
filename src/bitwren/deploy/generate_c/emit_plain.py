"""C of the steps that are done value by value."""

import numpy as np

from bitwren.deploy.generate_c.constants import Field
from bitwren.deploy.generate_c.forms import form_of
from bitwren.deploy.generate_c.program import NAME, Code, Program
from bitwren.deploy.generate_c.sink import Sink, sum_of_streams
from bitwren.deploy.generate_c.steps import Step, Stored
from bitwren.deploy.generate_c.template import render
from bitwren.network import graph


def plain(program: Program, step: Step, tensors: dict[str, int], scratch: dict[str, int]) -> Code:
    """Return the code of a step of any kind but Convolve."""
    held = {"in": step.input, "out": step.writes, "other": step.other, "also": step.also}
    at = {name: tensors[tensor.name] for name, tensor in held.items() if tensor is not None}
    at |= {name: place for name, place in scratch.items() if name != "state"}
    places = [program.place(name, place) for name, place in at.items()]
    kind, template, fields, values = _KINDS[step.kind](program, step)
    fields = places + fields
    values |= dict(input_type=step.input.ctype, output_type=step.writes.ctype)
    return Code(kind, render(template, name=NAME, fields=fields, **values), fields)


def one_or_each(values: np.ndarray) -> int | tuple[int, ...]:
    """Return the number, where all are the same, else all of them."""
    return int(values[0]) if (values == values[0]).all() else tuple(int(v) for v in values)


def _score(program: Program, step: Step):
    conv = step.convs[0]
    x = program.network.tensors[conv.input]
    source = None if step.source is None else form_of(step.source, step.input.tensor.low, step.input.tensor.high)
    zero = one_or_each(x.zero)
    bits = conv.weight_bits == 1
    weights = np.packbits(conv.weights.ravel() > 0, bitorder="little") if bits else conv.weights.ravel()
    fields = [Field("uint8_t" if bits else "int8_t", "weights", weights)]
    fields.append(Field("int32_t" if isinstance(zero, int) else "uint8_t", "zero", zero))
    fields += source.fields("source", program.offsets) if source else []
    load = "const int32_t zero = k->zero;" if isinstance(zero, int) else "const int32_t zero = k->zero[c];"
    before, each = (source.before("source"), source.each("source", "c")) if source else ([], [])
    (before if isinstance(zero, int) else each).append(load)
    values = dict(
        channels=step.input.channels,
        height=step.input.height,
        width=step.input.width,
        places=step.input.height * step.input.width,
        filters=conv.weights.shape[0],
        bits=bits,
        weight_type="uint8_t" if bits else "int8_t",
        before=before,
        each=each,
        value=lambda v: source.value("source", f"(int32_t){v}") if source else f"(int32_t){v}",
    )
    return "score", "score.c.in", fields, values


def _multiply(program: Program, step: Step):
    conv = step.convs[0]
    x, y = program.network.tensors[conv.input], program.network.tensors[conv.name]
    sink = Sink(step, y)
    zero, bits = one_or_each(x.zero), conv.weight_bits == 1
    weights = np.packbits(conv.weights.ravel() > 0, bitorder="little") if bits else conv.weights.ravel()
    fields = [Field("uint8_t" if bits else "int8_t", "weights", weights)]
    fields.append(Field("int32_t" if isinstance(zero, int) else "uint8_t", "zero", zero))
    for form, name in sink.forms:
        fields += form.fields(name, program.offsets)
    padded = step.other is not None and step.other.channels < conv.weights.shape[0]
    values = dict(
        title=f"{' x '.join(map(str, x.shape))} to {' x '.join(map(str, y.shape))}",
        window=conv.weights.shape[1],
        top=conv.padding[0],
        left=conv.padding[1],
        stride=conv.stride,
        row=step.input.row,
        channels=x.shape[0],
        height=x.shape[1],
        width=x.shape[2],
        filters=y.shape[0],
        rows=y.shape[1],
        columns=y.shape[2],
        bits=bits,
        zero="k->zero" if isinstance(zero, int) else "(int32_t)k->zero[c]",
        other=step.other,
        before=[line for form, name in sink.forms for line in form.before(name)],
        each=[line for form, name in sink.forms for line in form.each(name, "o")],
        value=lambda total, other: sink.value(
            total, f"((o < {step.other.channels}u) ? (int32_t){other} : 0)" if padded else f"(int32_t){other}"
        ),
    )
    return "multiply", "multiply.c.in", fields, values


def _requantise(program: Program, step: Step):
    form = form_of(step.nodes[0], step.input.tensor.low, step.input.tensor.high)
    values = dict(
        channels=step.input.channels,
        height=step.input.height,
        width=step.input.width,
        before=form.before("own"),
        each=form.each("own", "c"),
        value=lambda x: form.value("own", x),
    )
    return "requantise", "requantise.c.in", form.fields("own", program.offsets), values


def _add(program: Program, step: Step):
    a, b = step.input.tensor, step.other.tensor
    value = sum_of_streams("(int32_t)in[i]", (a.low, a.high), "(int32_t)other[i]", (b.low, b.high))
    values = dict(values=step.writes.row * step.writes.height, other_type=step.other.ctype, value=value)
    return "add_streams", "add_streams.c.in", [], values


def _pool_row(program: Program, node: graph.Pool, x: Stored, y: Stored) -> tuple[str, dict]:
    """Add the function that pools a row; return its name, and what the step's template asks."""
    values = dict(
        title=f"{x.channels} x {x.height} x {x.width} to {y.channels} x {y.height} x {y.width}",
        kind=node.kind,
        left=node.padding[1],
        row=x.row,
        channels=x.channels,
        height=x.height,
        width=x.width,
        columns=y.width,
    )
    name = program.kernel("pool_row", "pool_row.c.in", **values, input_type=x.ctype, output_type=y.ctype)
    return name, values


def _pool(program: Program, step: Step):
    node, y = step.nodes[0], step.writes
    name, values = _pool_row(program, node, step.input, y)
    return "pool", "pool.c.in", [], dict(values, pool=name, top=node.padding[0], stored=y.channels, rows=y.height)


def _halve(program: Program, step: Step):
    pool = next(node for node in step.nodes if isinstance(node, graph.Pool))
    x, y = step.input, step.also
    name, values = _pool_row(program, pool, x, y)
    form = form_of(step.source, x.tensor.low, x.tensor.high)
    values |= dict(
        pool=name,
        rows=y.height,
        pooled_row=y.row,
        before=form.before("own"),
        each=form.each("own", "c"),
        value=lambda v: form.value("own", v),
    )
    return "halve", "halve.c.in", form.fields("own", program.offsets), values


def _sum(program: Program, step: Step):
    x = step.input
    return "sum", "sum.c.in", [], dict(channels=x.channels, height=x.height, width=x.width)


_KINDS = {
    "Score": _score,
    "Multiply": _multiply,
    "Requantise": _requantise,
    "Add": _add,
    "Pool": _pool,
    "Halve": _halve,
    "Sum": _sum,
}
