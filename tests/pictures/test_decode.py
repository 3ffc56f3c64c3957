import io
import warnings

import numpy as np
import pytest
from PIL import Image

from bitwren.errors import DataError, UsageError
from bitwren.pictures import read_picture

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def saved(tmp_path, image, name="picture.png", **options):
    path = tmp_path / name
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(path, **options)
    return path


def test_pixels_come_out_channel_first_and_untouched(tmp_path):
    rows = noise(5, 7)
    pixels = read_picture(saved(tmp_path, rows))
    assert pixels.dtype == np.uint8 and pixels.flags.c_contiguous
    assert np.array_equal(pixels, rows.transpose(2, 0, 1))
    assert np.array_equal(read_picture(saved(tmp_path, rows), (5, 7)), pixels)


def test_grey_is_rec_601_luma(tmp_path):
    path = saved(tmp_path, np.array([[RED, GREEN, BLUE, WHITE]], np.uint8))
    assert read_picture(path, channels=1).tolist() == [[[76, 150, 29, 255]]]


def test_a_grey_file_fills_three_channels(tmp_path):
    path = saved(tmp_path, np.array([[0, 7, 255]], np.uint8))
    assert read_picture(path).tolist() == [[[0, 7, 255]]] * 3


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, orientation):
    """The stored rows are chosen so that the upright picture is the same for all eight orientations."""
    upright = np.zeros((16, 32, 3), np.uint8)
    upright[:8, :16], upright[:8, 16:], upright[8:, :16], upright[8:, 16:] = RED, GREEN, BLUE, WHITE
    flips = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path, np.ascontiguousarray(flips[orientation](upright)), exif=exif)
    assert np.array_equal(read_picture(path), upright.transpose(2, 0, 1))


def test_damaged_exif_leaves_the_picture_as_stored(tmp_path):
    path = saved(tmp_path, noise(8, 8), "picture.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12")
    assert read_picture(path).shape == (3, 8, 8)


def test_palette(tmp_path):
    image = Image.new("P", (3, 1))
    image.putpalette([*RED, *GREEN, *BLUE])
    image.putdata([2, 0, 1])
    assert read_picture(saved(tmp_path, image))[:, 0].T.tolist() == [list(BLUE), list(RED), list(GREEN)]


def test_a_transparent_palette_entry_is_laid_on_black(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *GREEN])
    image.putdata([0, 1])
    path = saved(tmp_path, image, transparency=0)
    assert read_picture(path)[:, 0].T.tolist() == [[0, 0, 0], list(GREEN)]


@pytest.mark.parametrize(("alpha", "left"), [(255, 200), (0, 0), (128, 100)])
def test_alpha_is_laid_on_black(tmp_path, alpha, left):
    colour = saved(tmp_path, Image.new("RGBA", (1, 1), (200, 200, 200, alpha)))
    assert read_picture(colour).ravel().tolist() == [left] * 3
    grey = saved(tmp_path, Image.new("LA", (1, 1), (200, alpha)))
    assert read_picture(grey, channels=1).ravel().tolist() == [left]


def test_cmyk(tmp_path):
    path = saved(tmp_path, Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "picture.jpg", quality=100)
    assert np.abs(read_picture(path)[:, 0, 0].astype(int) - RED).max() <= 2


def test_one_bit(tmp_path):
    path = saved(tmp_path, Image.fromarray(np.array([[True, False]])))
    assert read_picture(path, channels=1).tolist() == [[[255, 0]]]


@pytest.mark.parametrize("name", ["picture.png", "picture.tif"])
def test_16_bit_grey_is_rounded_to_8(tmp_path, name):
    path = saved(tmp_path, np.array([[0, 128, 129, 257 * 77, 65535]], np.uint16), name)
    assert read_picture(path, channels=1).tolist() == [[[0, 0, 1, 77, 255]]]


def test_16_bit_grey_out_of_range_and_floating_point_are_refused(tmp_path):
    path = saved(tmp_path, np.array([[70000]], np.int32), "wide.tif")
    with pytest.raises(DataError, match=r"wide\.tif: grey values from 70000 to 70000, expected 0 to 65535"):
        read_picture(path)
    path = saved(tmp_path, np.array([[0.5]], np.float32), "float.tif")
    with pytest.raises(DataError, match=r"float\.tif: floating-point pixels, expected 8 or 16 bits"):
        read_picture(path)


def test_crop_cuts_equally_from_both_ends(tmp_path):
    rows = noise(4, 8)
    assert np.array_equal(read_picture(saved(tmp_path, rows), (4, 4)), rows[:, 2:6].transpose(2, 0, 1))
    rows = noise(9, 3)
    assert np.array_equal(read_picture(saved(tmp_path, rows), (3, 3)), rows[3:6].transpose(2, 0, 1))


