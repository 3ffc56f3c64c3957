"""What comes after a convolution in its step: a requantise, and another tensor that is added."""

from bitwren.deploy.generate_c.forms import form_of
from bitwren.deploy.generate_c.steps import Step
from bitwren.network.graph import INT16, Tensor


class Sink:
    """What comes after a convolution: a requantise, and perhaps another tensor that is added."""

    def __init__(self, step: Step, sums: Tensor, name: str = "sink"):
        """sums: the range of the convolution's sums. name: of the requantise's constants."""
        self.step, self.name = step, name
        self.sink = None if step.sink is None else form_of(step.sink, sums.low, sums.high)
        other = step.other
        self.adjust = None if step.adjust is None else form_of(step.adjust, other.tensor.low, other.tensor.high)
        self.forms = [(f, name) for f, name in ((self.sink, self.name), (self.adjust, "adjust")) if f is not None]

    def value(self, total: str, other: str) -> str:
        """Return the C expression of the result. other: of the value to add."""
        result = total if self.sink is None else self.sink.value(self.name, total)
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

    def some_missing(self, filters: int) -> bool:
        """Return whether there is nothing to add to the last filters: a pool's new channels are 0."""
        return self.step.other is not None and self.step.other.channels < filters

    def pair(self, low: str, high: str, right: int) -> list[str]:
        """Return the statements that give both pixels of a word. low, high: C expressions of their sums."""
        ctype = self.step.writes.ctype
        others = ["(int32_t)other[j]", f"(int32_t)other[j + {right}u]"]
        if not self.seldom_clamps:
            values = [self.value(total, other) for total, other in zip((low, high), others, strict=True)]
            return [f"out[j] = ({ctype}){values[0]};", f"out[j + {right}u] = ({ctype}){values[1]};"]
        lines, leaving = [], []
        for side, total, other in zip(("left", "right"), (low, high), others, strict=True):
            lines.append(f"const int32_t {side} = {self.sink.free(self.name, total)};")
            lines.append(f"int32_t {side}_sum = {side} + {self.term(other)};")
            leaving += self.leaving(side, f"{side}_sum")
        clamps = [
            f"{side}_sum = clamp(clamp({side}, {INT16[0]}, {INT16[1]}) + {self.term(other)}, {INT16[0]}, {INT16[1]});"
            for side, other in zip(("left", "right"), others, strict=True)
        ]
        return [
            *lines,
            "",
            f"if (({' | '.join(f'from_int16({name})' for name in leaving)}) > 0xFFFFu) {{ /* seldom */",
            *(f"    {clamp}" for clamp in clamps),
            "}",
            f"out[j] = ({ctype})left_sum;",
            f"out[j + {right}u] = ({ctype})right_sum;",
        ]


def sum_of_streams(value: str, reaches: tuple[int, int], other: str, others: tuple[int, int]) -> str:
    """Return the C expression of value + other, clamped to int16 where the ranges say that it can pass it."""
    total = f"{value} + {other}"
    if reaches[0] + others[0] >= INT16[0] and reaches[1] + others[1] <= INT16[1]:
        return f"({total})"
    return f"clamp({total}, {INT16[0]}, {INT16[1]})"
