"""Places for buffers in one arena: each is needed from one step to another, and two needed at once must not meet.

A buffer can be a chain of tensors at one place, each written over the one before it (`Buffer.parts`).
"""

import dataclasses
import itertools
from collections.abc import Sequence

ALIGN = 4


@dataclasses.dataclass(frozen=True)
class Buffer:
    """What lies at one place. parts: (first step, last step, bytes), each step number included."""

    name: str
    parts: tuple[tuple[int, int, int], ...]

    def bytes_at(self, step: int) -> int:
        """Return the bytes that are needed in a step."""
        return max((size for first, last, size in self.parts if first <= step <= last), default=0)

    @property
    def largest(self) -> int:
        """The most bytes that are needed at once."""
        return max(size for _, _, size in self.parts)


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
    yield sorted(buffers, key=lambda b: (-sum((last - first + 1) * size for first, last, size in b.parts), b.name))
    yield sorted(buffers, key=lambda b: (-(b.parts[-1][1] - b.parts[0][0]), -b.largest, b.name))
    long_lived = [b for b in by_size if b.parts[-1][1] > b.parts[0][0]][:6]
    rest = [b for b in by_size if b not in long_lived]
    for order in itertools.permutations(long_lived):
        yield [*order, *rest]


def _first_fit(order: Sequence[Buffer], steps: int) -> tuple[dict[str, int], int]:
    taken: list[list[tuple[int, int]]] = [[] for _ in range(steps)]  # of each step, (start, end)
    places, top = {}, 0
    for buffer in order:
        spans = [(step, size) for first, last, size in buffer.parts for step in range(first, last + 1)]
        candidates = sorted({0} | {end for step, _ in spans for _, end in taken[step]})
        at = next(c for c in candidates if all(c + size <= s or e <= c for step, size in spans for s, e in taken[step]))
        for step, size in spans:
            taken[step].append((at, at + size))
            top = max(top, at + size)
        places[buffer.name] = at
    return places, top
