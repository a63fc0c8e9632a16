"""WebDataset tar files as people have them: every sample is read, or the error names the one that would be lost."""

import bz2
import gzip
import io
import json
import lzma
import tarfile
import zipfile

import numpy as np
import pytest

from c3r_jax.data.media.image import encode_png
from c3r_jax.data.sets.records import load_records
from c3r_jax.errors import DataError

SHADES = range(0, 250, 50)
PICTURES = [encode_png(np.full((8, 8, 3), shade, np.uint8)) for shade in SHADES]


def member(name, content=b"", kind=tarfile.REGTYPE, target=""):
    found = tarfile.TarInfo(name)
    found.type, found.linkname, found.size = kind, target, len(content)
    return found, io.BytesIO(content)


def packed(entries, **options):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", **options) as archive:
        for entry in entries:
            archive.addfile(*(entry if isinstance(entry[0], tarfile.TarInfo) else member(*entry)))
    return file.getvalue()


def sample(i, key=None, text=None):
    key = f"{i:04d}" if key is None else key
    text = f"number {i}".encode() if text is None else text
    return [(f"{key}.png", PICTURES[i]), (f"{key}.txt", text), (f"{key}.cls", str(i % 2).encode())]


def samples(*numbers):
    return [entry for i in numbers for entry in sample(i)]


def opened(tmp_path, *contents):
    (tmp_path / "dataset.json").write_text(json.dumps({"name": "some", "class_names": ["even", "odd"]}))
    for shard, content in enumerate(contents):
        (tmp_path / f"train-{shard}.tar").write_bytes(content)
    return load_records("train", path=tmp_path, image_size=8)


def check(source, *numbers):
    assert len(source) == len(numbers)
    assert source.labels.tolist() == [i % 2 for i in numbers]
    for position, i in enumerate(numbers):
        assert source[position]["text"] == f"number {i}"
        assert (source[position]["image"] == SHADES[i]).all()


@pytest.mark.parametrize(
    "content",
    [
        packed(samples(0, 1)) + packed(samples(2, 3, 4)),
        packed(samples(0, 1, 2)) + packed([]) + packed(samples(3, 4)),
        packed(samples(0)) + bytes(512 * 40) + packed(samples(1, 2, 3)) + packed(samples(4)),
        packed(samples(0, 1)).rstrip(b"\0").ljust(512 * 12, b"\0") + packed(samples(2, 3, 4)),
        packed(samples(*range(5)), format=tarfile.PAX_FORMAT) + bytes(3),
        packed(samples(*range(5)), format=tarfile.USTAR_FORMAT),
    ],
    ids=["two", "an empty one between", "blocks between", "few blocks between", "odd end", "ustar"],
)
def test_archives_one_after_the_other_are_all_read(tmp_path, content):
    check(opened(tmp_path, content), *range(5))


def cut_after(content, count):
    """What is left when a copy ends after ``count`` members."""
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        following = archive.getmembers()[count]
    return content[: following.offset]


@pytest.mark.parametrize("count", [3, 6, 5, 1])
def test_an_archive_that_is_cut_between_two_files_is_refused(tmp_path, count):
    with pytest.raises(DataError, match=r"train-0\.tar ends without the empty block .*cut short; fetch"):
        opened(tmp_path, cut_after(packed(samples(0, 1, 2)), count))


@pytest.mark.parametrize("where", ["second", "second archive", "trailing"])
def test_a_damaged_header_between_two_files_is_refused(tmp_path, where):
    content = bytearray(packed(samples(0, 1, 2)))
    at = len(cut_after(content, 3))
    if where == "second":
        content[at : at + 100] = b"x" * 100
    elif where == "second archive":
        content += b"y" * 1024
    else:
        content += bytes(700) + b"notes"
    with pytest.raises(DataError, match=r"train-0\.tar .*(has no header at byte|no whole tar file)"):
        opened(tmp_path, bytes(content))


@pytest.mark.parametrize("keep", [100, 512, 700, 1500])
def test_a_truncated_archive_is_refused(tmp_path, keep):
    with pytest.raises(DataError, match=r"train-0\.tar .*(cut short|no whole tar file)"):
        opened(tmp_path, packed(samples(0, 1, 2))[:keep])


@pytest.mark.parametrize("content", [b"", b"not a tar" * 200, packed(samples(0))[512:], b"<html>"])
def test_what_is_no_archive_is_refused(tmp_path, content):
    """Empty, something else, without its first header."""
    with pytest.raises(DataError, match=r"train-0\.tar .*(no whole tar file|has no header|without the empty block)"):
        opened(tmp_path, content)


def zipped():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("0.png", PICTURES[0])
    return file.getvalue()


