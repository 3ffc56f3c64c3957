"""C of a Convolve step: read a row, look up its sums, finish the rows that are complete, one or two convolutions."""

from bitwren.deploy.generate_c.constants import Field
from bitwren.deploy.generate_c.emit_plain import Sink, one_or_each
from bitwren.deploy.generate_c.forms import form_of
from bitwren.deploy.generate_c.lookup import Lookup
from bitwren.deploy.generate_c.plan import Form
from bitwren.deploy.generate_c.program import Code, Program, times
from bitwren.deploy.generate_c.steps import is_pixels
from bitwren.deploy.generate_c.template import render
from bitwren.network.graph import INT16

FEW = 4  # words of sums at once where a processor has 8 registers


def convolve(program: Program, form: Form, tensors: dict[str, int], scratch: dict[str, int], by_rows: bool) -> Code:
    """Return the code of a Convolve step, its kernels being added to the program. by_rows: the pixels come row by row."""
    return _Convolve(program, form, tensors, scratch, by_rows).code()


class _Stage:
    """What the template asks about one convolution."""

    def __init__(self, owner: "_Convolve", i: int, v: Lookup):
        self.owner, self.i, self.v, self.g = owner, i, v, v.geometry
        self.last = i == len(owner.form.lookups)
        self.sum_type = _sum_type(v)
        self.per_filter = v.geometry.tile * (2 if v.wide else 1)
        g = self.g
        self.full = g.lanes == g.tiles * g.tile
        self.uneven = g.columns != 2 * g.lanes and self.last
        if self.uneven:
            self.full = False
        self.title = f"{g.channels} x {g.height} x {g.width} to {g.filters} x {g.rows} x {g.columns}"
        self.table, self.add, self.decode = owner.kernels(v)
        next_stage = owner.form.lookups[i] if not self.last else None
        self.next_left = next_stage.geometry.left * next_stage.channels if next_stage else 0

    # ------------------------------------------------------------ columns of a tile

    @property
    def tile_parameter(self) -> str:
        return ", uint32_t x" if self.g.tiles > 1 and (self.last or not self.full) else ""

    @property
    def tile_index(self) -> str:
        return " + x" if self.g.tiles > 1 else ""

    @property
    def lows(self) -> str:
        g = self.g
        if g.tiles == 1:
            return f"{g.lanes}u"
        return f"x + {g.tile}u > {g.lanes}u ? {g.lanes}u - x : {g.tile}u" if g.lanes % g.tile else f"{g.tile}u"

    @property
    def highs(self) -> str:
        g = self.g
        rest = g.columns - g.lanes  # columns of the right half
        if g.tiles == 1:
            return f"{rest}u"
        return f"x + {g.tile}u > {rest}u ? {rest}u - x : {g.tile}u"

    @property
    def low_count(self) -> str:
        return f"{self.g.tile}u" if self.full else "lows"

    @property
    def high_count(self) -> str:
        return "highs" if self.uneven else self.low_count

    @property
    def low_sum(self) -> str:
        if self.v.wide:
            return "sums[j]"
        return "low_lane(pair) + low_lane(more)" if self.v.last_words else "low_lane(pair)"

    @property
    def high_sum(self) -> str:
        if self.v.wide:
            return f"sums[j + {self.g.tile}]"
        return "high_lane(pair) + high_lane(more)" if self.v.last_words else "high_lane(pair)"

    # ------------------------------------------------------------ rows

    def slot(self, ahead: int) -> str:
        s, words, n = f"s->sums{self.i}", self.v.sum_words, self.g.slots
        if n == 1:
            return s
        turn = f"s->turn{self.i}"
        ahead %= n
        if n == 2:
            return f"{s} + ({turn} == {ahead}u ? 0u : {words}u)"
        at = f"{turn} + {ahead}u" if ahead else turn
        if ahead:
            at = f"({turn} < {n - ahead}u ? {turn} + {ahead}u : {turn} - {n - ahead}u)"
        return f"{s} + @NAME@_slots{self.i}[{at}]"

    @property
    def rows(self) -> list[tuple]:
        """(window row u, pointer to its sums, condition, arguments where the sums come from), the last u first."""
        found = []
        for u in range(self.g.window - 1, -1, -1):
            condition = self.condition(u)
            if condition is not None:
                found.append((u, self.pointer(u), condition, self.starts(u)))
        return found

    @property
    def rows_used(self) -> list[int]:
        """The rows of sums, by how far ahead they lie, that a pointer is needed for."""
        used = {self.g.slot_ahead(u) % self.g.slots for u, _, _, _ in self.rows}
        return sorted(used)

    def pointer(self, u: int) -> str:
        if self.v.last_words and u == self.g.window - 1:
            return f"s->last{self.i}"
        return f"row{self.g.slot_ahead(u) % self.g.slots}"

    def condition(self, u: int) -> str | None:
        """Return when input row y meets window row u of a row of the result; None where never."""
        g = self.g
        met = [y for y in range(g.height) if (y + g.top - u) % g.stride == 0 and 0 <= (y + g.top - u) // g.stride < g.rows]
        if not met:
            return None
        parts = []
        if g.stride == 2 and g.height > 1:
            parts.append(f"(y & 1u) == {met[0] % 2}u")
        if met[0] >= g.stride:
            parts.append(f"y >= {met[0]}u")
        elif met[0] and g.stride == 1:
            parts.append("y != 0u")
        if met[-1] + g.stride < g.height:
            parts.append(f"y <= {met[-1]}u")
        elif met[-1] + 1 < g.height and g.stride == 1:
            parts.append(f"y != {g.height - 1}u")
        return " && ".join(parts) or "1"

    def starts(self, u: int):
        """Return a function that gives the arguments `from, step` of an addition, given when a block is the first."""
        g, per = self.g, self.per_filter
        at = self.pointer(u)
        none = "no_sums" if self.v.wide else "no_pairs"
        fresh = u == 0 or at.startswith("s->last")

        def arguments(block: str) -> str:
            if fresh:
                when = block
            elif u <= g.top and (g.top - u) % g.stride == 0:
                when = f"y == 0u && {block}" if block else "y == 0u"
            else:
                return f"{at}, {per}"
            if not when:
                return f"{none}, 0u"
            return f"{when} ? {none} : {at}, {when} ? 0u : {per}u" if "&&" not in when else (
                f"({when}) ? {none} : {at}, ({when}) ? 0u : {per}u"
            )

        return arguments

    @property
    def completes(self) -> str | None:
        return self.condition(self.g.window - 1)

    @property
    def turn_parity(self) -> int:
        return (self.g.top - self.g.window) % 2

    @property
    def finish(self) -> str:
        x = ", x" if self.tile_parameter else ""
        if self.last:
            return f"@NAME@_finish{self.i}(s, row0{x});"
        return f"@NAME@_finish{self.i}(s, row0, to{x});"

    @property
    def advance(self) -> list[str]:
        if not self.last:
            return ["@NAME@_sides(s->words2);", "@NAME@_push2(s);"]
        lines = [f"s->out += {self.owner.form.step.writes.row};"]
        if self.owner.form.step.other is not None:
            lines.append(f"s->other += {self.owner.form.step.other.row};")
        return lines


class _Convolve:
    def __init__(self, program: Program, form: Form, tensors: dict[str, int], scratch: dict[str, int], by_rows: bool):
        self.program, self.form, self.tensors, self.scratch, self.by_rows = program, form, tensors, scratch, by_rows
        step = form.step
        known = program.network.tensors
        self.source = None if step.source is None else form_of(step.source, step.input.tensor.low, step.input.tensor.high)
        self.sums = [known[conv.name] for conv in step.convs]
        self.middle = None if step.middle is None else form_of(step.middle, self.sums[0].low, self.sums[0].high)
        self.sink = Sink(step, self.sums[-1])
        self.stages = [_Stage(self, i, v) for i, v in enumerate(form.lookups, 1)]

    def code(self) -> Code:
        step, stages = self.form.step, self.stages
        first = stages[0]
        fields, pointers = self.fields()
        text = render(
            "convolve.c.in",
            name="@NAME@",
            fields=fields,
            pointers=pointers,
            by_rows=self.by_rows,
            input_type=step.input.ctype,
            output_type=step.writes.ctype,
            other=step.other,
            stages=list(enumerate(stages, 1)),
            geometry=first.g,
            padded=first.v.channels,
            pixel_step=first.g.channels if is_pixels(step.input) else 1,
            channel_step=1 if is_pixels(step.input) else first.g.width,
            source_before=self.source_before(),
            source_each=self.source_each(),
            source_runs=first.g.sources,
            source_value=lambda x: self.source.value("source", x) if self.source else f"(int32_t){x}",
            middle_before=self.middle.before("middle") if self.middle else [],
            middle_each=self.middle.each("middle", "o") if self.middle else [],
            middle_value=lambda x: self.middle.value("middle", x),
            next_padded=stages[-1].v.channels,
            sides=self.sides(),
            uses_k=lambda lines: any("k->" in line for line in lines),
            sink_before=[line for form, name in self.sink.forms for line in form.before(name)],
            sink_each=[line for form, name in self.sink.forms for line in form.each(name, "o")],
            sink_parts=self.sink_parts(),
            sink_value=self.sink_value,
            sink_pair=self.sink_pair,
            reversed=lambda items: list(reversed(items)),
        )
        return Code("convolve", text, fields)

    def zeros(self):
        """Return the zero point of what the first convolution reads: a number, or one for each channel."""
        return one_or_each(self.program.network.tensors[self.form.step.convs[0].input].zero)

    def source_before(self) -> list[str]:
        lines = self.source.before("source") if self.source else []
        if isinstance(self.zeros(), int):
            lines += self.zero_lines("k->zero")
        return lines

    def source_each(self) -> list[str]:
        lines = self.source.each("source", "c") if self.source else []
        if not isinstance(self.zeros(), int):
            lines += self.zero_lines("k->zero[c]")
        return lines

    def zero_lines(self, zero: str) -> list[str]:
        """Return the statements that give the zero point, once and in both lanes, those that the runs of words need."""
        runs = self.stages[0].g.sources
        both = any(low is not None and high is not None for _, low, high in runs)
        one = any((low is None) != (high is None) for _, low, high in runs)
        lines = [f"const uint32_t zero = {zero};"]
        if both:
            lines.append("const uint32_t zeros = zero + (zero << 16);")
        return lines if both or one else []

    def fields(self) -> tuple[list[Field], list[tuple[str, str, str]]]:
        """Return the constants, and the pointers to set when a step opens: (of the state, of the struct, type)."""
        step, scratch = self.form.step, self.scratch
        fields, pointers = [], []

        def place(name: str, at: int, ctype: str, pointer: str | None = None) -> None:
            fields.append(Field("uint32_t", f"{name}_at", at))
            pointers.append((pointer or name, f"{name}_at", ctype))

        if not self.by_rows:
            place("in", self.tensors[step.input.name], step.input.ctype)
        place("out", self.tensors[step.writes.name], step.writes.ctype)
        if step.other is not None:
            place("other", self.tensors[step.other.name], step.other.ctype)
        place("table", scratch["table"], "uint32_t")
        for i, stage in enumerate(self.stages, 1):
            place(f"words{i}", scratch[f"words{i}"], "uint32_t")
            place(f"places{i}", scratch[f"places{i}"], "uint16_t")
            place(f"sums{i}", scratch[f"sums{i}"], stage.sum_type)
            if stage.v.last_words:
                place(f"last{i}", scratch[f"last{i}"], stage.sum_type)
        if self.by_rows:
            fields.append(Field("uint32_t", "state_at", scratch["state"]))
        for i, (stage, conv) in enumerate(zip(self.stages, step.convs, strict=True), 1):
            unit = f"uint{stage.v.unit or 8}_t"
            fields.append(Field(unit, f"weights{i}", stage.v.packed(conv.weights)))
        zeros = self.zeros()
        fields.append(Field("uint32_t" if isinstance(zeros, int) else "uint8_t", "zero", zeros))
        for form, name in ((self.source, "source"), (self.middle, "middle"), *self.sink.forms):
            fields += form.fields(name) if form else []
        if self.middle:
            zero = int(step.middle.zero)
            fields.append(Field("uint32_t", "middle_zeros", zero + (zero << 16)))
        return fields, pointers

    def sink_parts(self) -> list[tuple[int, int, bool]]:
        """Return (filters, first of them, whether there is something to add): a pool's new channels are 0."""
        filters, other = self.stages[-1].g.filters, self.form.step.other
        if other is None:
            return [(filters, 0, False)]
        return [(other.channels, 0, True)] + ([(filters - other.channels, other.channels, False)] if filters > other.channels else [])

    def sink_value(self, value: str, other: str, added: bool) -> str:
        return self.sink.value(value, f"(int32_t){other}" if added else "0")

    def sink_pair(self, low: str, high: str, right: int, added: bool) -> list[str]:
        """Return the statements that give both pixels of a word. low, high: C expressions of their sums."""
        ctype, sink = self.form.step.writes.ctype, self.sink
        others = ["(int32_t)other[j]", f"(int32_t)other[j + {right}]"] if added else ["0", "0"]
        if not sink.seldom_clamps:
            values = [sink.value(total, other) for total, other in zip((low, high), others, strict=True)]
            return [f"out[j] = ({ctype}){values[0]};", f"out[j + {right}] = ({ctype}){values[1]};"]
        lines, leaving = [], []
        for side, total, other in zip(("left", "right"), (low, high), others, strict=True):
            lines.append(f"const int32_t {side} = {sink.sink.free('sink', total)};")
            lines.append(f"int32_t {side}_sum = {side} + {sink.term(other)};")
            leaving += sink.leaving(side, f"{side}_sum")
        clamps = [
            f"{side}_sum = clamp(clamp({side}, {INT16[0]}, {INT16[1]}) + {sink.term(other)}, {INT16[0]}, {INT16[1]});"
            for side, other in zip(("left", "right"), others, strict=True)
        ]
        return [
            *lines,
            "",
            f"if (({' | '.join(f'from_int16({name})' for name in leaving)}) > 0xFFFFu) {{ /* seldom */",
            *(f"    {clamp}" for clamp in clamps),
            "}",
            f"out[j] = ({ctype})left_sum;",
            f"out[j + {right}] = ({ctype})right_sum;",
        ]

    def sides(self) -> list[tuple[str, int, int, int]]:
        """Return what is left to do for the words that one convolution leaves the next: (kind, start, count, source).

        In 32-bit words of the buffer: "high" takes its high lane from the low one of the source, "low" its low lane from
        the high one, "odd" loses its high lane, a column past the last.
        """
        if len(self.stages) == 1:
            return []
        before, after = self.stages[0].g, self.stages[1].g
        step, lanes, left = self.stages[1].v.channels, before.lanes, after.left
        done = []
        for word in range(after.read_words):
            low, high = (word - left, word - left + lanes)
            low_in, high_in = 0 <= low < before.columns, 0 <= high < before.columns
            if 0 <= low < lanes:
                if not high_in:
                    done.append(("odd", word, word))
            elif high_in:
                done.append(("high", word, high + left))
            elif low_in:
                done.append(("low", word, low - lanes + left))
        done.sort(key=lambda item: item[0] == "odd")  # after its high lane was copied: there is none to copy
        runs: list[list] = []
        for kind, word, source in done:
            if runs and runs[-1][0] == kind and runs[-1][1] + runs[-1][2] == word and source - word == runs[-1][3] - runs[-1][1]:
                runs[-1][2] += 1
            else:
                runs.append([kind, word, 1, source])
        return [(kind, word * step, count * step, source * step) for kind, word, count, source in runs]

    def kernels(self, v: Lookup) -> tuple[str, str, str]:
        """Add the tables, the additions and the decoder of a convolution to the program; return their names."""
        return table(self.program, v), add(self.program, v), decode(self.program, v)


def table(program: Program, v: Lookup) -> str:
    """Add the function that makes the tables of a block and a tile; return its name."""
    columns, groups = v.geometry.table_columns, v.groups
    period = next(p for p in range(1, len(groups) + 1) if groups == groups[:p] * (len(groups) // p) and len(groups) % p == 0)
    runs: list[list[int]] = []
    for group in groups[:period]:
        if runs and runs[-1][0] == group:
            runs[-1][1] += 1
        else:
            runs.append([group, 1])
    repeats = len(groups) // period
    if len(runs) == 1:
        runs, repeats = [[runs[0][0], len(groups)]], 1
    values = dict(columns=columns, channels=v.channels, block=v.block, groups=groups, runs=runs, repeats=repeats)
    return program.kernel("table", "table.c.in", **values)


def add(program: Program, v: Lookup) -> str:
    """Add the function that looks the sums of a tile up and adds them; return its name."""
    tile = v.geometry.tile
    parts = -(-tile // FEW)
    few = [range(tile * k // parts, tile * (k + 1) // parts) for k in range(parts)]
    values = dict(columns=tile, stride=v.geometry.stride, wide=v.wide, sum_type=_sum_type(v), few=few)
    return program.kernel("add_wide" if v.wide else "add", "add.c.in", **values)


def _sum_type(v: Lookup) -> str:
    return "int32_t" if v.wide else "uint32_t"


def decode(program: Program, v: Lookup) -> str:
    """Add the function that makes lists of places in the tables of a layer's weights; return its name."""
    g, window = v.geometry, v.geometry.window
    bases = [4 + sum(4 * g.table_columns << group >> 1 for group in v.groups[:k]) for k in range(len(v.groups))]
    values = dict(columns=g.table_columns, groups=v.groups, unit=v.unit, window=window, times=times, total=v.places)
    if v.unit:
        units, at = [], 0
        for number in range(v.block // v.unit):
            fields, shift = [], 0
            while shift < v.unit:
                fields.append((shift, v.groups[at], bases[at]))
                shift += v.groups[at]
                at += 1
            units.append((number, fields))
        values |= dict(unit_type=f"uint{v.unit}_t", units=units, filters_end=False)
    else:
        fields = list(zip(v.groups, bases, strict=True))
        values |= dict(unit_type="uint8_t", fields=fields, filters=g.filters)
        values |= dict(filters_end=g.filters * window * v.block % 8 != 0)
    return program.kernel("decode", "decode.c.in", **values)
