"""C of a Convolve step: read a row, look up its sums, finish the rows that are complete, one or two convolutions."""

from bitwren.deploy.generate_c import kernels
from bitwren.deploy.generate_c.constants import Field
from bitwren.deploy.generate_c.emit_plain import one_or_each
from bitwren.deploy.generate_c.forms import Form as RequantiseForm
from bitwren.deploy.generate_c.forms import form_of
from bitwren.deploy.generate_c.lookup import centres_of
from bitwren.deploy.generate_c.plan import Form
from bitwren.deploy.generate_c.program import NAME, Code, Program
from bitwren.deploy.generate_c.sink import Sink
from bitwren.deploy.generate_c.stage import Stage
from bitwren.deploy.generate_c.steps import Stored, is_pixels
from bitwren.deploy.generate_c.template import render


def convolve(program: Program, form: Form, tensors: dict[str, int], scratch: dict[str, int], by_rows: bool) -> Code:
    """Return the code of a Convolve step; its kernels are added to the program. by_rows: the pixels come row by row."""
    return _Rotating(program, form, tensors, scratch, by_rows).code()


class Convolving:
    """What both ways to do a Convolve step share: constants, and the functions that read and finish rows."""

    def __init__(self, program: Program, form: Form, tensors: dict[str, int], scratch: dict[str, int], by_rows: bool):
        self.program, self.form, self.tensors, self.scratch, self.by_rows = program, form, tensors, scratch, by_rows
        self.step = step = form.step
        known = program.network.tensors
        low, high = step.input.tensor.low, step.input.tensor.high
        self.source = None if step.source is None else form_of(step.source, low, high)
        sums = [known[conv.name] for conv in step.convs]
        self.middle = None if step.middle is None else form_of(step.middle, sums[0].low, sums[0].high)
        self.sink = Sink(step, sums[-1])
        self.zero = one_or_each(known[step.convs[0].input].zero)
        count = len(form.lookups)
        self.stages = [Stage(i, v, i == count) for i, v in enumerate(form.lookups, 1)]

    def read(self, i: int, source: RequantiseForm | None, input: Stored, by_blocks: bool, words: str) -> str:
        """Return the function that makes words of a row of what the i-th convolution reads.

        by_blocks: of a block of channels at a time. words: which buffer of words.
        """
        v, g = self.form.lookups[i - 1], self.form.lookups[i - 1].geometry
        zero = self.zero if i == 1 else int(self.step.middle.zero)
        before, each = (source.before("source"), source.each("source", "c")) if source else ([], [])
        name = "zero" if i == 1 else f"zero{i}"
        if isinstance(zero, int):
            before += _zero_lines(g.sources, f"k->{name}")
        else:
            each += _zero_lines(g.sources, f"k->{name}[c]")
        pixels = is_pixels(input)
        return render(
            "read.c.in",
            name=NAME,
            title=f"A row of {v.block if by_blocks else g.channels} x {g.width}",
            i=i,
            input_type=input.ctype,
            by_blocks=by_blocks,
            words=words,
            channels=v.block if by_blocks else g.channels,
            padded=v.block if by_blocks else v.channels,
            pixel_step=g.channels if pixels else 1,
            channel_step=1 if pixels else g.width,
            before=before,
            each=each,
            runs=g.sources,
            value=lambda x: source.value("source", x) if source else f"(int32_t){x}",
            uses_k=uses_k,
            after=after,
        )

    def finish(self, stage: Stage, sink: Sink, out: str, target: str) -> str:
        """Return the function that writes finished sums of a tile to a tensor's row, at the state's pointer `out`."""
        return render(
            "finish.c.in",
            name=NAME,
            c=stage,
            target=target,
            out=out,
            output_type=sink.step.writes.ctype,
            other=sink.step.other,
            before=[line for form, name in sink.forms for line in form.before(name)],
            each=[line for form, name in sink.forms for line in form.each(name, "o")],
            nothing=sink.some_missing(stage.g.filters),
            pair=sink.pair,
            value=sink.value,
            uses_k=uses_k,
        )

    def constants(self) -> list[Field]:
        """Return the weights, the zero points and the constants of the requantises."""
        step, fields, known = self.step, [], self.program.network.tensors
        for i, (v, conv) in enumerate(zip(self.form.lookups, step.convs, strict=True), 1):
            unit = kernels.unit(self.program, v)
            fields.append(Field(f"uint{unit}_t", f"weights{i}", v.packed(conv.weights, unit)))
            if v.last_words:
                fields.append(Field("int8_t", f"centres{i}", centres_of(conv, known[conv.input])))
        fields.append(Field("uint32_t" if isinstance(self.zero, int) else "uint8_t", "zero", self.zero))
        for form, name in ((self.source, "source"), (self.middle, "middle"), *self.sink.forms):
            fields += form.fields(name, self.program.offsets) if form else []
        return fields

    def places(self, buffers: list[tuple[str, str]]) -> tuple[list[Field], list[tuple[str, str, str]]]:
        """Return where the tensors and the scratch buffers (name, type) lie, and (pointer, field, type) of each."""
        step, tensors = self.step, self.tensors
        places = [] if self.by_rows else [("in", tensors[step.input.name], step.input.ctype)]
        places.append(("out", tensors[step.writes.name], step.writes.ctype))
        if step.other is not None:
            places.append(("other", tensors[step.other.name], step.other.ctype))
        places += [(name, self.scratch[name], ctype) for name, ctype in buffers]
        fields = [self.program.place(name, at) for name, at, _ in places]
        return fields, [(name, f"{name}_at", ctype) for name, _, ctype in places]


