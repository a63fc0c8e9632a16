"""Encoded images to squares: what comes out, how near to Pillow's plain way, and what is refused."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from c3r_jax.data.media.image import MAX_PIXELS, decode_frames, decode_image
from c3r_jax.data.preparation.source_files import check_image
from c3r_jax.errors import DataError

SMOOTH = np.asarray(
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 8, 3)).astype(np.uint8)).resize((512, 384), 3)
)


def encoded(pixels, form="png", **how):
    file = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(file, form, **how)
    return file.getvalue()


def test_the_right_size_is_left_as_it_is():
    image = np.random.default_rng(0).integers(0, 256, (12, 12, 3)).astype(np.uint8)
    for fit in ("crop", "squash"):
        np.testing.assert_array_equal(decode_image(encoded(image), 12, fit=fit), image, strict=True)


def test_crop_keeps_the_centre_and_squash_everything():
    image = np.zeros((10, 30, 3), np.uint8)
    image[:, 10:20] = 200
    assert (decode_image(encoded(image), 10) == 200).all()
    assert (decode_image(encoded(image.swapaxes(0, 1)), 10) == 200).all()
    squashed = decode_image(encoded(image), 30, fit="squash")
    assert squashed.shape == (30, 30, 3)
    assert (squashed[:, 12:18] == 200).all() and (squashed[:, :8] == 0).all() and (squashed[:, 22:] == 0).all()


@pytest.mark.parametrize("size", [300, 192, 100, 48, 20])
def test_jpeg_is_close_to_the_plain_way(size):
    content = encoded(SMOOTH, "jpeg", quality=95)
    box = (64, 0, 448, 384)
    plain = Image.open(io.BytesIO(content)).convert("RGB").resize((size, size), Image.Resampling.BILINEAR, box=box)
    difference = np.abs(np.asarray(plain).astype(int) - decode_image(content, size))
    assert difference.mean() < 1
    assert difference.max() < 12


def test_modes_become_colours():
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    expected = np.repeat(grey[..., None], 3, axis=2)
    deep = Image.fromarray(grey.astype(np.uint16) * 256 + 7)
    for content in (
        encoded(grey),
        encoded(deep),
        encoded(Image.fromarray(grey).convert("P")),
        encoded(grey, "webp", lossless=True),
    ):
        np.testing.assert_array_equal(decode_image(content, 16), expected)
    half = np.dstack([np.full((4, 4, 3), 100, np.uint8), np.full((4, 4), 128, np.uint8)])
    assert np.unique(decode_image(encoded(half), 4)).tolist() == [177]  # 100 and white, half and half
    clear = Image.new("P", (4, 4), 0)
    assert (decode_image(encoded(clear, transparency=0), 4) == 255).all()
    for mode, colour in (("L", 9), ("RGB", (9, 9, 9))):  # one colour that stands for nothing
        flat = Image.new(mode, (4, 4), colour)
        assert (decode_image(encoded(flat, transparency=colour), 4) == 255).all()
        assert (decode_image(check_image(encoded(flat, transparency=colour)), 4) == 255).all()
    inks = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    assert np.abs(decode_image(encoded(inks, "jpeg"), 4).astype(int) - (255, 0, 0)).max() < 3


def header_only(width, height):
    """A PNG that says it is large; its pixels are missing."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [9000, 10_000, 20_000])
def test_absurd_sizes_are_refused_before_decoding(side):
    with pytest.raises(DataError, match=f"expected at most {MAX_PIXELS} in all"):
        decode_image(header_only(side, side), 8)


@pytest.mark.parametrize("form", ["png", "jpeg", "webp", "gif", "bmp"])
def test_damage_is_one_sentence(form):
    whole = encoded(SMOOTH, form)
    for content in (whole[: len(whole) // 2], whole[:20], b"", b"no image", encoded(SMOOTH[:8, :8], "tiff")):
        with pytest.raises(DataError, match="cannot be decoded"):
            decode_image(content, 8)


def test_random_damage_never_surprises():
    rng = np.random.default_rng(0)
    for form in ("png", "jpeg", "webp"):
        whole = np.frombuffer(encoded(SMOOTH[:64, :64], form), np.uint8)
        for _ in range(40):
            content = whole.copy()
            content[rng.integers(0, len(content), 8)] = rng.integers(0, 256, 8)
            try:
                assert decode_image(content.tobytes(), 8).shape == (8, 8, 3)
            except DataError:
                pass


def test_frames():
    frames = [encoded(np.full((6, 6, 3), value, np.uint8)) for value in (1, 2, 3)]
    for given in (frames, np.array(frames, object)):  # a list, or as data sets give it
        assert decode_frames(given, 4)[:, 0, 0, 0].tolist() == [1, 2, 3]
    with pytest.raises(DataError, match="Frame 1 of 2: The image"):
        decode_frames([frames[0], b""], 4)
    with pytest.raises(DataError, match="0 frames"):
        decode_frames([], 4)


def test_wrong_arguments():
    with pytest.raises(ValueError, match="size is 0"):
        decode_image(b"", 0)
    with pytest.raises(ValueError, match="fit 'fill'"):
        decode_image(b"", 4, fit="fill")
