"""Archives from elsewhere: honest ones come back whole, traps are refused before they do harm."""

import gzip
import io
import stat
import tarfile
import zipfile
import zlib

import pytest

from c3r_jax.errors import DataError
from c3r_jax.files.archives import Limits, gunzip, read_tar, read_zip

FILES = {"a/one.txt": b"one", "a/b/two.bin": bytes(range(256)) * 9, "three": b""}
MIB = 1 << 20


def zip_of(files, **options):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", **({"compression": zipfile.ZIP_DEFLATED} | options)) as made:
        made.mkdir("folder")
        for name, content in files.items():
            made.writestr(name, content)
    return file


def tar_of(files, mode="w:gz", kind=tarfile.REGTYPE):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as made:
        folder = tarfile.TarInfo("./folder")
        folder.type = tarfile.DIRTYPE
        made.addfile(folder)
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.type = len(content), kind
            made.addfile(member, io.BytesIO(content))
    return file


def test_zip_comes_back_in_order():
    file = zip_of(FILES)
    assert list(read_zip(file)) == list(FILES.items())
    assert list(read_zip(file, lambda name: name.endswith(".bin"))) == [("a/b/two.bin", FILES["a/b/two.bin"])]


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_tar_comes_back_in_order(tmp_path, mode):
    path = tmp_path / "made.tar"
    path.write_bytes(tar_of({f"./{name}": content for name, content in FILES.items()}, mode).getvalue())
    assert list(read_tar(path)) == list(FILES.items())
    assert list(read_tar(path, lambda name: "b" in name)) == [("a/b/two.bin", FILES["a/b/two.bin"])]


@pytest.mark.parametrize(
    "name", ["../evil.txt", "a/../../evil.txt", "/etc/passwd", "C:/evil.txt", "..\\evil.txt", "a\nb", "//host/evil"]
)
@pytest.mark.parametrize("make, read", [(zip_of, read_zip), (tar_of, read_tar)])
def test_names_that_lead_out_are_refused_wanted_or_not(make, read, name):
    with pytest.raises(DataError, match="expected a name inside the archive"):
        list(read(make({"good": b"1", name: b"2"}), lambda name: name == "good"))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused_if_wanted(kind):
    file = tar_of({"link": b""}, kind=kind)
    with pytest.raises(DataError, match="'link' in the archive is a link or no plain file"):
        list(read_tar(file))
    assert list(read_tar(file, lambda name: name != "link")) == []


def test_link_in_a_zip_is_refused():
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as made:
        made.writestr(link, "/etc/passwd")
    with pytest.raises(DataError, match="'link' in the archive is a link"):
        list(read_zip(file))


@pytest.mark.parametrize(
    "limits, reason",
    [
        (Limits(), "more than 200 times|unpacks to more than"),
        (Limits(ratio=10**6, member=MIB), "more than 1,048,576"),
        (Limits(ratio=10**6, total=3 * MIB), "more than 3,145,728"),
        (Limits(files=1, ratio=10**6), "more than 1"),
    ],
)
@pytest.mark.parametrize("make, read", [(zip_of, read_zip), (tar_of, read_tar)])
def test_bombs_are_refused(make, read, limits, reason):
    with pytest.raises(DataError, match=f"may be a decompression bomb.*({reason})"):
        list(read(make({"big": bytes(2 * MIB), "bigger": bytes(2 * MIB)}), limits=limits))


def test_what_is_passed_over_in_a_tar_counts_too():
    with pytest.raises(DataError, match="may be a decompression bomb"):
        list(read_tar(tar_of({"zeros": bytes(4 * MIB), "wanted": b"1"}), lambda name: name == "wanted"))


def test_zip_whose_header_lies_about_the_size_is_damaged():
    content = bytes(64 * MIB)
    packed = zip_of({"liar": content}).getvalue()
    size = len(content).to_bytes(4, "little")
    assert packed.count(size) == 2
    with pytest.raises(DataError, match="damaged or cut short .*CRC"):
        list(read_zip(io.BytesIO(packed.replace(size, (10).to_bytes(4, "little")))))


@pytest.mark.parametrize("mark, offset, value", [(b"PK\x01\x02", 6, 99), (b"PK\x05\x06", 15, 200)])
def test_zip_with_a_damaged_header_is_damaged(mark, offset, value):
    packed = bytearray(zip_of(FILES).getvalue())
    packed[packed.index(mark) + offset] = value  # a version of the future; a table of contents before the beginning
    with pytest.raises(DataError, match="damaged or cut short"):
        list(read_zip(io.BytesIO(bytes(packed))))


@pytest.mark.parametrize("compression", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_rare_packing_is_refused(compression):
    with pytest.raises(DataError, match="packed in a rare way"):
        list(read_zip(zip_of({"a": b"1" * 99}, compression=compression)))


def test_cut_archives_are_named(tmp_path):
    noise = zlib.compress(b"".join(str(i).encode() for i in range(9999)))
    for name, content, read in (
        ("a.zip", zip_of({"n": noise}).getvalue(), read_zip),
        ("a.tgz", tar_of({"n": noise}).getvalue(), read_tar),
        ("a.txz", tar_of({"n": noise}, "w:xz").getvalue(), read_tar),
        ("a.gz", gzip.compress(noise), lambda path: gunzip(path, limit=MIB)),
    ):
        path = tmp_path / name
        path.write_bytes(content[: len(content) // 2])
        with pytest.raises(DataError, match=f"{name} is damaged or cut short"):
            list(read(path))
    with pytest.raises(DataError, match=r"absent\.zip is damaged or cut short"):
        list(read_zip(tmp_path / "absent.zip"))


def test_gunzip_stops_at_its_limit(tmp_path):
    path = tmp_path / "volume.nii.gz"
    path.write_bytes(gzip.compress(b"x" * MIB))
    assert gunzip(path, limit=MIB) == b"x" * MIB
    with pytest.raises(DataError, match=r"volume\.nii\.gz may be a decompression bomb: it unpacks to more than"):
        gunzip(path, limit=MIB - 1)
