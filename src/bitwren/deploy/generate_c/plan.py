"""The choice of steps, tables and places: as few instructions as the arena allows, and as small an arena as pays.

For an arena of any size each step takes the quickest of its forms that fits beside the tensors that are alive; what is
chosen is the size of the arena. `OBJECTIVES` says by what.
"""

import bisect
import dataclasses
import itertools
from collections.abc import Iterator, Sequence

from bitwren.deploy.generate_c import cost
from bitwren.deploy.generate_c.arena import Buffer, needed, place
from bitwren.deploy.generate_c.geometry import geometry_of
from bitwren.deploy.generate_c.lookup import Lookup, in_window, lookups
from bitwren.deploy.generate_c.steps import (
    Step,
    Stored,
    halvable,
    halved_bytes,
    inner_of,
    is_pixels,
    joinable,
    joined,
    reader_counts,
    steps_of,
    stored,
)
from bitwren.errors import ModelError
from bitwren.network.graph import Network

WIDEST_TILES = (8, 4)  # words of sums that a processor's registers hold: of 13 to 16 registers, of 8
STATE = 12  # bytes: what is kept between two rows of the picture
SLOWEST = 2.0  # of --optimise memory: instructions against those of --optimise speed


@dataclasses.dataclass(frozen=True, eq=False)
class Form:
    """One way to do a step. lookups: its convolutions'. scratch: bytes by name. instructions: estimated, Cortex-M4."""

    step: Step
    lookups: tuple[Lookup, ...]
    scratch: tuple[tuple[str, int], ...]
    instructions: float

    @property
    def bytes(self) -> int:
        """Bytes of the scratch."""
        return sum(size for _, size in self.scratch)


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """The forms of a network's steps, in the order in which they run, and where everything lies.

    tensors: place of each stored tensor. scratch: for each step, the place of each of its buffers. arena: bytes.
    by_rows: whether the first step takes the picture row by row, so that the pixels are not stored. compact: whether
    the convolutions share functions where they can.
    """

    forms: tuple[Form, ...]
    tensors: dict[str, int]
    scratch: tuple[dict[str, int], ...]
    arena: int
    by_rows: bool
    compact: bool

    @property
    def instructions(self) -> float:
        """The estimate for a picture, Cortex-M4."""
        return sum(form.instructions for form in self.forms)


def plan(network: Network, optimise: str = "speed") -> Plan:
    """Return the plan of a network. optimise: a key of OBJECTIVES. Raises ModelError where a step cannot be done."""
    pieces, by_rows = _Pieces(network).all()
    limits = sorted({limit for variants in pieces for variant in variants for limit in variant.limits()})
    results = []
    for limit in limits:
        best = [min((v.best(limit) for v in variants), key=lambda found: found[0]) for variants in pieces]
        instructions = sum(one[0] for one in best)
        if instructions < float("inf"):
            results.append((limit, instructions, [choice for _, choices in best for choice in choices]))
    if not results:
        raise ModelError("no plan: the tables of a convolution do not fit")
    limit, _, choices = OBJECTIVES[optimise](results)
    return _placed(_alike(choices, limit), by_rows, optimise == "size")


def _alike(choices: list["_Choice"], limit: int) -> list[Form]:
    """Return the forms chosen, the same for steps of the same shape: they then share their code."""
    groups: dict[tuple, list[_Choice]] = {}
    for choice in choices:
        step = choice.form.step
        shape = tuple(
            (v.geometry.channels, v.geometry.rows, v.geometry.columns, v.geometry.filters, v.geometry.stride, v.sums)
            for v in choice.form.lookups
        )
        groups.setdefault((step.kind, shape or id(step)), []).append(choice)
    chosen: dict[int, Form] = {}
    for members in groups.values():
        fitting = [
            {form.lookups: form for form in one.forms if one.alive + form.bytes <= limit} for one in members
        ]
        common = [lookups for lookups in fitting[0] if all(lookups in forms for forms in fitting)]
        for one, forms in zip(members, fitting, strict=True):
            best = min(common, key=lambda v: forms[v].instructions) if common else one.form.lookups
            chosen[id(one)] = forms[best]
    return [chosen[id(choice)] for choice in choices]