@pytest.mark.parametrize(
    "content, name",
    [
        (gzip.compress(packed(samples(0))), "gzip"),
        (bz2.compress(packed(samples(0))), "bzip2"),
        (lzma.compress(packed(samples(0))), "xz"),
        (zipped(), "zip"),
    ],
)
def test_packed_archives_are_named(tmp_path, content, name):
    with pytest.raises(DataError, match=rf"train-0\.tar is a {name} file, expected a plain tar file.*: unpack it"):
        opened(tmp_path, content)


def dotted(key, i, order=("png", "txt", "cls")):
    by_ending = {name.rpartition(".")[2]: content for name, content in sample(i)}
    return [(f"{key}.{ending}", by_ending[ending]) for ending in order]


@pytest.mark.parametrize(
    "entries, key",
    [
        (dotted("photo.1", 0) + dotted("photo.2", 1), "/photo"),
        (dotted("photo", 0) + dotted("photo.1", 1), "/photo"),
        (dotted("v1.0/a.b", 0, ("txt", "png")), "v1.0/a"),
        (samples(0) + dotted("IMG.2024.01.05", 1), "/IMG"),
        (samples(0) + dotted("x.jpg", 1), "/x"),
    ],
)
def test_keys_with_dots_are_named(tmp_path, entries, key):
    with pytest.raises(DataError, match=rf"'{key}'.*(before the first dot|keys have no dots)"):
        opened(tmp_path, packed(entries))


@pytest.mark.parametrize(
    "others",
    [
        [("0000.seg.png", PICTURES[3]), ("0000.json", b"{}")],
        [("0000.left.jpg", b"x"), ("0000.right.jpg", b"y"), ("0000.npy", b"z")],
        [("._0000.png", b"x"), ("__MACOSX/._0000.png", b"x"), ("__MACOSX/0000.png", b"x"), ("README", b"hello")],
    ],
)
def test_other_files_of_a_sample_are_left_alone(tmp_path, others):
    check(opened(tmp_path, packed(samples(0) + others + samples(1))), 0, 1)


def test_folders_with_dots_and_upper_case_endings(tmp_path):
    entries = [("v1.0/a b.PNG", PICTURES[0]), ("v1.0/a b.Txt", b"number 0"), ("v1.0/a b.CLS", b"0\n")]
    entries += [("v1.1/a b.PNG", PICTURES[1]), ("v1.1/a b.TXT", b"\xef\xbb\xbfnumber 1"), ("v1.1/a b.cls", b" 1")]
    check(opened(tmp_path, packed(entries)), 0, 1)


@pytest.mark.parametrize(
    "entries, what",
    [
        ([*sample(0), ("0000.png", PICTURES[1])], "its image twice"),
        ([*sample(0), ("0000.jpg", PICTURES[1])], "its image twice"),
        ([*sample(0), ("0000.txt", b"again")], "its text twice"),
        (sample(0) + sample(0), "its image twice"),
        ([("0.png", PICTURES[0]), ("1.png", PICTURES[1]), ("0.txt", b"a"), ("1.txt", b"b")], "no image or no text"),
        ([*sample(0), ("1.tiff", b"II"), ("1.txt", b"b")], "no image or no text"),
        ([*sample(0), member("1.png", kind=tarfile.SYMTYPE, target="0000.png"), ("1.txt", b"b")], "'1.png' .*link"),
        ([*sample(0), member("1.png", kind=tarfile.LNKTYPE, target="0000.png")], "'1.png' .*link"),
        ([("notes.md", b"no sample")], "have no sample"),
    ],
)
def test_what_would_lose_a_sample_is_named(tmp_path, entries, what):
    with pytest.raises(DataError, match=what):
        opened(tmp_path, packed(entries))


@pytest.mark.parametrize("text", ["café", "naïve über", "‘quoted’ – dash"])
@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16"])
def test_texts_in_another_encoding_are_named(tmp_path, text, encoding):
    content = text.encode(encoding, errors="replace" if encoding == "latin-1" else "strict")
    if encoding == "latin-1" and content.isascii():
        content = b"\xb4quoted\xb4"
    source = opened(tmp_path, packed(samples(0) + sample(1, text=content)))
    with pytest.raises(DataError, match=r"sample 1 in .*train-0\.tar has a text that is not UTF-8 .*write it in UTF-8"):
        source[1]
    with pytest.raises(DataError, match=r"sample 1 in .*not UTF-8"):
        assert not source.texts


@pytest.mark.parametrize("label", [b"1.0", b"1_0", b"", b"cat", b"\xd9\xa3"])
def test_classes_that_are_no_whole_number_are_named(tmp_path, label):
    entries = [("0.png", PICTURES[0]), ("0.txt", b"a"), ("0.cls", label)]
    with pytest.raises(DataError, match=r"sample 0 in .* has class .*expected a whole number"):
        opened(tmp_path, packed(entries))
