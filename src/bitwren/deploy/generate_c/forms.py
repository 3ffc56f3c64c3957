"""How a requantise is written in C: which of three forms its constants allow, its constants, its expression.

    shift      (x + offset) >> shift                  one multiplier for all channels, a power of two
    left       (x << shift) + offset                  the same, where nothing is left to shift to the right
    powers     ((x << k) * sign + offset) >> shift    each channel's multiplier a power of two, its negative, or 0
    general    (multiplier * x + offset) >> shift     in 64 bits where 32 do not hold it

All end in a clamp, which is left out where the input's range cannot reach it.
"""

import dataclasses

import numpy as np

from bitwren.deploy.generate_c.constants import Field
from bitwren.network.graph import INT32, Requantise


@dataclasses.dataclass(frozen=True)
class Form:
    """A requantise in C. kind: "shift", "left", "powers", "general" (32 bits hold it) or "general64".

    multiplier, offset: a number, or a tuple with one for each channel. In "powers" the multiplier is coded: 0 for 0,
    k + 1 for 2^k, -(k + 1) for -2^k. low, high: None where the clamp is never reached. reaches: the result's range.
    """

    kind: str
    multiplier: int | tuple[int, ...]
    offset: int | tuple[int, ...]
    shift: int
    low: int | None
    high: int | None
    reaches: tuple[int, int]

    def fields(self, name: str, offsets: str = "int32_t") -> list[Field]:
        """Return the constants, as fields of the step's struct. offsets: the C type of an offset for each channel."""
        found = [Field("uint32_t", f"{name}_shift", self.shift)]
        if self.kind not in ("shift", "left"):
            c_type = "int8_t" if self.kind == "powers" else "int16_t"
            found.append(_field(c_type, f"{name}_multiplier", self.multiplier))
        if self.kind != "left" or self.offset != 0:
            found.append(_field(offsets, f"{name}_offset", self.offset))
        return found

    def before(self, name: str) -> list[str]:
        """Return the statements that stand before a loop over the channels."""
        return [self._load(f) for f in self.fields(name) if not f.is_array]

    def each(self, name: str, channel: str) -> list[str]:
        """Return the statements at the start of a channel's turn. channel: the C expression of its number."""
        return [self._load(f, f"[{channel}]") for f in self.fields(name) if f.is_array]

    def _load(self, field: Field, index: str = "") -> str:
        kind = "uint32_t" if field.ctype == "uint32_t" else "int32_t"
        return f"const {kind} {field.name} = k->{field.name}{index};"

    def value(self, name: str, x: str) -> str:
        """Return the C expression, int32_t, of an int32_t expression x."""
        if self.kind == "general64":
            low, high = (INT32[k] if end is None else end for k, end in enumerate((self.low, self.high)))
            constants = ", ".join(f"{name}_{constant}" for constant in ("multiplier", "offset", "shift"))
            return f"requantise_64({x}, {constants}, {number(low)}, {number(high)})"
        return clamped(self.free(name, x), self.low, self.high)

    def free(self, name: str, x: str) -> str:
        """Return the C expression before the clamp; not for "general64"."""
        offset, shift = f"{name}_offset", f"{name}_shift"
        if self.kind == "shift":
            return f"(({x}) + {offset}) >> {shift}"
        if self.kind == "left":
            shifted = f"((uint32_t)({x}) << {shift})"
            return f"(int32_t){shifted}" if self.offset == 0 else f"(int32_t)({shifted} + (uint32_t){offset})"
        if self.kind == "powers":
            return f"times_power({x}, {name}_multiplier, {offset}) >> {shift}"
        return f"({name}_multiplier * ({x}) + {offset}) >> {shift}"


def _field(ctype: str, name: str, value: int | tuple[int, ...]) -> Field:
    return Field(ctype if isinstance(value, tuple) else "int32_t", name, value)


def clamped(expression: str, low: int | None, high: int | None) -> str:
    """Return the C expression clamped at the ends that are given."""
    if low is None and high is None:
        return f"({expression})"
    if low is None:
        return f"at_most({expression}, {number(high)})"
    if high is None:
        return f"at_least({expression}, {number(low)})"
    return f"clamp({expression}, {number(low)}, {number(high)})"


def number(value: int) -> str:
    """Return an int32 as C writes it; the lowest one has no literal."""
    return "(-2147483647 - 1)" if value == INT32[0] else str(value)


def form_of(node: Requantise, low: int, high: int) -> Form:
    """Return the form of a requantise whose input lies in low..high."""
    m, b = node.multiplier.astype(np.int64), node.offset.astype(np.int64)
    before = np.stack([m * low + b, m * high + b])
    ends = before >> node.shift
    first = node.low if ends.min() < node.low else None
    last = node.high if ends.max() > node.high else None
    reaches = tuple(int(end) for end in np.clip([ends.min(), ends.max()], node.low, node.high))
    rest = (first, last, reaches)
    power = int(m[0]).bit_length() - 1
    if len(m) == 1 and m[0] > 0 and m[0] == 1 << power:
        if node.shift > power:
            return Form("shift", 1, _values(b >> power), min(node.shift - power, 31), *rest)
        return Form("left", 1, _values(b >> node.shift), power - node.shift, *rest)
    size = np.abs(m)
    if not (size & (size - 1)).any():  # the graph promises int32 before the shift
        codes = np.sign(m) * [int(s).bit_length() for s in size]
        return Form("powers", _values(codes), _values(b), min(node.shift, 31), *rest)
    product = np.stack([m * low, m * high])
    narrow = min(before.min(), product.min()) >= INT32[0] and max(before.max(), product.max()) <= INT32[1]
    shift = min(node.shift, 31) if narrow else node.shift
    return Form("general" if narrow else "general64", _values(m), _values(b), shift, *rest)


def _values(values: np.ndarray) -> int | tuple[int, ...]:
    return int(values[0]) if len(values) == 1 else tuple(int(v) for v in values)
