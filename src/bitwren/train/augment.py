"""Random shift, flip and cutout of a whole batch at once, on the device that holds it (arXiv 1907.06916, section 6 of
its recipe): pixels that a shift uncovers and pixels under a cutout become uniform random integers 0..255.

All randomness comes from the generator given, so that a batch is a function of its seed alone.
"""

import torch
from torch import Tensor

from bitwren.recipe import AugmentOptions


def random_pixels(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Return uniform random uint8 of that shape, on the generator's device."""
    count = 1
    for side in shape:
        count *= side
    # One 64-bit draw gives eight pixels.
    words = torch.empty((count + 7) // 8, dtype=torch.int64, device=generator.device)
    words.random_(torch.iinfo(torch.int64).min, None, generator=generator)
    return words.view(torch.uint8)[:count].view(shape)


def _choose(mask: Tensor, inside: Tensor, outside: Tensor) -> Tensor:
    """Return where(mask, inside, outside) of uint8 pixels, by bit operations, which CPUs vectorise, unlike where()."""
    bits = mask.to(torch.uint8) * 255
    return (outside ^ inside).bitwise_and_(bits).bitwise_xor_(outside)


def shift(images: Tensor, reach: int, generator: torch.Generator) -> Tensor:
    """Shift each picture of (B, C, H, W) uint8 by -reach..reach pixels along both axes, all offsets equally likely."""
    batch, channels, height, width = images.shape
    canvas = random_pixels((batch, channels, height + 2 * reach, width + 2 * reach), generator)
    canvas[:, :, reach : reach + height, reach : reach + width] = images
    offsets = torch.randint(2 * reach + 1, (2, batch), generator=generator, device=images.device)
    windows = canvas.unfold(2, height, 1).unfold(3, width, 1)  # (B, C, offsets, offsets, H, W), a view
    return windows[torch.arange(batch, device=images.device), :, offsets[0], offsets[1]]


def flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror each picture of (B, C, H, W) left to right with probability one half."""
    mirrored = torch.randint(2, (len(images),), generator=generator, device=images.device).bool()
    return _choose(mirrored[:, None, None, None], images.flip(3), images)


def cutout(images: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """Overwrite one side x side square of each picture of (B, C, H, W) uint8 with random pixels.

    The square's corner is uniform over every position in which it meets the picture, so that it is clipped at the
    border and covers each pixel with the same probability, side**2 / ((H + side - 1) * (W + side - 1)).
    """
    batch, _, height, width = images.shape
    device = images.device

    def covered(length: int) -> Tensor:  # (B, length) bool
        start = torch.randint(1 - side, length, (batch, 1), generator=generator, device=device)
        position = torch.arange(length, device=device)
        return (position >= start) & (position < start + side)

    rows, columns = covered(height), covered(width)
    inside = (rows[:, :, None] & columns[:, None, :])[:, None]
    return _choose(inside, random_pixels(tuple(images.shape), generator), images)


def augment(images: Tensor, options: AugmentOptions, generator: torch.Generator) -> Tensor:
    """Return the batch (B, C, H, W) uint8 as the options say: shifted, mirrored, cut out, in this order."""
    if options.shift:
        images = shift(images, options.shift, generator)
    if options.flip:
        images = flip(images, generator)
    if options.cutout:
        images = cutout(images, options.cutout, generator)
    return images
