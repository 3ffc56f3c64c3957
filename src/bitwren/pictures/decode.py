"""One picture file to pixels, the same way in training, evaluation and prediction."""

import contextlib
import functools
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from bitwren.errors import DataError, UsageError, unknown_name

FITS = ("crop", "stretch")

# Raster formats only. Pillow would also open EPS, which starts Ghostscript on a file nobody has looked at.
_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "DIB", "WEBP", "AVIF", "TIFF", "PPM", "JPEG2000", "TGA", "PCX", "ICO", "MPO")
_WITH_ALPHA = ("RGBA", "LA", "PA", "RGBa", "La")


def read_picture(
    path: str | Path, size: tuple[int, int] | None = None, channels: int = 3, fit: str = "crop"
) -> np.ndarray:
    """Return the pixels of a picture file of any size and mode.

    size: (H, W) wanted, or None for the picture's own. channels: 3 (red, green, blue) or 1 (grey, ITU-R 601 luma).
    fit: "crop" takes the largest centred part with the aspect ratio of `size`, that is: scales until the shorter side
    fits and cuts the rest equally from both ends; "stretch" takes the whole picture. Scaling is bilinear, with the
    filter widened when it shrinks. A picture that has the size already is left as it is.
    Returns uint8 (channels, H, W), values 0..255.

    The EXIF orientation is applied. Transparent pictures are laid on black. 16-bit grey 0..65535 becomes 0..255,
    rounded. Of an animation, the first frame.

    Raises DataError, one line with the file and the reason, for whatever cannot be read whole: missing, a folder,
    empty, truncated, no picture, floating-point pixels, more than twice Pillow's Image.MAX_IMAGE_PIXELS.
    Raises UsageError for a size, channels or fit that cannot be.
    """
    check_target(size, channels, fit)
    with quiet_pillow():
        return decode(path, size, channels, fit)


def check_target(size: tuple[int, int] | None, channels: int, fit: str = "crop") -> None:
    """Raise UsageError unless size is None or (H, W) of 1 or more, channels 1 or 3, and fit known."""
    if size is not None and (len(size) != 2 or not all(isinstance(side, int) and side > 0 for side in size)):
        raise UsageError(f"picture size {size!r}, expected (height, width) of 1 or more pixels")
    if channels not in (1, 3):
        raise UsageError(f"{channels!r} picture channels, expected 1 (grey) or 3 (colour)")
    if fit not in FITS:
        raise unknown_name("fit", fit, FITS)


@contextlib.contextmanager
def quiet_pillow() -> Iterator[None]:
    """Silence warnings: each problem that Pillow only warns of is either harmless here or becomes a DataError.

    Python keeps its warning filters per process, so enter this once around a thread pool, never inside its threads.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def decode(path: str | Path, size: tuple[int, int] | None, channels: int, fit: str = "crop") -> np.ndarray:
    """Do the work of read_picture, without its checks of the arguments, and letting Pillow warn."""
    # Opening a folder fails with a message that differs from system to system.
    if os.path.isdir(path):
        raise DataError(f"{path}: is a folder, expected a picture file")
    try:
        with Image.open(path, formats=_formats()) as image:
            if size is not None:
                # JPEG only: lets the decoder shrink by 2, 4 or 8, to at least twice the size wanted, before the filter.
                image.draft(None, (2 * max(size), 2 * max(size)))
            return _pixels(_fitted(_upright(image), size, fit), channels)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    # Pillow's decoders meet damaged bytes with almost any exception: OSError, SyntaxError, struct.error, IndexError...
    except Exception as error:
        raise DataError(f"{path}: cannot be read as a picture ({_reason(error)})") from error


@functools.cache
def _formats() -> list[str]:
    """Return those of our formats that this Pillow was built with."""
    Image.init()
    return [name for name in _FORMATS if name in Image.OPEN]


def _upright(image: Image.Image) -> Image.Image:
    image.load()
    # An EXIF block too damaged to tell the orientation says nothing about the pixels: the picture stays as stored.
    with contextlib.suppress(Exception):
        ImageOps.exif_transpose(image, in_place=True)
    return image


def _fitted(image: Image.Image, size: tuple[int, int] | None, fit: str) -> Image.Image:
    """Return the picture at (H, W), in a mode that can be scaled and still has its alpha if it had one."""
    image = _scalable(image)
    if size is None or image.size == size[::-1]:
        return image
    height, width = size
    left, top, right, bottom = 0.0, 0.0, float(image.width), float(image.height)
    if fit == "crop":
        scale = min(image.width / width, image.height / height)  # source pixels per wanted pixel
        left, top = (image.width - scale * width) / 2, (image.height - scale * height) / 2
        right, bottom = min(left + scale * width, right), min(top + scale * height, bottom)
    return image.resize((width, height), Image.Resampling.BILINEAR, box=(max(left, 0.0), max(top, 0.0), right, bottom))


def _scalable(image: Image.Image) -> Image.Image:
    """Return the picture as L or RGB, 8 bits a channel, laid on black where it is transparent."""
    if image.mode in ("L", "RGB") and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):
        wide = np.asarray(image).astype(np.int64)
        if wide.size and not 0 <= int(wide.min()) <= int(wide.max()) <= 65535:
            raise DataError(f"grey values from {wide.min()} to {wide.max()}, expected 0 to 65535")
        # 65535 * 255 + 32767 < 2**24: rounds to nearest, 0 -> 0 and 65535 -> 255.
        return Image.fromarray(((wide * 255 + 32767) // 65535).astype(np.uint8))
    if image.mode == "F":
        raise DataError("floating-point pixels, expected 8 or 16 bits a channel")
    if image.mode in _WITH_ALPHA or "transparency" in image.info:
        clear = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", clear.size, (0, 0, 0, 255)), clear).convert("RGB")
    return image.convert("L" if image.mode == "1" else "RGB")


def _pixels(image: Image.Image, channels: int) -> np.ndarray:
    """Return uint8 (channels, H, W) of an L or RGB picture."""
    mode = "L" if channels == 1 else "RGB"
    rows = np.asarray(image if image.mode == mode else image.convert(mode), dtype=np.uint8)
    return rows[np.newaxis].copy() if channels == 1 else np.ascontiguousarray(rows.transpose(2, 0, 1))


def _reason(error: Exception) -> str:
    """Return what went wrong as a few words on one line, without the path that the caller puts first."""
    if isinstance(error, UnidentifiedImageError):
        return "no picture format that this Pillow knows"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return " ".join(str(error).split()) or type(error).__name__
