"""C of the steps that are done value by value."""

import numpy as np

from bitwren.deploy.generate_c.constants import Field
from bitwren.deploy.generate_c.forms import form_of
from bitwren.deploy.generate_c.program import NAME, Code, Program
from bitwren.deploy.generate_c.steps import Step
from bitwren.deploy.generate_c.template import render
from bitwren.network.graph import INT16, Tensor


def plain(program: Program, step: Step, tensors: dict[str, int], scratch: dict[str, int]) -> Code:
    """Return the code of a step of any kind but Convolve."""
    places = [Field("uint32_t", "in_at", tensors[step.input.name]), Field("uint32_t", "out_at", tensors[step.writes.name])]
    if step.other is not None:
        places.append(Field("uint32_t", "other_at", tensors[step.other.name]))
    if step.kind == "Score":
        places.append(Field("uint32_t", "totals_at", scratch["totals"]))
    kind, template, fields, values = _KINDS[step.kind](program, step)
    fields = places + fields
    values |= dict(input_type=step.input.ctype, output_type=step.writes.ctype)
    return Code(kind, render(template, name=NAME, fields=fields, **values), fields)


def sum_of_streams(value: str, reaches: tuple[int, int], other: str, others: tuple[int, int]) -> str:
    """Return the C expression of value + other, clamped to int16 where the ranges say that it can pass it."""
    total = f"{value} + {other}"
    if reaches[0] + others[0] >= INT16[0] and reaches[1] + others[1] <= INT16[1]:
        return f"({total})"
    return f"clamp({total}, {INT16[0]}, {INT16[1]})"


def one_or_each(values: np.ndarray) -> int | tuple[int, ...]:
    """Return the number, where all are the same, else all of them."""
    return int(values[0]) if (values == values[0]).all() else tuple(int(v) for v in values)


class Sink:
    """What comes after a convolution: a requantise, and perhaps another tensor that is added."""

    def __init__(self, step: Step, sums: Tensor):
        """sums: the range of the convolution's sums."""
        self.step = step
        self.sink = None if step.sink is None else form_of(step.sink, sums.low, sums.high)
        other = step.other
        self.adjust = None if step.adjust is None else form_of(step.adjust, other.tensor.low, other.tensor.high)
        self.forms = [(f, name) for f, name in ((self.sink, "sink"), (self.adjust, "adjust")) if f is not None]

    def value(self, total: str, other: str) -> str:
        """Return the C expression of the result. other: of the value to add."""
        result = total if self.sink is None else self.sink.value("sink", total)
        if self.step.add is None:
            return f"({result})"
        return sum_of_streams(result, self.sink.reaches, self.term(other), self.others)

    def term(self, other: str) -> str:
        """Return the C expression of what is added."""
        return other if self.adjust is None else self.adjust.value("adjust", other)

    @property
    def others(self) -> tuple[int, int]:
        """The range of what is added."""
        tensor = self.step.other.tensor
        return (tensor.low, tensor.high) if self.adjust is None else self.adjust.reaches

    @property
    def seldom_clamps(self) -> bool:
        """Whether all that is clamped is clamped to int16, so that one test tells for several values."""
        if self.step.add is None or self.sink.kind == "general64":
            return False
        ends = (self.sink.low, self.sink.high)
        return all(end in (None, limit) for end, limit in zip(ends, INT16, strict=True)) and self.leaving("", "") != []

    def leaving(self, free: str, total: str) -> list[str]:
        """Return the value before its clamp and the sum, where either can leave int16."""
        low, high = self.sink.reaches[0] + self.others[0], self.sink.reaches[1] + self.others[1]
        stays = (self.sink.low, self.sink.high) == (None, None) and low >= INT16[0] and high <= INT16[1]
        return [] if stays else [free, total]


def _score(program: Program, step: Step):
    conv = step.convs[0]
    x = program.network.tensors[conv.input]
    source = None if step.source is None else form_of(step.source, step.input.tensor.low, step.input.tensor.high)
    zero = one_or_each(x.zero)
    bits = conv.weight_bits == 1
    weights = np.packbits(conv.weights.ravel() > 0, bitorder="little") if bits else conv.weights.ravel()
    fields = [Field("uint8_t" if bits else "int8_t", "weights", weights)]
    fields.append(Field("int32_t" if isinstance(zero, int) else "uint8_t", "zero", zero))
    fields += source.fields("source") if source else []
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
        fields += form.fields(name)
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
            total, f"(o < {step.other.channels}u ? (int32_t){other} : 0)" if padded else f"(int32_t){other}"
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
    return "requantise", "requantise.c.in", form.fields("own"), values


def _add(program: Program, step: Step):
    a, b = step.input.tensor, step.other.tensor
    value = sum_of_streams("(int32_t)in[i]", (a.low, a.high), "(int32_t)other[i]", (b.low, b.high))
    values = dict(values=step.writes.row * step.writes.height, other_type=step.other.ctype, value=value)
    return "add_streams", "add_streams.c.in", [], values


def _pool(program: Program, step: Step):
    node, x, y = step.nodes[0], step.input, step.writes
    values = dict(
        title=f"{x.channels} x {x.height} x {x.width} to {y.channels} x {y.height} x {y.width}",
        kind=node.kind,
        top=node.padding[0],
        left=node.padding[1],
        row=x.row,
        channels=x.channels,
        stored=y.channels,
        height=x.height,
        width=x.width,
        rows=y.height,
        columns=y.width,
    )
    return "pool", "pool.c.in", [], values


def _sum(program: Program, step: Step):
    x = step.input
    return "sum", "sum.c.in", [], dict(channels=x.channels, height=x.height, width=x.width)


_KINDS = {"Score": _score, "Multiply": _multiply, "Requantise": _requantise, "Add": _add, "Pool": _pool, "Sum": _sum}