def uses_k(lines: list[str]) -> bool:
    """Return whether statements read the step's constants."""
    return any("k->" in line for line in lines)


def after(distance: int, suffix: str = "") -> str:
    """Return what stands behind a place in C for one so many further on."""
    return f" + {distance}{suffix}" if distance else ""


def _zero_lines(runs: list[tuple], zero: str) -> list[str]:
    """Return the statements that give the zero point, once and in both lanes, those that the runs of words need."""
    both = any(low is not None and high is not None for _, low, high in runs)
    one = any((low is None) != (high is None) for _, low, high in runs)
    lines = [f"const uint32_t zero = {zero};"]
    if both:
        lines.append("const uint32_t zeros = zero + (zero << 16);")
    return lines if both or one else []


class _Rotating(Convolving):
    """Each input row is read once and added to all rows of sums that it belongs to."""

    def code(self) -> Code:
        step, stages = self.step, self.stages
        buffers = [("table", "uint32_t")]
        for i, stage in enumerate(stages, 1):
            buffers += [(f"words{i}", "uint32_t"), (f"places{i}", "uint16_t"), (f"sums{i}", stage.sum_type)]
            buffers += [(f"last{i}", stage.sum_type)] if stage.v.last_words else []
        fields, pointers = self.places(buffers)
        if self.by_rows:
            fields.append(self.program.place("state", self.scratch["state"]))
        fields += self.constants()
        if self.middle:
            zero = int(step.middle.zero)
            fields.append(Field("uint32_t", "middle_zeros", zero + (zero << 16)))
        advance = [f"s->out += {step.writes.row};"]
        advance += [f"s->other += {step.other.row};"] if step.other is not None else []
        following = ["@NAME@_sides(s->words2);", "@NAME@_push2(s);"]
        next_v = stages[-1].v
        text = render(
            "convolve.c.in",
            name=NAME,
            fields=fields,
            pointers=pointers,
            by_rows=self.by_rows,
            input_type=step.input.ctype,
            output_type=step.writes.ctype,
            other=step.other,
            stages=list(enumerate(stages, 1)),
            geometry=stages[0].g,
            read=self.read(1, self.source, step.input, False, "1"),
            finish=self.finish(stages[-1], self.sink, "out", "the result's row"),
            middle_before=self.middle.before("middle") if self.middle else [],
            middle_each=self.middle.each("middle", "o") if self.middle else [],
            middle_value=lambda x: self.middle.value("middle", x),
            next_padded=next_v.channels,
            next_left=next_v.geometry.left * next_v.channels,
            sides=self.sides(),
            tables=[kernels.table(self.program, stage.v) for stage in stages],
            adds=[kernels.add(self.program, stage.v) for stage in stages],
            decodes=[kernels.decode(self.program, s.v, s.v.blocks * s.v.geometry.window) for s in stages],
            advance=[advance] if len(stages) == 1 else [following, advance],
            after=after,
            reversed=lambda items: list(reversed(items)),
        )
        return Code("convolve", text, fields)

    def sides(self) -> list[tuple[str, int, int, int]]:
        """Return what is left to do for the words that one convolution leaves the next: (kind, start, count, source).

        In 32-bit words of the buffer: "high" takes its high lane from the low one of the source, "low" its low lane
        from the high one, "odd" loses its high lane, a column past the last.
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
            last = runs[-1] if runs else None
            if last and last[0] == kind and last[1] + last[2] == word and source - word == last[3] - last[1]:
                last[2] += 1
            else:
                runs.append([kind, word, 1, source])
        return [(kind, word * step, count * step, source * step) for kind, word, count, source in runs]