def _quick(results):
    """The least product of instructions and the arena's fourth root: 4 % of arena pay for 1 % of instructions."""
    return min(results, key=lambda r: (r[0] ** 0.25 * r[1], r[0]))


def _small(results):
    """The smallest arena that takes at most SLOWEST times the instructions of the quick plan."""
    most = SLOWEST * _quick(results)[1]
    return min((r for r in results if r[1] <= most), key=lambda r: (r[0], r[1]))


OBJECTIVES = {"speed": _quick, "size": _quick, "memory": _small}


# ------------------------------------------------------------------ forms of a step


def forms_of(step: Step, network: Network) -> list[Form]:
    """Return the ways to do a step, from the smallest to the quickest."""
    if step.kind == "Score":
        return [Form(step, (), (("totals", 4 * step.convs[0].weights.shape[3]),), cost.plain(step))]
    if step.kind == "Halve":
        return [Form(step, (), (("row", 2 * step.also.row),), cost.plain(step))]
    if step.kind not in ("Convolve", "Window"):
        return [Form(step, (), (), cost.plain(step))]
    each = []
    for conv in step.convs:
        x, y = network.tensors[conv.input], network.tensors[conv.name]
        shapes = {
            geometry_of(conv, x.shape, y.shape, widest, shared)
            for widest, shared in itertools.product(WIDEST_TILES, (True, False))
        }
        found = lookups(conv, x, sorted(shapes, key=lambda g: (-g.tile, g.shared)))
        if step.window:
            found = [in_window(conv, x, v) for v in found if x.shape[0] % v.block == 0]
            found = [v for v in found if v is not None]
            each.append(_front(found, lambda v: (*_window_bytes((v,)).values(), cost.window(step, (v,)))))
        else:
            each.append(_front(found, lambda v: (4 * v.table_words, sum(_bytes(v).values()), cost.convolution(v))))
    make = _window if step.window else _convolve
    forms = [make(step, chosen, network) for chosen in itertools.product(*each)]
    return _front(forms, lambda form: (form.bytes, form.instructions))


