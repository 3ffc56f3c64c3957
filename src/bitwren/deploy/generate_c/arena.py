"""Places for buffers in one arena: each is needed from one step to another, and two needed at once must not meet.

A buffer can be several tensors that are written one over another (`Buffer.parts`).
"""

import dataclasses
import itertools
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class Buffer:
    """What lies at one place. parts: (first step, last step, start, end), the bytes that are needed in those steps."""

    name: str
    parts: tuple[tuple[int, int, int, int], ...]

    def bytes_at(self, step: int) -> int:
        """Return the bytes that are needed in a step."""
        total, covered = 0, 0
        for start, end in sorted((s, e) for first, last, s, e in self.parts if first <= step <= last):
            total += max(0, end - max(start, covered))
            covered = max(covered, end)
        return total

    @property
    def largest(self) -> int:
        """The bytes from the buffer's place to the end of its last part."""
        return max(end for _, _, _, end in self.parts)

    @property
    def steps(self) -> tuple[int, int]:
        """The first and the last step that need it."""
        return min(part[0] for part in self.parts), max(part[1] for part in self.parts)


def needed(buffers: Sequence[Buffer], steps: int) -> list[int]:
    """Return the bytes that each step needs, were there no gaps: no placement takes less than the largest."""
    return [sum(buffer.bytes_at(step) for buffer in buffers) for step in range(steps)]


def place(buffers: Sequence[Buffer], steps: int) -> tuple[dict[str, int], int]:
    """Return the place of each buffer, by name, and the bytes of the arena. Deterministic.

    Tries orders until one reaches what `needed` says no placement can beat; else returns the best that it found.
    """
    least = max(needed(buffers, steps), default=0)
    best: tuple[int, dict[str, int]] | None = None
    for order in _orders(buffers):
        places, top = _first_fit(order, steps)
        if best is None or top < best[0]:
            best = top, places
        if top == least:
            break
    return (best[1], best[0]) if best else ({}, 0)


def _orders(buffers: Sequence[Buffer]):
    by_size = sorted(buffers, key=lambda b: (-b.largest, b.name))
    yield by_size
    yield sorted(buffers, key=lambda b: (-sum((last - first + 1) * (e - s) for first, last, s, e in b.parts), b.name))
    yield sorted(buffers, key=lambda b: (b.steps[0] - b.steps[1], -b.largest, b.name))
    long_lived = [b for b in by_size if b.steps[1] > b.steps[0]][:6]
    rest = [b for b in by_size if b not in long_lived]
    for order in itertools.permutations(long_lived):
        yield [*order, *rest]


def _first_fit(order: Sequence[Buffer], steps: int) -> tuple[dict[str, int], int]:
    taken: list[list[tuple[int, int]]] = [[] for _ in range(steps)]  # of each step, (start, end)
    places, top = {}, 0
    for buffer in order:
        spans = [(step, s, e) for first, last, s, e in buffer.parts for step in range(first, last + 1)]
        candidates = sorted({0} | {end - s for step, s, _ in spans for _, end in taken[step] if end > s})
        at = next(
            c
            for c in candidates
            if all(c + e <= start or end <= c + s for step, s, e in spans for start, end in taken[step])
        )
        for step, s, e in spans:
            taken[step].append((at + s, at + e))
            top = max(top, at + e)
        places[buffer.name] = at
    return places, top
