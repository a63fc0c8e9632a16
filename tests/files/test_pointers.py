"""Files that stand for another file say so, whatever reads them."""

import pytest

from c3r_jax.data.preparation.layouts.mosei import Mosei
from c3r_jax.errors import DataError
from c3r_jax.files.archives import gunzip, read_tar, read_zip
from c3r_jax.files.pointers import file_hint, lfs_hint
from c3r_jax.files.tensors import read_tensors

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
READERS = {
    "zip": lambda path: list(read_zip(path)),
    "tar": lambda path: list(read_tar(path)),
    "gzip": lambda path: gunzip(path, limit=1000),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (POINTER, "is a pointer of Git LFS, not the file itself: run `git lfs pull`"),
        (b"  <!DOCTYPE html>\n<html>Sign in</html>", "is a web page"),
        (b"\xef\xbb\xbfnothing", "is damaged or cut short"),
    ],
)
def test_archives(tmp_path, reader, content, message):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        READERS[reader](path)


def test_pickles(tmp_path):
    (tmp_path / "aligned_50.pkl").write_bytes(POINTER)
    with pytest.raises(DataError, match="aligned_50.pkl is a pointer of Git LFS"):
        Mosei().items(tmp_path)


@pytest.mark.parametrize(
    "name", ["a.safetensors", "a.pth", "a.bin", "model-00001-of-00001.safetensors", "model.safetensors.index.json"]
)
@pytest.mark.parametrize(
    ("content", "message"), [(POINTER, "is a pointer of Git LFS"), (b"\n<html>Sign in</html>", "is a web page")]
)
def test_weights(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    for path in (tmp_path, tmp_path / name):
        with pytest.raises(DataError, match=f"{name} {message}, .*not the file itself"):
            read_tensors(path)


@pytest.mark.parametrize("content", [b"", b"RIFF", POINTER[9:], b"<svg><html>"])
def test_other_files_have_no_hint(tmp_path, content):
    (tmp_path / "file").write_bytes(content)
    assert not lfs_hint(content) and not file_hint(tmp_path / "file") and not file_hint(tmp_path)
