"""A one-bit convolution by lookup of sums: groups of channels, their tables, and the order of the weights.

The channels are cut into blocks, a block into groups of up to 8. The table of a group of g channels has 2^(g-1) entries
for each input word: entry k adds channel i of the group where bit i of k is 1 and subtracts it where it is 0; the last
channel is added. So the g weights of a filter at one place of the window are the number of the entry, or that of the
entry of turned signs, which is subtracted; and one load and one addition or subtraction do the work of 2 g
multiply-accumulates: two pixels of a word, g channels.

Sums are kept modulo 2^16 in each lane of a word; they are exact if what is read in the end fits int16:

    lanes   the sums over the whole window do
    split   the sums over its last row do, and those over the rows before it: the last row's are kept apart; both may
            lie round a centre of their filter's (`centres_of`), with which they do
    wide    the sums over one row of the window and a block of channels do, and are added to int32 sums
"""

import dataclasses
import functools
import itertools
from collections.abc import Sequence

import numpy as np

from bitwren.deploy.generate_c.geometry import Geometry
from bitwren.network.graph import INT16, Conv, Tensor

LARGEST_GROUP, SMALLEST_GROUP = 8, 4  # where there are that many channels
LARGEST_BLOCK = 64
LARGEST_TABLE = 1 << 16  # bytes: an entry's place is 16 bits
LARGEST_WINDOW = 7
CENTRE = 256  # centres are kept in 8 bits


