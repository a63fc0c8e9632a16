"""Wheels, source archives, Debian packages and what they unpack to give the same files; damaged ones say so."""

import io
import tarfile
import zipfile

import pytest

from c3r_jax.data.preparation.packages import Package
from c3r_jax.errors import DataError

FILES = {"shop/stamps/cats/a.txt": b"a cat", "shop/stamps/cats/b.png": b"picture", "other/cats/a.txt": b"no"}
WANTED = {"cats/a.txt": b"a cat", "cats/b.png": b"picture"}
PACKAGE = Package("fetch cats", ("cats_*.deb", "cats-*.whl", "cats-*.tar.gz"), r"cats/\w+\.(?:txt|png)", "stamps/")


def write_wheel(source, files):
    with zipfile.ZipFile(source / "cats-1.whl", "w") as file:
        for name, content in files.items():
            file.writestr(name, content)


def write_source_archive(source, files):
    with tarfile.open(source / "cats-1.tar.gz", "w:gz") as file:
        for name, content in files.items():
            member = tarfile.TarInfo(f"cats-1/{name}")
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))


def write_unpacked(source, files):
    for name, content in files.items():
        path = source / "anywhere" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


@pytest.mark.parametrize("write", [write_wheel, write_source_archive, write_unpacked])
def test_every_form_gives_the_wanted_files(write, tmp_path):
    write(tmp_path, FILES)
    assert PACKAGE.files(tmp_path) == WANTED
    assert PACKAGE.problems(tmp_path, tuple(WANTED)) == []


def test_debian_package(make_deb, tmp_path):
    (tmp_path / "cats_1.deb").write_bytes(make_deb(FILES))
    assert PACKAGE.files(tmp_path) == WANTED
    assert PACKAGE.archive(tmp_path) == tmp_path / "cats_1.deb"


def test_links_of_unpacked_content_are_not_followed(tmp_path):
    write_unpacked(tmp_path, FILES)
    (tmp_path / "anywhere/shop/stamps/cats/c.txt").symlink_to("/etc/hostname")
    assert PACKAGE.files(tmp_path) == WANTED


def test_nothing_there_names_the_command(tmp_path):
    (problem,) = PACKAGE.problems(tmp_path, ())
    assert "`fetch cats`" in problem and str(tmp_path) in problem


def test_missing_file_is_named(tmp_path):
    write_wheel(tmp_path, FILES)
    (problem,) = PACKAGE.problems(tmp_path, ("cats/a.txt", "cats/z.txt"))
    assert "cats/z.txt" in problem and "cats-1.whl" in problem


def test_damaged_debian_packages(make_deb, tmp_path):
    path, whole = tmp_path / "cats_1.deb", make_deb(FILES)
    for content, reason in (
        (b"no ar", "no Debian package"),
        (whole[:-30], "cut short"),
        (whole[:100], "cut short"),
        (whole.replace(b"`\n", b"??"), "cut short"),
        (whole[:-40] + b"\0" * 40, "damaged"),
        (make_deb(FILES, data="data.tar.zst"), "dpkg-deb -x"),
    ):
        path.write_bytes(content)
        with pytest.raises(DataError, match=reason):
            PACKAGE.files(tmp_path)
        assert reason in PACKAGE.problems(tmp_path, ())[0]


def test_a_new_package_is_read_anew(tmp_path):
    write_wheel(tmp_path, FILES)
    PACKAGE.files(tmp_path)
    write_wheel(tmp_path, {"stamps/cats/new.txt": b"1"})
    assert PACKAGE.files(tmp_path) == {"cats/new.txt": b"1"}
