"""The random crop of ImageNet training: a part of the picture, of random area and shape, resized (Szegedy 2015)."""

import math
from pathlib import Path

import numpy as np
from PIL import Image

from bitwren.pictures.decode import read_picture

AREA = (0.08, 1.0)  # of the picture
ASPECT = (3 / 4, 4 / 3)  # width over height
_TRIES = 10  # a wide crop of a large area may not fit a narrow picture


def random_box(width: int, height: int, generator: np.random.Generator) -> tuple[int, int, int, int]:
    """Return left, top, right, bottom of a random part of a picture, in whole pixels.

    The area is uniform in AREA, the logarithm of the aspect ratio uniform in ASPECT, the place uniform. Where no such
    box fits in several tries, the largest centred one whose aspect ratio lies in ASPECT.
    """
    for _ in range(_TRIES):
        area = width * height * generator.uniform(*AREA)
        aspect = math.exp(generator.uniform(math.log(ASPECT[0]), math.log(ASPECT[1])))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(generator.integers(width - w + 1)), int(generator.integers(height - h + 1))
            return left, top, left + w, top + h
    w = max(1, min(width, round(height * ASPECT[1])))
    h = max(1, min(height, round(width / ASPECT[0])))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def crop_picture(path: str | Path, size: tuple[int, int], channels: int, generator: np.random.Generator) -> np.ndarray:
    """Return a random part of a picture file, resized to size (H, W): uint8 (channels, H, W).

    Reads and fails as read_picture does; scaling is bilinear.
    """
    pixels = read_picture(path, None, channels)
    box = random_box(pixels.shape[2], pixels.shape[1], generator)
    image = Image.fromarray(pixels[0] if channels == 1 else pixels.transpose(1, 2, 0))
    resized = np.asarray(image.resize((size[1], size[0]), Image.Resampling.BILINEAR, box=box))
    return np.ascontiguousarray(resized[None] if channels == 1 else resized.transpose(2, 0, 1))