@dataclasses.dataclass(frozen=True)
class Lookup:
    """How a convolution looks its sums up.

    groups: sizes of the groups of a block, which all blocks share. sums: "lanes", "split" or "wide".
    """

    geometry: Geometry
    groups: tuple[int, ...]
    blocks: int
    sums: str

    @property
    def block(self) -> int:
        """Channels of a block."""
        return sum(self.groups)

    @property
    def channels(self) -> int:
        """Channels, those included that only fill the last block; their codes are zero points."""
        return self.blocks * self.block

    @property
    def entries(self) -> int:
        """Entries of the tables of a block for one word."""
        return sum(1 << group >> 1 for group in self.groups)

    @property
    def table_words(self) -> int:
        """32-bit words of the tables of one block and one tile, and of the one before them: place 0 ends a list."""
        return 1 + self.entries * self.geometry.table_columns

    @property
    def lookups(self) -> int:
        """Lookups for one row of the window, one filter, one block."""
        return self.geometry.window * len(self.groups)

    @property
    def segment(self) -> int:
        """Numbers in the lists of places for one row of the window, all filters, one block."""
        return self.geometry.filters * (self.lookups + 2)

    @property
    def places(self) -> int:
        """Numbers in the lists of places for the whole layer, 16 bits each."""
        return self.segment * self.geometry.window * self.blocks

    @property
    def wide(self) -> bool:
        """Whether the sums have 32 bits."""
        return self.sums == "wide"

    @property
    def tile_words(self) -> int:
        """32-bit words of sums of one tile."""
        return self.geometry.filters * self.geometry.tile * (2 if self.wide else 1)

    @property
    def last_words(self) -> int:
        """32-bit words of the sums of the window's last row that are kept apart."""
        return self.tile_words if self.sums == "split" else 0

    @property
    def sum_words(self) -> int:
        """32-bit words of a row of sums."""
        return self.tile_words * self.geometry.tiles

    @property
    def unit(self) -> int:
        """Bits of a number that holds whole groups: 32, 16 or 8; 0 where groups run on from byte to byte."""
        for bits in (32, 16, 8):
            if self.block % bits == 0:
                ends = {sum(self.groups[: k + 1]) for k in range(len(self.groups))}
                if all(end in ends for end in range(bits, self.block + 1, bits)):
                    return bits
        return 0

    @property
    def segment_bytes(self) -> int:
        """Bytes of the weights for one row of the window, all filters, one block."""
        return -(-self.geometry.filters * self.geometry.window * self.block // 8)

    def packed(self, weights: np.ndarray, unit: int) -> np.ndarray:
        """Return the weights (O, F, F, C) as numbers of `unit` bits; in flash, one bit for each weight.

        Order: block, row of the window, filter, column of the window, channel of the block; 1 is +1. Each row of the
        window of a block begins with a new byte.
        """
        missing = self.channels - weights.shape[3]
        bits = np.pad(weights > 0, ((0, 0), (0, 0), (0, 0), (0, missing)))
        out, window = bits.shape[0], bits.shape[1]
        bits = bits.reshape(out, window, window, self.blocks, self.block).transpose(3, 1, 0, 2, 4)
        segments = bits.reshape(self.blocks * window, -1)
        octets = np.packbits(segments, axis=1, bitorder="little").ravel()
        return octets.view(f"<u{unit // 8}")


def partition(channels: int, parts: int) -> tuple[int, ...]:
    """Return sizes of groups, as equal as can be, the larger first."""
    small, more = divmod(channels, parts)
    return (small + 1,) * more + (small,) * (parts - more)


@functools.cache
def groupings(channels: int) -> tuple[tuple[tuple[int, ...], int], ...]:
    """Return the ways to cut channels into groups and blocks: (groups of a block, blocks)."""
    found = set()
    sizes = [b for b in range(1, min(channels, LARGEST_BLOCK) + 1) if channels % b == 0]
    if channels > LARGEST_BLOCK and sizes[-1] < LARGEST_BLOCK // 2:  # none that fits: the last block is filled up
        sizes.append(LARGEST_BLOCK)
    for block in sizes:
        for unit in {block} | {u for u in (32, 16, 8) if block % u == 0}:
            for parts in range(-(-unit // LARGEST_GROUP), -(-unit // SMALLEST_GROUP) + 1):
                found.add((partition(unit, parts) * (block // unit), -(-channels // block)))
    return tuple(sorted(found))


def ends(weights: np.ndarray, x: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return how far up, and how far down, sums of weight * (code - zero) reach, for each of the weights' leading axes.

    weights: +-1 (..., C); x: the input's range and zero points (C,). Summed over the last axis only; both at least 0.
    """
    zero = x.zero.astype(np.int64)
    up, down = x.high - zero, zero - x.low
    return np.where(weights > 0, up, down).sum(-1), np.where(weights > 0, down, up).sum(-1)


def lookups(node: Conv, x: Tensor, geometries: Sequence[Geometry]) -> list[Lookup]:
    """Return all ways to look the sums of a one-bit convolution up; those left out whose lanes could overflow."""
    sums = sums_of(node, x)
    reaches: dict[int, int] = {}
    found = []
    for geometry, (groups, blocks) in itertools.product(geometries, groupings(x.shape[0])):
        lookup = Lookup(geometry, groups, blocks, sums)
        if geometry.shared != (blocks == 1) or 4 * lookup.table_words > LARGEST_TABLE:
            continue
        if sums == "wide" and lookup.block not in reaches:
            reaches[lookup.block] = block_reach(node, x, lookup.block)
        if sums != "wide" or reaches[lookup.block] <= INT16[1]:
            found.append(lookup)
    return found


def in_window(node: Conv, x: Tensor, lookup: Lookup) -> Lookup | None:
    """Return the lookup for a Window step, where all rows of the window are added to one row of sums, or None."""
    if lookup.sums == "split":
        return dataclasses.replace(lookup, sums="wide") if block_reach(node, x, lookup.block) <= INT16[1] else None
    return lookup


def sums_of(node: Conv, x: Tensor) -> str:
    """Return how the sums of a convolution are kept: "lanes", "split" or "wide"."""
    if max(end.sum((1, 2)).max() for end in ends(node.weights, x)) <= INT16[1]:
        return "lanes"
    apart = node.padding[0] < node.weights.shape[1] - 1 and centres_of(node, x) is not None
    return "split" if apart else "wide"


def centres_of(node: Conv, x: Tensor) -> np.ndarray | None:
    """Return what each filter's split sums lie around, int8 (O,), in units of CENTRE; None if there is no such number.

    Less the centre, the sums over all rows of the window but the last fit int16; so do those over the last, plus it.
    """
    up, down = (end.sum(2) for end in ends(node.weights, x))  # (O, F)
    least = np.maximum(up[:, :-1].sum(1) - INT16[1], down[:, -1] + INT16[0])
    most = np.minimum(-INT16[0] - down[:, :-1].sum(1), INT16[1] - up[:, -1])
    least, most = -(-least // CENTRE), most // CENTRE
    centres = np.clip(0, least, most)
    return centres.astype(np.int8) if (least <= most).all() and np.abs(centres).max() <= 127 else None


def block_reach(node: Conv, x: Tensor, block: int) -> int:
    """Return what the sum over one row of the window and one block of channels can reach."""
    starts = np.arange(0, x.shape[0], block)
    up, down = x.high - x.zero, x.zero - x.low
    most = np.add.reduceat(np.where(node.weights > 0, up, down), starts, axis=-1)  # (O, F, F, blocks)
    least = np.add.reduceat(up + down, starts) - most
    return int(max(most.sum(2).max(), least.sum(2).max()))