def test_the_same_aspect_ratio_loses_nothing(tmp_path):
    rows = noise(20, 40)
    path = saved(tmp_path, rows)
    whole = np.asarray(Image.fromarray(rows).resize((10, 5), Image.Resampling.BILINEAR))
    assert np.array_equal(read_picture(path, (5, 10)), whole.transpose(2, 0, 1))
    assert np.array_equal(read_picture(path, (5, 10), fit="stretch"), whole.transpose(2, 0, 1))


def test_stretch_takes_the_whole_picture(tmp_path):
    rows = np.zeros((2, 8, 3), np.uint8)
    rows[:, :4] = WHITE
    half = read_picture(saved(tmp_path, rows), (2, 2), channels=1, fit="stretch")
    assert half[0, 0, 0] > 200 > 50 > half[0, 0, 1]


@pytest.mark.parametrize("size", [(1, 1), (3, 50), (50, 3), (7, 7)])
@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (31, 17)])
def test_any_size_from_any_shape(tmp_path, size, shape):
    path = saved(tmp_path, np.full((*shape, 3), 9, np.uint8), "picture.jpg", quality=100)
    pixels = read_picture(path, size)
    assert pixels.shape == (3, *size) and np.abs(pixels.astype(int) - 9).max() <= 1


def test_a_large_jpeg_shrinks_to_nearly_what_full_decoding_gives(tmp_path):
    rows = np.kron(noise(80, 80), np.ones((5, 5, 1), np.uint8))
    path = saved(tmp_path, rows, "picture.jpg", quality=95, subsampling=0)
    with Image.open(path) as image:
        full = np.asarray(image.resize((40, 40), Image.Resampling.BILINEAR)).transpose(2, 0, 1).astype(int)
    assert (
        np.abs(full - read_picture(path, (40, 40))).mean() < 2
    )  # 0.75 from the draft taken, 5.9 from one of half its size


def test_the_first_frame_of_an_animation(tmp_path):
    frames = [Image.new("RGB", (2, 2), colour) for colour in (RED, GREEN)]
    path = saved(tmp_path, frames[0], "picture.gif", save_all=True, append_images=frames[1:])
    assert read_picture(path)[:, 0, 0].tolist() == list(RED)


def jpeg_bytes():
    buffer = io.BytesIO()
    Image.fromarray(noise(64, 64)).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no picture format"),
        (b"this is text\n" * 100, "no picture format"),
        (jpeg_bytes()[:1500], "truncated"),
        (jpeg_bytes()[:20], "cannot be read as a picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no picture format"),
    ],
)
def test_broken_files_are_one_line_with_name_and_reason(tmp_path, content, reason):
    path = tmp_path / "broken.jpg"
    path.write_bytes(content)
    with pytest.raises(DataError, match=reason) as caught:
        read_picture(path, (8, 8))
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", ["png", "gif", "bmp", "webp", "tif", "jpg", "ppm"])
def test_no_damage_ends_in_anything_but_a_data_error(tmp_path, suffix):
    path = saved(tmp_path, noise(12, 12), f"picture.{suffix}")
    good = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(60):
        bad = bytearray(good[: rng.integers(1, len(good) + 1)])
        for place in rng.integers(0, len(bad), 3):
            bad[place] = rng.integers(0, 256)
        path.write_bytes(bad)
        try:
            assert read_picture(path, (4, 4)).shape == (3, 4, 4)
        except DataError as error:
            assert "\n" not in str(error)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(DataError, match=r"absent\.png: cannot be read as a picture \(no such file or directory\)"):
        read_picture(tmp_path / "absent.png")
    with pytest.raises(DataError, match="is a folder, expected a picture file"):
        read_picture(tmp_path)


def test_a_decompression_bomb_is_refused_and_a_large_picture_is_not_warned_of(tmp_path, monkeypatch):
    path = saved(tmp_path, np.zeros((30, 30), np.uint8))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400)
    with pytest.raises(DataError, match="decompression bomb"):
        read_picture(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 600)  # Pillow would warn from 600 to 1200
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_picture(path).shape == (3, 30, 30)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": (0, 4)}, r"size \(0, 4\), expected"),
        ({"size": (4,)}, r"size \(4,\), expected"),
        ({"size": (4.0, 4)}, r"size \(4.0, 4\), expected"),
        ({"channels": 4}, "4 picture channels, expected 1"),
        ({"fit": "corp"}, "did you mean 'crop'"),
    ],
)
def test_targets_that_cannot_be(tmp_path, arguments, message):
    with pytest.raises(UsageError, match=message):
        read_picture(saved(tmp_path, noise(2, 2)), **arguments)
