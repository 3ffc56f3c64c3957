"""Where the pixels of a convolution lie when two of them share a word.

A word holds two pixels of one channel, 16 bits each: of its result column j and column j + lanes, the left and the
right half of a row. Both lanes move together, so a step of the window to the side is another word, never a shift. The
words of an input row are numbered m = stride * j + u, u the column of the window; word m holds the pixels m - left and
m - left + stride * lanes, and 0 for one outside the picture.

Words are read in tiles: a table is made of the words of one tile, and `tile` words of the result are summed at once.
"""

import dataclasses

from bitwren.network.graph import Conv


@dataclasses.dataclass(frozen=True)
class Geometry:
    """Shapes of a convolution (channels, height, width) -> (filters, rows, columns), and how its words lie.

    tile: words of the result that are summed at once. shared: whether a new row's sums may take the place of the row
    that the same input row completes.
    """

    channels: int
    height: int
    width: int
    filters: int
    rows: int
    columns: int
    window: int
    stride: int
    top: int
    left: int
    tile: int
    shared: bool

    @property
    def lanes(self) -> int:
        """Columns between the two pixels of a word of the result; the words that hold them."""
        return -(-self.columns // 2)

    @property
    def tiles(self) -> int:
        """Tiles of a row."""
        return -(-self.lanes // self.tile)

    @property
    def apart(self) -> int:
        """Columns between the two pixels of an input word."""
        return self.stride * self.lanes

    @property
    def table_columns(self) -> int:
        """Input words that a tile reads."""
        return self.stride * (self.tile - 1) + self.window

    @property
    def words(self) -> int:
        """Input words of a row, those that only the last tile's unused columns read included."""
        return self.stride * (self.tiles * self.tile - 1) + self.window

    @property
    def slots(self) -> int:
        """Rows of sums that are unfinished at once."""
        ahead = -(-(self.window - 1) // self.stride)
        return max(1, ahead if self.shared else ahead + 1)

    def slot_ahead(self, u: int) -> int:
        """Return how many rows after the one due next the row lies to which window row u of this input row belongs."""
        return -(-(self.window - 1 - u) // self.stride)

    @property
    def first_turn(self) -> int:
        """Slot of the row due next, when the first input row comes."""
        return ((self.top - self.window + 1) // self.stride) % self.slots

    @property
    def rows_done(self) -> int:
        """Rows that an input row completes; the windows of the rest end below the picture."""
        return min(self.rows, max(0, (self.height + self.top - self.window) // self.stride + 1))

    @property
    def rows_left(self) -> int:
        """Rows that are completed by no input row."""
        return self.rows - self.rows_done

    @property
    def end_ahead(self) -> int:
        """How many rows after the one whose turn it is, after the last input row, the first of the rest lies."""
        return self.rows_done - (self.height + self.top - self.window + 1) // self.stride

    @property
    def sources(self) -> list[tuple[int, int | None, int | None]]:
        """The words of an input row in runs: (words, column of the first low pixel, of the first high pixel).

        None where a lane lies outside the picture throughout the run.
        """

        def pixel(word: int, lane: int) -> int | None:
            x = word - self.left + lane * self.apart
            return x if 0 <= x < self.width and word < self.read_words else None

        runs: list[list] = []
        for word in range(self.words):
            low, high = pixel(word, 0), pixel(word, 1)
            if runs and (runs[-1][1] is None, runs[-1][2] is None) == (low is None, high is None):
                runs[-1][0] += 1
            else:
                runs.append([1, low, high])
        return [tuple(run) for run in runs]

    @property
    def read_words(self) -> int:
        """Input words that the results inside the picture read."""
        return self.stride * (self.lanes - 1) + self.window


def geometry_of(node: Conv, x: tuple[int, int, int], y: tuple[int, int, int], widest: int, shared: bool) -> Geometry:
    """Return the geometry for input and result shapes (C, H, W), with tiles of at most `widest` words."""
    lanes = -(-y[2] // 2)
    tiles = -(-lanes // widest)
    top, left = node.padding[:2]
    return Geometry(*x, *y, node.weights.shape[1], node.stride, top, left, -(-lanes // tiles), shared)
