"""C of a Convolve step in little memory: row after row of the result, its window's rows looked up anew each time.

No row of sums waits for input, and lists of places and tables are made for a block of channels and one row of the
window at a time. Between two convolutions lie as many rows as the second one's window has.
"""

import dataclasses

from bitwren.deploy.generate_c import kernels
from bitwren.deploy.generate_c.constants import Field
from bitwren.deploy.generate_c.emit_convolve import Convolving
from bitwren.deploy.generate_c.plan import Form
from bitwren.deploy.generate_c.program import NAME, Code, Program
from bitwren.deploy.generate_c.sink import Sink
from bitwren.deploy.generate_c.stage import Stage
from bitwren.deploy.generate_c.steps import inner_of
from bitwren.deploy.generate_c.template import render


def window(program: Program, form: Form, tensors: dict[str, int], scratch: dict[str, int]) -> Code:
    """Return the code of a Convolve step that is done window by window, its kernels being added to the program."""
    return _Windowed(program, form, tensors, scratch, False).code()


class _Windowed(Convolving):
    def code(self) -> Code:
        step = self.step
        self.stages = stages = [Stage(i, v, True) for i, v in enumerate(self.form.lookups, 1)]
        buffers = [("table", "uint32_t"), ("words", "uint32_t"), ("places", "uint16_t")]
        texts = [self.read(1, self.source, step.input, True, "")]
        values = {}
        constants = self.constants()
        if len(stages) == 2:
            inner = inner_of(step, self.program.network)
            buffers.append(("ring", inner.ctype))
            first = dataclasses.replace(step, writes=inner, sink=step.middle, add=None, other=None, adjust=None)
            between = Sink(first, self.program.network.tensors[step.convs[0].name], "middle")
            texts.append(self.finish(stages[0], between, "inner", "a row of the ring"))
            texts.append(self.read(2, None, inner, True, ""))
            constants.append(Field("uint32_t", "zero2", int(step.middle.zero)))
            values = dict(inner_type=inner.ctype, inner_row=inner.row, ring_rows=stages[1].g.window)
        texts.append(self.finish(stages[-1], self.sink, "out", "the result's row"))
        for stage in stages:
            v = stage.v
            unit = kernels.unit(self.program, v)
            stage.unit_type, stage.units = f"uint{unit}_t", v.segment_bytes * 8 // unit
            stage.table = kernels.table(self.program, dataclasses.replace(v, blocks=1))
            stage.add = kernels.add(self.program, v)
            stage.decode = kernels.decode(self.program, v, 1)
            stage.clears = any(low is None and high is None for _, low, high in v.geometry.sources)
        fields, pointers = self.places(buffers)
        fields.append(self.program.place("sums", self.scratch["sums"]))
        pointers += [(f"sums{i}", "sums_at", stage.sum_type) for i, stage in enumerate(stages, 1)]
        fields += constants
        text = render(
            "window.c.in",
            name=NAME,
            fields=fields,
            pointers=pointers,
            input_type=step.input.ctype,
            output_type=step.writes.ctype,
            other=step.other,
            stages=list(enumerate(stages, 1)),
            texts=texts,
            input_row=step.input.row,
            output_row=step.writes.row,
            **values,
        )
        return Code("window", text, fields)
