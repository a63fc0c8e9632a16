"""A picture is accepted by the same rules wherever it is stored: prepared sets, tar files and ArrayRecords."""

import io
import json
import re
import struct
import tarfile
import zlib

import msgpack
import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordWriter
from PIL import Image

from c3r_jax.data.media.image import decode_image, decode_on_white, encode_png
from c3r_jax.data.preparation.layout import DamagedItem
from c3r_jax.data.preparation.source_files import check_image
from c3r_jax.data.sets.records import load_records
from c3r_jax.errors import DataError

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"


def saved(format):
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (200, 0, 0)).save(file, format)
    return file.getvalue()


def png_of_size(width, height):
    """A PNG that says it is so large, in a few hundred bytes."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


REFUSED = {
    "EPS": EPS,
    "TIFF": saved("tiff"),
    "PPM": saved("ppm"),
    "ICO": saved("ico"),
    "TGA": saved("tga"),
    "70 megapixels": png_of_size(10_000, 7_000),
    "100 megapixels": png_of_size(10_000, 10_000),
    "400 megapixels": png_of_size(20_000, 20_000),
    "cut short": saved("jpeg")[:-200],
    "cut PNG": encode_png(np.random.default_rng(0).integers(0, 255, (8, 8, 3)).astype(np.uint8))[:-40],
    "a text": b"<html>not found</html>",
    "nothing": b"",
}


def in_tar(folder, content):
    with tarfile.open(folder / "train-0.tar", "w") as archive:
        for name, part in (("0.png", content), ("0.txt", b"a picture")):
            member = tarfile.TarInfo(name)
            member.size = len(part)
            archive.addfile(member, io.BytesIO(part))


def in_records(folder, content):
    writer = ArrayRecordWriter(str(folder / "train-00000-of-00001.arrayrecord"), "group_size:1")
    writer.write(msgpack.packb({"image": content, "text": "a picture", "label": 0}))
    writer.close()


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("write", [in_tar, in_records])
@pytest.mark.parametrize("content", REFUSED.values(), ids=REFUSED)
def test_what_prepared_sets_refuse_is_refused_in_shards(tmp_path, write, content):
    """With one sentence that is the same in every run: no address of an object in memory."""
    with pytest.raises(DamagedItem):
        check_image(content)
    with pytest.raises(DataError):
        decode_image(content, 4)
    (tmp_path / "dataset.json").write_text(json.dumps({"name": "some", "class_names": ["one"]}))
    write(tmp_path, content)
    with pytest.raises(
        DataError, match=r"(in|of) .* cannot be read\. The image .*(cannot be decoded|pixels, expected)"
    ) as caught:
        load_records("train", path=tmp_path, image_size=4)[0]
    assert not re.search(r"0x[0-9a-f]{6}|BytesIO", str(caught.value))


@pytest.mark.parametrize("format", ["jpeg", "png", "webp", "bmp", "gif"])
@pytest.mark.parametrize("write", [in_tar, in_records])
def test_what_prepared_sets_accept_is_read(tmp_path, write, format):
    content = saved(format)
    assert check_image(content)
    (tmp_path / "dataset.json").write_text(json.dumps({"name": "some", "class_names": ["one"]}))
    write(tmp_path, content)
    picture = load_records("train", path=tmp_path, image_size=4)[0]["image"]
    np.testing.assert_allclose(picture, decode_image(content, 4), atol=2)
    np.testing.assert_array_equal(picture, decode_on_white(content, 4))
