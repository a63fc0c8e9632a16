"""Pictures upright, and 16-bit depth scaled by a range that somebody states: never by what is in the file."""

import io
import logging
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from c3r_jax.data.media import transparency
from c3r_jax.data.media.image import (
    PictureRules,
    decode_frames,
    decode_image,
    decode_on_white,
    flat_image,
    unknown_range,
)
from c3r_jax.data.preparation.layout import DamagedItem
from c3r_jax.data.preparation.source_files import check_image, cut_image, on_square
from c3r_jax.errors import ConfigError, DataError

N, FULL = 48, PictureRules(span=(0, 65535))
UPRIGHT = np.zeros((N, N, 3), np.uint8)
UPRIGHT[: N // 2, : N // 2], UPRIGHT[: N // 2, N // 2 :] = (220, 30, 30), (30, 200, 30)
UPRIGHT[N // 2 :, : N // 2], UPRIGHT[N // 2 :, N // 2 :] = (30, 30, 220), (128, 128, 128)
# How the pixels lie in a file that a viewer turns upright.
STORED = {
    1: UPRIGHT,
    2: UPRIGHT[:, ::-1],
    3: UPRIGHT[::-1, ::-1],
    4: UPRIGHT[::-1],
    5: UPRIGHT.swapaxes(0, 1),
    6: np.rot90(UPRIGHT),
    7: np.rot90(UPRIGHT, 2).swapaxes(0, 1),
    8: np.rot90(UPRIGHT, -1),
}


def saved(image, form="PNG", **how):
    file = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(np.ascontiguousarray(image))
    image.save(file, form, **how)
    return file.getvalue()


def turned(number, form):
    exif = Image.Exif()
    exif[0x0112] = number
    how = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}}.get(form, {})
    return saved(STORED[number], form, exif=exif, **how)


