"""Instructions of a Cortex-M4 for each step of a picture, from shapes alone."""

from collections.abc import Sequence

from bitwren.deploy.generate_c.lookup import Lookup
from bitwren.deploy.generate_c.steps import Step


def convolution(v: Lookup) -> float:
    """Return the instructions of one convolution, without what fills its words and finishes its sums."""
    g = v.geometry
    tables = g.height * g.tiles * v.blocks * g.table_columns * (v.entries * 2.4 + 14 * len(v.groups) + 6)
    segments = g.rows * g.window * g.tiles * v.blocks * g.filters  # places that padding spares are few
    sums = segments * (22 + v.lookups * (2 * g.tile + 4) + (9 if v.wide else 2) * g.tile)
    apart = g.rows * g.filters * g.tiles * g.tile * 3 if v.last_words else 0
    return tables + sums + apart + (10 if v.unit else 14) * v.places


def convolve(step: Step, chosen: Sequence[Lookup]) -> float:
    """Return the instructions of a Convolve step."""
    total = sum(map(convolution, chosen))
    first = chosen[0].geometry
    total += first.height * first.channels * (10 + first.words * 11)
    for v in chosen:
        g = v.geometry
        total += g.rows * g.filters * (g.tiles * 10 + g.lanes * (18 if step.other is not None else 13))
    return total


def window(step: Step, chosen: Sequence[Lookup]) -> float:
    """Return the instructions of a Window step."""
    total = 0.0
    for v in chosen:
        g = v.geometry
        table = g.table_columns * (v.entries * 2.4 + 14 * len(v.groups) + 6)
        sums = g.filters * (22 + v.lookups * (2 * g.tile + 4) + (9 if v.wide else 2) * g.tile)
        block = g.tiles * (table + sums + 20) + (10 if v.unit else 14) * v.segment + v.block * (10 + g.words * 11)
        total += g.rows * (g.window * v.blocks * block + g.filters * (g.tiles * 10 + g.lanes * 13))
    return total


def plain(step: Step) -> float:
    """Return the instructions of any other step."""
    values = step.writes.row * step.writes.height
    if step.kind == "Multiply":
        return 8.0 * step.convs[0].weights[0].size * values
    if step.kind in ("Score", "Sum"):
        return 8.0 * step.input.row * step.input.height
    return (30.0 if step.kind == "Pool" else 10.0) * values
