"""The functions that do a convolution's work, written once for all layers that they fit: tables, additions, lists."""

import dataclasses

from bitwren.deploy.generate_c.lookup import Lookup
from bitwren.deploy.generate_c.program import Program

FEW = 4  # words of sums at once where a processor has 8 registers


@dataclasses.dataclass(frozen=True)
class Kernel:
    """A function. shape: C of its first argument, where it is written for all convolutions; "" where it has none."""

    name: str
    shape: str = ""

    def call(self, *arguments: str) -> str:
        """Return the C of a call."""
        return f"{self.name}({', '.join((self.shape, *arguments) if self.shape else arguments)})"


def _shared(program: Program, kind: str, v: Lookup) -> Kernel:
    """Add a function for all convolutions, and what it asks about this one."""
    g = v.geometry
    name = program.kernel(kind, f"{kind}.c.in")
    values = dict(columns=g.table_columns, channels=v.channels, groups=v.groups, filters=g.filters, window=g.window)
    size = 2 * 2 + 3 + 4 + len(v.groups) + 1  # bytes of flash
    shape = program.kernel("lookup_shape", "lookup_shape.c.in", bytes=size, list=v.lookups + 2, **values)
    return Kernel(name, f"&{shape}")


def table(program: Program, v: Lookup) -> Kernel:
    """Add the function that makes the tables of a block and a tile."""
    if program.compact and min(v.groups) > 1:  # it makes two entries at a time
        return _shared(program, "tables", v)
    columns, groups = v.geometry.table_columns, v.groups
    count = len(groups)
    period = next(p for p in range(1, count + 1) if count % p == 0 and groups == groups[:p] * (count // p))
    runs = _runs(groups[:period])
    repeats = len(groups) // period
    if len(runs) == 1:
        runs, repeats = [[runs[0][0], len(groups)]], 1
    values = dict(columns=columns, channels=v.channels, block=v.block, groups=groups, runs=runs, repeats=repeats)
    return Kernel(program.kernel("table", "table.c.in", **values))


def _runs(groups: tuple[int, ...]) -> list[list[int]]:
    """Return sizes of groups with how many of that size follow each other."""
    runs: list[list[int]] = []
    for group in groups:
        if runs and runs[-1][0] == group:
            runs[-1][1] += 1
        else:
            runs.append([group, 1])
    return runs


def add(program: Program, v: Lookup) -> str:
    """Add the function that looks the sums of a tile up and adds them; return its name."""
    tile = v.geometry.tile
    parts = -(-tile // FEW)
    few = [range(tile * k // parts, tile * (k + 1) // parts) for k in range(parts)]
    values = dict(columns=tile, stride=v.geometry.stride, wide=v.wide, sum_type=sum_type(v), few=few)
    return program.kernel("add_wide" if v.wide else "add", "add.c.in", **values)


def sum_type(v: Lookup) -> str:
    """Return the C type of the sums."""
    return "int32_t" if v.wide else "uint32_t"


def unit(program: Program, v: Lookup) -> int:
    """Return the bits of the numbers that hold the weights: the function for all convolutions reads bytes."""
    return 8 if program.compact else v.unit or 8


def decode(program: Program, v: Lookup, rows: int) -> Kernel:
    """Add the function that makes lists of places of weights, of so many rows of the window."""
    if program.compact:
        return _shared(program, "lists", v)
    g, window = v.geometry, v.geometry.window
    bases = [4 + sum(4 * g.table_columns << group >> 1 for group in v.groups[:k]) for k in range(len(v.groups))]
    values = dict(columns=g.table_columns, groups=v.groups, unit=v.unit, window=window)
    values |= dict(scaled=lambda shift, size: _scaled(shift, size, 4 * g.table_columns))
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
        values |= dict(unit_type="uint8_t", runs=_runs(v.groups), filters=g.filters)
        values |= dict(filters_end=rows > 1 and g.filters * window * v.block % 8 != 0)
    return Kernel(program.kernel("decode", "decode.c.in", **values))


def _scaled(shift: int, size: int, factor: int) -> str:
    """Return the C expression of an entry's number times the bytes of a table's row.

    The number is all bits but the last of a group that begins at bit `shift`. It is cut out once for each bit of the
    factor, at its place: the sum of two shifts of one variable a compiler would make a multiplication.
    """
    mask, terms = (1 << size >> 1) - 1, []
    for k in (k for k in range(factor.bit_length()) if factor >> k & 1):
        moved = "bits" if k == shift else f"(bits >> {shift - k})" if k < shift else f"(bits << {k - shift})"
        terms.append(f"({moved} & 0x{mask << k:x}u)")
    return " + ".join(terms) if mask else "0u"