def close(found, expected=UPRIGHT):
    """Equal but for what JPEG changes; any other turn differs by 40 on the mean."""
    return np.abs(np.asarray(found).astype(int) - expected).mean() < 4


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("number", STORED)
def test_pictures_are_upright(number, form):
    content = turned(number, form)
    for size in (N, N // 3):  # JPEGs are decoded smaller at once
        expected = UPRIGHT[:: N // size, :: N // size]
        assert close(decode_image(content, size), expected) and close(decode_on_white(content, size), expected)
    assert close(decode_image(content, N, fit="squash")) and close(decode_frames([content], N)[0])
    stored = check_image(content)
    assert (stored is content) == (number == 1 and form != "WEBP")
    with Image.open(io.BytesIO(stored)) as image:
        assert close(image.convert("RGB")) and image.getexif().get(0x0112, 1) == 1
    assert close(Image.open(io.BytesIO(on_square(content))))
    left, right = (np.asarray(Image.open(io.BytesIO(half))) for half in cut_image(content))
    assert close(np.concatenate([left, right], axis=1))
    as_stored = PictureRules(upright=False)
    assert close(decode_image(content, N, rules=as_stored), STORED[number])
    assert close(decode_image(check_image(content, as_stored), N), STORED[number])


def test_sides_are_those_of_the_upright_picture():
    wide = np.zeros((10, 40, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(io.BytesIO(check_image(saved(wide, exif=exif)))) as image:
        assert image.size == (10, 40)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("exif", [b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0nonsense", b"\0"])
def test_damaged_orientation_is_none(exif):
    assert close(decode_image(saved(UPRIGHT, "JPEG", quality=95, subsampling=0, exif=exif), N))


def deep(values):
    return saved(Image.fromarray(values.astype(np.uint16)))


RAMP = np.linspace(0, 10_000, N * N).reshape(N, N).round()


@pytest.mark.parametrize(("low", "high"), [(0, 10_000), (500, 8000), (0, 65535), (2000, 3000.5)])
def test_depth_is_scaled_by_the_range_that_is_stated(low, high):
    expected = np.round(np.clip((RAMP - low) / (high - low), 0, 1) * 255 + 1e-9)
    rules = PictureRules(span=(low, high))
    for content in (check_image(deep(RAMP), rules), saved(np.asarray(decode_image(deep(RAMP), N, rules=rules)))):
        with Image.open(io.BytesIO(content)) as image:
            np.testing.assert_allclose(np.asarray(image)[..., 0], expected, atol=1 if high == 3000.5 else 0)
    assert len(np.unique(expected)) > 30


def raw_png(values, kind):
    """A PNG of 16 bits per colour, as Pillow does not write it."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    head = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "levels"),
    [
        (deep(RAMP), 40),
        (deep(RAMP / 50), 1),  # would be black
        (deep(RAMP * 3), 118),
        (deep(np.where(np.arange(N) % 5, 500 + 0.45 * RAMP, 65535)), 20),  # depth, and 65535 where there is none
        (raw_png(np.repeat(RAMP[..., None], 3, 2), 2), 40),
        (raw_png(np.stack([RAMP, np.full((N, N), 65535)], -1), 4), 40),
    ],
)
def test_depth_whose_range_nobody_states_is_refused(content, levels):
    message = f"16 bits and values up to .* of which {levels} of 256 .*--range 0 10000"
    with pytest.raises(DamagedItem, match=message):
        check_image(content)
    with pytest.raises(DataError, match=message):
        decode_on_white(content, N)
    assert check_image(content, FULL) and decode_on_white(content, N, FULL).shape == (N, N, 3)


@pytest.mark.parametrize("values", [np.where(RAMP > 5000, 65535, 0), np.where(RAMP > 5000, 65535, 9000)])
def test_few_greys_on_white_lose_nothing(values):
    np.testing.assert_array_equal(decode_image(check_image(deep(values)), N)[..., 0], values.astype(int) >> 8)


def test_pictures_that_use_their_bits_keep_the_upper_ones():
    whole = np.linspace(0, 65535, N * N).reshape(N, N).round()
    for content in (deep(whole), raw_png(np.repeat(whole[..., None], 3, 2), 2)):
        np.testing.assert_array_equal(decode_image(check_image(content), N)[..., 0], whole.astype(int) >> 8)
    assert not decode_image(check_image(deep(np.zeros((N, N)))), N).any()
    with pytest.raises(DamagedItem, match="16 bits per colour, which is not scaled"):
        check_image(raw_png(np.repeat(whole[..., None], 3, 2), 2), PictureRules(span=(0, 100)))
    for span in ((5, 5), (5, 1), (0, np.inf), (np.nan, 1)):
        with pytest.raises(ConfigError, match="expected a low and a higher number"):
            PictureRules(span=span)


METRES = np.linspace(0.5, 9.75, N * N, dtype=np.float32).reshape(N, N)


@pytest.mark.parametrize(
    "values", [METRES, METRES - 5, METRES / 10, np.int32(RAMP) - 5000, np.int32(RAMP) * 100, METRES * np.inf]
)
def test_numbers_that_are_no_greys_need_a_range(values):
    """Pillow's modes F and I: they would become black, or white."""
    image = Image.fromarray(values)
    assert image.mode in "FI" and "which are no 16-bit greys: say its range" in unknown_range(
        b"", image, PictureRules()
    )
    with pytest.raises(DataError, match=f"{values.dtype} numbers from .* are no 16-bit greys: say its range"):
        flat_image(image)


@pytest.mark.parametrize(
    ("values", "span"), [(METRES, (0.5, 9.75)), (METRES - 5, (-4.0, 4.0)), (np.int32(RAMP) * 100 - 9, (0, 500_000))]
)
def test_numbers_are_scaled_by_the_range_that_is_stated(values, span):
    rules = PictureRules(span=span)
    assert unknown_range(b"", Image.fromarray(values), rules) == ""
    expected = np.clip((values.astype(np.float64) - span[0]) / (span[1] - span[0]), 0, 1) * 255
    np.testing.assert_allclose(np.asarray(flat_image(Image.fromarray(values), rules)), expected, atol=0.5 + 1e-6)


def test_whole_numbers_are_greys_and_nan_is_none():
    for dtype in (np.int32, np.float32):
        image = Image.fromarray((np.arange(N * N).reshape(N, N) * 28).astype(dtype))
        assert unknown_range(b"", image, PictureRules()) == ""
        np.testing.assert_array_equal(np.asarray(flat_image(image)), np.arange(N * N).reshape(N, N) * 28 >> 8)
    holes = np.where(METRES > 9, np.nan, METRES).astype(np.float32)
    for rules in (PictureRules(), PictureRules(span=(0, 10))):
        with pytest.raises(DataError, match="of the image's 2304 numbers are NaN"):
            flat_image(Image.fromarray(holes), rules)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            saved(Image.fromarray(METRES), "TIFF"),
            "is none of JPEG, .* but TIFF: save it as PNG; measurements, such as depth",
        ),
        (saved(UPRIGHT, "TIFF"), "but TIFF"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "but HEIC: save it as PNG or JPEG"),
        (saved(UPRIGHT, "AVIF"), "but AVIF"),
        (saved(UPRIGHT, "JPEG2000"), "but JPEG 2000"),
        (b'<?xml version="1.0"?><svg xmlns="x"></svg>', "but SVG"),
        (b"8BPS" + bytes(40), "but Photoshop"),
    ],
)
def test_formats_that_are_not_read_are_named(content, message):
    with pytest.raises(DamagedItem, match=message):
        check_image(content)
    for decode in (decode_image, decode_on_white):
        with pytest.raises(DataError, match=message):
            decode(content, N)


def bmp_with_alpha(value):
    """A BMP of 32 bits with an alpha mask, as programs write it that fill the fourth byte with one value."""
    pixels = np.dstack([UPRIGHT[::-1, :, ::-1], np.full((N, N, 1), value, np.uint8)]).tobytes()
    masks = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    head = struct.pack("<IiiHHIIiiII", 108, N, N, 1, 32, 3, len(pixels), 2835, 2835, 0, 0) + masks + bytes(52)
    return b"BM" + struct.pack("<IHHI", 14 + len(head) + len(pixels), 0, 0, 14 + len(head)) + head + pixels


@pytest.mark.parametrize("value", [0, 255])
def test_an_empty_alpha_byte_of_bmp_files_is_none(value):
    content = bmp_with_alpha(value)
    for found in (decode_image(check_image(content), N), decode_image(content, N), decode_on_white(content, N)):
        np.testing.assert_array_equal(found, UPRIGHT)


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_pictures_that_nobody_can_see_are_refused_when_prepared(form, caplog):
    """Shards are there already: such pictures are white in them, which is said once."""
    clear = Image.fromarray(UPRIGHT).convert("RGBA")
    clear.putalpha(0)
    content = saved(clear, form, **({"lossless": True, "exact": True} if form == "WEBP" else {}))
    with pytest.raises(DamagedItem, match="transparent everywhere.*save it without alpha"):
        check_image(content)
    transparency._say_hidden.cache_clear()
    with caplog.at_level(logging.WARNING, "absl"):
        for decode in (decode_image, decode_on_white, decode_on_white):
            assert (decode(content, N) == 255).all()
    assert [record.getMessage()[:38] for record in caplog.records] == ["A picture is transparent everywhere, o"]
    clear.putpixel((0, 0), (9, 9, 9, 255))  # one pixel is to be seen
    assert (decode_image(check_image(saved(clear)), N) == 255).mean() > 0.99


@pytest.mark.parametrize(("spread", "blank"), [(0, True), (8, True), (9, False)])
def test_blanks_may_have_a_little_colour(spread, blank, caplog):
    """As programs leave it below what is transparent: up to a standard deviation of 8."""
    pixels = np.zeros((N, N, 4), np.uint8)
    pixels[..., 1] = 40
    pixels[: N // 2, :, 1] += 2 * spread  # one of two values a side of the mean
    content = saved(Image.fromarray(pixels))
    transparency._say_hidden.cache_clear()
    with caplog.at_level(logging.WARNING, "absl"):
        assert (decode_on_white(content, N) == 255).all()
    assert bool(caplog.records) != blank
    if blank:
        assert (decode_image(check_image(content), N) == 255).all()
    else:
        with pytest.raises(DamagedItem, match="transparent everywhere"):
            check_image(content)
