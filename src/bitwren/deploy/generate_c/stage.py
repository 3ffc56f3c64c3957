"""What the templates ask about one convolution of a step: columns of a tile, rows of sums, conditions."""

from bitwren.deploy.generate_c.kernels import sum_type
from bitwren.deploy.generate_c.lookup import CENTRE, Lookup


class Stage:
    """What the template asks about one convolution."""

    def __init__(self, i: int, v: Lookup, last: bool):
        self.i, self.v, self.g, self.last = i, v, v.geometry, last
        self.sum_type = sum_type(v)
        self.per_filter = v.geometry.tile * (2 if v.wide else 1)
        g = self.g
        self.uneven = g.columns != 2 * g.lanes and self.last
        self.full = g.lanes == g.tiles * g.tile and not self.uneven
        self.title = f"{g.channels} x {g.height} x {g.width} to {g.filters} x {g.rows} x {g.columns}"

    # ------------------------------------------------------------ columns of a tile

    @property
    def tile_parameter(self) -> str:
        """C of the parameter that says where a tile begins, "" where there is one tile."""
        return ", uint32_t x" if self.g.tiles > 1 and (self.last or not self.full) else ""

    @property
    def tile_index(self) -> str:
        """C of what a tile adds to an index."""
        return " + x" if self.g.tiles > 1 else ""

    @property
    def lows(self) -> str:
        """C of the number of columns of a tile in the left half of a row."""
        g = self.g
        if g.tiles == 1:
            return f"{g.lanes}u"
        return f"((x + {g.tile}u) > {g.lanes}u) ? ({g.lanes}u - x) : {g.tile}u" if g.lanes % g.tile else f"{g.tile}u"

    @property
    def highs(self) -> str:
        """C of the number of columns of a tile in the right half of a row."""
        g = self.g
        rest = g.columns - g.lanes  # columns of the right half
        if g.tiles == 1:
            return f"{rest}u"
        return f"((x + {g.tile}u) > {rest}u) ? ({rest}u - x) : {g.tile}u"

    @property
    def low_count(self) -> str:
        """C of the number of left columns to finish."""
        return f"{self.g.tile}u" if self.full else "lows"

    @property
    def high_count(self) -> str:
        """C of the number of right columns to finish."""
        return "highs" if self.uneven else self.low_count

    @property
    def low_sum(self) -> str:
        """C of the sum of left column j."""
        if self.v.wide:
            return "sums[j]"
        return "low_lane(pair) + low_lane(more)" if self.v.last_words else "low_lane(pair)"

    @property
    def high_sum(self) -> str:
        """C of the sum of right column j."""
        if self.v.wide:
            return f"sums[j + {self.g.tile}u]"
        return "high_lane(pair) + high_lane(more)" if self.v.last_words else "high_lane(pair)"

    @property
    def each(self) -> list[str]:
        """The statements at the start of a filter's turn: what its split sums lie around, in both lanes."""
        if not self.v.last_words:
            return []
        moved = f"(uint32_t)k->centres{self.i}[o] << {CENTRE.bit_length() - 1}"
        return [f"const uint32_t centre = {moved};", "const uint32_t centres = centre + (centre << 16);"]

    @property
    def pair(self) -> str:
        """C of the word of sums j."""
        return "sums[j] - centres" if self.v.last_words else "sums[j]"

    # ------------------------------------------------------------ rows

    def slot(self, ahead: int) -> str:
        """Return C of the pointer to the row of sums that lies so many rows ahead."""
        s, words, n = f"s->sums{self.i}", self.v.sum_words, self.g.slots
        if n == 1:
            return s
        turn = f"s->turn{self.i}"
        ahead %= n
        if n == 2:
            return f"{s} + (({turn} == {ahead}u) ? 0u : {words}u)"
        at = f"(({turn} < {n - ahead}u) ? ({turn} + {ahead}u) : ({turn} - {n - ahead}u))" if ahead else turn
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
        """Return C of the pointer to the sums that window row u adds to."""
        if self.v.last_words and u == self.g.window - 1:
            return f"s->last{self.i}"
        return f"row{self.g.slot_ahead(u) % self.g.slots}"

    def condition(self, u: int) -> str | None:
        """Return when input row y meets window row u of a row of the result: None where never, "" where always."""
        g = self.g
        first = u - g.top  # the input row that the first row of the result meets
        met = [y for y in range(g.height) if (y - first) % g.stride == 0 and 0 <= (y - first) // g.stride < g.rows]
        if not met:
            return None
        parts = []
        if g.stride == 2 and g.height > 1:
            parts.append(f"((y & 1u) == {met[0] % 2}u)")
        if met[0] >= g.stride:
            parts.append(f"(y >= {met[0]}u)")
        elif met[0] and g.stride == 1:
            parts.append("(y != 0u)")
        if met[-1] + g.stride < g.height:
            parts.append(f"(y <= {met[-1]}u)")
        elif met[-1] + 1 < g.height and g.stride == 1:
            parts.append(f"(y != {g.height - 1}u)")
        return " && ".join(parts)

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
                when = f"((y == 0u) && {block})" if block else "(y == 0u)"
            else:
                return f"{at}, {per}"
            if not when:
                return f"{none}, 0u"
            return f"{when} ? {none} : {at}, {when} ? 0u : {per}u"

        return arguments

    @property
    def completes(self) -> str | None:
        """When an input row completes a row of the result: C, None where never, "" where always."""
        return self.condition(self.g.window - 1)

    @property
    def turn_parity(self) -> int:
        """The parity of the input rows that complete a row of the result."""
        return (self.g.top - self.g.window) % 2

    @property
    def finish(self) -> str:
        """C of the call that finishes a tile's sums."""
        x = ", x" if self.tile_parameter else ""
        if self.last:
            return f"@NAME@_finish{self.i}(s, row0{x});"
        return f"@NAME@_finish{self.i}(s, row0, to{x});"
