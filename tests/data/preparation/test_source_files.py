"""Files of a source: names that lead out, images that are bombs, cut short or of a form that not every reader takes."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from c3r_jax.data.preparation.layout import DamagedItem
from c3r_jax.data.preparation.source_files import check_image, cut_image, is_clutter, read_file, resolve_inside


def encoded(array, ending="png", **options):
    file = io.BytesIO()
    Image.fromarray(array).save(file, ending, **options)
    return file.getvalue()


def decoded(content):
    with Image.open(io.BytesIO(content)) as image:
        assert image.mode == "RGB"
        return np.asarray(image)


@pytest.fixture
def picture():
    return np.random.default_rng(0).integers(0, 256, (6, 9, 3)).astype(np.uint8)


@pytest.fixture
def source(tmp_path):
    """A source directory with a file, and beside it what nobody should read."""
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "source-of-another").mkdir()
    (tmp_path / "source-of-another/file").write_bytes(b"secret")
    source = tmp_path / "source"
    (source / "img").mkdir(parents=True)
    (source / "img/1.png").write_bytes(b"content")
    (source / "img/empty.png").touch()
    (source / "img/link.png").symlink_to(tmp_path / "secret")
    (source / "img/inner.png").symlink_to("1.png")
    (source / "out").symlink_to(tmp_path)
    return source


@pytest.mark.parametrize(
    "name",
    [
        "../secret",
        "img/../../secret",
        "/etc/passwd",
        "",
        ".",
        "C:/secret",
        "img\\1.png",
        "img/\0",
        "../source-of-another/file",
    ],
)
def test_names_that_lead_out_are_refused(source, name):
    with pytest.raises(DamagedItem, match="is no name inside the source directory"):
        resolve_inside(source, name)


@pytest.mark.parametrize("name", ["img/link.png", "out/secret", "out/source-of-another/file"])
def test_links_that_lead_out_are_refused(source, name):
    with pytest.raises(DamagedItem, match="is a link that leads out of the source directory"):
        read_file(source, name)


def test_files_are_read(source):
    assert read_file(source, "img/1.png") == read_file(source, "./img/inner.png") == b"content"
    for name, reason in (("img/2.png", "is missing"), ("img", "is missing"), ("img/empty.png", "has 0 bytes")):
        with pytest.raises(DamagedItem, match=f"'{name}' {reason}"):
            read_file(source, name)
    with pytest.raises(DamagedItem, match="has 7 bytes, expected 1 to 6"):
        read_file(source, "img/1.png", limit=6)


def test_rgb_images_stay_as_they_are(picture):
    for content in (encoded(picture), encoded(picture, "jpeg", quality=90)):
        assert check_image(content) is content


def test_other_images_become_rgb(picture):
    """Greys, palettes, transparency, CMYK and other formats: what is stored is what a viewer shows."""
    grey = check_image(encoded(picture[..., 0]))
    np.testing.assert_array_equal(decoded(grey), np.repeat(picture[..., :1], 3, -1))
    clear = np.concatenate([picture, np.full((6, 9, 1), 255, np.uint8)], -1)
    clear[0, 0, 3] = 0
    shown = picture.copy()
    shown[0, 0] = 255
    np.testing.assert_array_equal(decoded(check_image(encoded(clear))), shown)
    for pixels in (picture, np.full_like(picture, ord("?"))):
        stored = check_image(encoded(pixels, "bmp"))
        assert stored.startswith(b"\x89PNG")
        np.testing.assert_array_equal(decoded(stored), pixels)
    np.testing.assert_array_equal(decoded(check_image(encoded(picture)[:-12])), picture)  # all but the end mark
    cmyk = io.BytesIO()
    Image.fromarray(picture).convert("CMYK").save(cmyk, "jpeg")
    assert decoded(check_image(cmyk.getvalue())).shape == picture.shape


def test_halves(picture):
    left, right = cut_image(encoded(picture))
    np.testing.assert_array_equal(decoded(left), picture[:, :4])
    np.testing.assert_array_equal(decoded(right), picture[:, 4:])
    with pytest.raises(DamagedItem, match="1 pixel wide"):
        cut_image(encoded(picture[:, :1]))


def png_header(width, height):
    """A PNG that says how large it is and ends there."""
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I", 13)
        + head
        + struct.pack(">I", zlib.crc32(head))
        + struct.pack(">I", 100)
        + b"IDAT"
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (png_header(8193, 8192), "8193 x 8192 pixels, expected at most 67,108,864"),
        (png_header(10_000, 9_000), "10000 x 9000 pixels"),  # of which Pillow warns
        (png_header(1 << 20, 1 << 20), "far too large"),  # which Pillow refuses
        (png_header(4, 4), "is damaged or cut short"),
        (b"", r"\(0 bytes\) is none of JPEG, PNG"),
        (b"GIF89a", "is none of"),
        (b"%PDF-1.4 of another kind", "is none of JPEG, PNG"),
    ],
)
def test_bombs_and_broken_images_are_refused_without_a_warning(content, reason):
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always")
        with pytest.raises(DamagedItem, match=reason):
            check_image(content)
    assert not notes


@pytest.mark.parametrize("ending", ["png", "jpeg", "webp"])
def test_truncated_images_are_refused(ending):
    content = encoded(np.random.default_rng(1).integers(0, 256, (40, 40, 3)).astype(np.uint8), ending)
    assert check_image(content)
    for part in (0.95, 0.5):
        with pytest.raises(DamagedItem, match="is damaged or cut short|is none of"):
            check_image(content[: int(len(content) * part)])


@pytest.mark.parametrize(
    "name",
    ["._1.png", "__MACOSX/a/1.png", "a/@eaDir/1.png/thumb.jpg", "Thumbs.db", "a/.DS_Store", "#recycle/1.png"]
    + ["$RECYCLE.BIN/1.png", ".ipynb_checkpoints/1.png", "desktop.ini", "System Volume Information/x"],
)
def test_what_systems_leave_is_no_data(name):
    assert is_clutter(name) and is_clutter(f"data/{name}")
    assert not is_clutter("./data/mac.png") and not is_clutter("../macosx/eadir/1.png")


@pytest.mark.parametrize("size", [b"12345", b"7", b"9" * 12])
def test_pointers_of_git_lfs_and_pages_say_so(source, size):
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize " + size + b"\n"
    (source / "img/pointer.png").write_bytes(pointer)
    with pytest.raises(DamagedItem, match="'img/pointer.png' is a pointer of Git LFS, .* run `git lfs pull`"):
        read_file(source, "img/pointer.png")
    with pytest.raises(DamagedItem, match="its image is a pointer of Git LFS"):
        check_image(pointer)
    with pytest.raises(DamagedItem, match="its image is a web page"):
        check_image(b"\n<!DOCTYPE html><html>Sign in</html>" + size)