def _window_bytes(chosen: tuple[Lookup, ...]) -> dict[str, int]:
    """Return the bytes that a Window step needs beside its ring of rows: the convolutions take turns."""
    return {
        "table": max(4 * v.table_words for v in chosen),
        "words": max(4 * v.geometry.words * v.block for v in chosen),
        "places": max(-(-2 * v.segment // 4) * 4 for v in chosen),
        "sums": max(4 * v.sum_words for v in chosen),
    }


def _window(step: Step, chosen: tuple[Lookup, ...], network: Network) -> Form:
    scratch = _window_bytes(chosen)
    if len(chosen) == 2:
        inner = inner_of(step, network)
        scratch["ring"] = -(-chosen[1].geometry.window * inner.row * inner.size // 4) * 4
    return Form(step, chosen, tuple(scratch.items()), cost.window(step, chosen))


def _bytes(v: Lookup) -> dict[str, int]:
    """Return the bytes that a convolution needs beside its table."""
    sizes = {
        "words": 4 * v.geometry.words * v.channels,
        "places": -(-2 * v.places // 4) * 4,
        "sums": 4 * v.geometry.slots * v.sum_words,
    }
    return sizes | ({"last": 4 * v.last_words} if v.last_words else {})


def _convolve(step: Step, chosen: tuple[Lookup, ...], _network: Network) -> Form:
    scratch = [("table", 4 * max(v.table_words for v in chosen))]
    for k, v in enumerate(chosen, 1):
        scratch += [(f"{name}{k}", size) for name, size in _bytes(v).items()]
    return Form(step, chosen, tuple(scratch), cost.convolve(step, chosen))


def _front(items: Sequence, measures) -> list:
    """Return the items that no other beats or equals in every measure, in ascending order of the measures."""
    kept: list[tuple[tuple, object]] = []
    for values, k in sorted((measures(item), k) for k, item in enumerate(items)):
        if not any(all(a <= b for a, b in zip(other, values, strict=True)) for other, _ in kept):
            kept.append((values, items[k]))
    return [item for _, item in kept]


# ------------------------------------------------------------------ tensors


def _may_replace(step: Step, tensor: Stored) -> bool:
    """Return whether a step may write its result over a tensor that it is the last to read."""
    out = step.writes
    same = (out.channels, out.height, out.width) == (tensor.channels, tensor.height, tensor.width)
    if step.kind in ("Requantise", "Add"):
        return same and out.size <= tensor.size
    if step.kind not in ("Convolve", "Window", "Multiply") or is_pixels(tensor):
        return False
    if tensor is step.other and (not same or out.size != tensor.size):
        return False  # else each value is read just before it is written
    if tensor is not step.input:
        return True
    return step.kind != "Multiply" and all(
        (row + 1) * out.row * out.size <= _rows_done(step, row) * tensor.row * tensor.size for row in range(out.height)
    )


def _rows_done(step: Step, row: int) -> int:
    """Return how many rows of its input a step no longer needs when it writes a row of its result."""
    if step.kind == "Convolve":
        for conv in reversed(step.convs):
            row = row * conv.stride - conv.padding[0] + conv.weights.shape[1] - 1
        return min(step.input.height, row + 1)
    first = step.convs[0]
    if len(step.convs) == 2:  # the row between that comes next
        second = step.convs[1]
        row += second.weights.shape[1] - second.padding[0] - 1
    return max(0, min(step.input.height, (row + 1) * first.stride - first.padding[0]))


def _tensor_buffers(steps: Sequence[Step], by_rows: bool) -> tuple[list[Buffer], dict[str, tuple[str, int]]]:
    """Return the buffers of the stored tensors, and of each tensor the name of its buffer and where in it it starts."""
    last_reader = {t.name: k for k, step in enumerate(steps) for t in step.reads}
    parts: dict[str, list[tuple[int, int, int, int]]] = {}  # by the name of the first tensor
    owner: dict[str, tuple[str, int]] = {}

    def add(tensor: Stored, k: int, over: Stored | None, start: int = 0) -> None:
        buffer, before = owner[over.name] if over else (f"tensor:{tensor.name}", 0)  # no node's name has a colon
        owner[tensor.name] = buffer, before + start
        last = last_reader.get(tensor.name, len(steps))
        parts.setdefault(buffer, []).append((k, last, before + start, before + start + tensor.bytes))

    if is_pixels(steps[0].input) and not by_rows:
        add(steps[0].input, 0, None)
    for k, step in enumerate(steps):
        over = [t for t in (step.other, step.input) if t is not None and t.name in owner]
        if step.kind == "Halve":
            add(step.writes, k, step.input)
            add(step.also, k, step.input, halved_bytes(step))
        else:
            add(step.writes, k, next((t for t in over if last_reader[t.name] == k and _may_replace(step, t)), None))
    buffers = [Buffer(name, tuple(each)) for name, each in parts.items()]
    return [*buffers, Buffer("state", ((0, 0, 0, STATE),))], owner


def _placed(forms: list[Form], by_rows: bool, compact: bool) -> Plan:
    steps = [form.step for form in forms]
    buffers, owner = _tensor_buffers(steps, by_rows)
    for k, form in enumerate(forms):
        buffers += [Buffer(f"{k}.{name}", ((k, k, 0, size),)) for name, size in form.scratch]
    places, top = place(buffers, len(steps) + 1)
    scratch = [{name: places[f"{k}.{name}"] for name, _ in form.scratch} for k, form in enumerate(forms)]
    scratch[0]["state"] = places["state"]
    tensors = {name: places[buffer] + start for name, (buffer, start) in owner.items()}
    return Plan(tuple(forms), tensors, tuple(scratch), top, by_rows, compact)


# ------------------------------------------------------------------ pieces


@dataclasses.dataclass(frozen=True, eq=False)
class _Choice:
    """The form chosen for a step, among which, and the bytes of tensors that are alive beside it."""

    alive: int
    forms: list[Form]
    form: Form


@dataclasses.dataclass(frozen=True)
class _Variant:
    """A way to do a piece of the network. forms: of each of its steps. alive: bytes of tensors alive in each."""

    alive: tuple[int, ...]
    forms: tuple[list[Form], ...]

    def best(self, limit: int) -> tuple[float, list[_Choice]]:
        """Return the fewest instructions in an arena of `limit` bytes, infinite where nothing fits, and the choices."""
        chosen = []
        for alive, forms in zip(self.alive, self.forms, strict=True):
            fitting = bisect.bisect_right(forms, limit - alive, key=lambda form: form.bytes)
            if not fitting:
                return float("inf"), []
            chosen.append(_Choice(alive, forms, forms[fitting - 1]))  # the larger is the quicker
        return sum(choice.form.instructions for choice in chosen), chosen

    def limits(self) -> Iterator[int]:
        """Yield the sizes of the arena at which another form begins to fit."""
        for alive, forms in zip(self.alive, self.forms, strict=True):
            for form in forms:
                yield alive + form.bytes


class _Pieces:
    """A network in pieces that can be planned apart: a step, or the steps of two convolutions that can be joined."""

    def __init__(self, network: Network):
        self.network, self.base = network, steps_of(network)
        first = self.base[0]
        others = [t for step in self.base for t in step.reads if is_pixels(t)]
        self.by_rows = first.kind == "Convolve" and is_pixels(first.input) and len(others) == 1

    def all(self) -> tuple[list[list[_Variant]], bool]:
        """Return the variants of each piece, and whether the first step takes the picture row by row."""
        base, pieces, k = self.base, [], 0
        counts = reader_counts(base)
        while k < len(base):
            end = self.partner(k, counts)
            ways = [base[k : end + 1]]
            if end > k:
                ways += self.as_one(base[k], base[k + 1 : end], base[end])
            others = self.more(k, ways)
            pieces.append([self.variant([*base[:k], *way, *base[end + 1 :]], k, k + len(way)) for way in others])
            k = end + 1
        return pieces, self.by_rows

    def more(self, k: int, ways: list[list[Step]]) -> Iterator[list[Step]]:
        """Yield the ways to do a piece, and each with its convolutions done window by window."""
        for way in ways:
            yield way
            if any(step.kind == "Convolve" for step in way) and not (k == 0 and self.by_rows):
                yield [dataclasses.replace(s, window=True) if s.kind == "Convolve" else s for s in way]

    def partner(self, k: int, counts: dict[str, int]) -> int:
        """Return the step that can be joined to step k, with no other convolution between; k where there is none."""
        if k == 0 and self.by_rows:
            return k
        for end in range(k + 1, len(self.base)):
            if joinable(self.base[k], self.base[end], counts):
                return end
            if self.base[end].convs or self.base[end].input is self.base[k].writes:
                break
        return k

    def variant(self, steps: list[Step], start: int, end: int) -> _Variant:
        alive = needed(_tensor_buffers(steps, self.by_rows)[0], len(steps))
        return _Variant(tuple(alive[start:end]), tuple(forms_of(step, self.network) for step in steps[start:end]))

    def as_one(self, first: Step, between: list[Step], second: Step) -> Iterator[list[Step]]:
        """Yield the ways to join two convolutions.

        As they are; with the codes made first, over a stream that nothing else needs; with the stream halved in place.
        """
        both = joined(first, second)
        yield [*between, both]
        if both.source is None or not between:
            return
        codes = stored(both.source.name, self.network.tensors[both.source.name])
        rest = tuple(node for node in both.nodes if node is not both.source)
        after = dataclasses.replace(both, nodes=rest, input=codes, source=None)
        yield [*between, Step((both.source,), both.input, codes), after]
        if len(between) == 1 and halvable(between[0], both, codes):
            nodes = (both.source, *between[0].nodes)
            yield [Step(nodes, both.input, codes, source=both.source, also=between[0].writes), after]
