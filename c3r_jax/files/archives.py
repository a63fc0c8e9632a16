"""Reads untrusted zip, tar and gzip archives safely; nothing is written to disk.

Refused are names that lead out of the archive (absolute, ``..``, drives, backslashes), links, encrypted files, and
decompression bombs: too many files, files that are too large alone or together, or a compression ratio beyond that of
ordinary data.
"""

import bz2
import contextlib
import dataclasses
import gzip
import lzma
import os
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Any

from c3r_jax.errors import DataError
from c3r_jax.files.pointers import file_hint

Archive = str | os.PathLike[str] | IO[bytes]
_SMALL = 1 << 20  # below one MiB no ratio is suspicious: empty tables and silence compress a thousandfold
_BROKEN = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    gzip.BadGzipFile,
    EOFError,
    OSError,
    NotImplementedError,
    ValueError,
)


@dataclasses.dataclass(frozen=True)
class Limits:
    """Limits on the content of an archive.

    Attributes:
      files: number of files.
      member: bytes of one unpacked file.
      total: bytes of all that is unpacked.
      ratio: unpacked bytes per packed byte, checked above one MiB.
    """

    files: int = 200_000
    member: int = 1 << 30
    total: int = 4 << 30
    ratio: int = 200


def safe_name(name: str, archive: str) -> str:
    """Returns a member's name without a leading ``./``, after checking that it stays inside the archive.

    Raises:
      DataError: the name is absolute, or has ``..``, a drive, a backslash or a control character.

    Examples:
      >>> safe_name("./usr/share/cat.png", "cats.tar")
      'usr/share/cat.png'
    """
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or ".." in parts or re.search(r"\\|^[A-Za-z]:|[\x00-\x1f]", name):
        raise DataError(
            f"{archive} has a file named {name!r}, expected a name inside the archive: it may be an attack; fetch the "
            "archive from its publisher."
        )
    return "/".join(parts)


def read_zip(
    archive: Archive, wanted: Callable[[str], bool] | None = None, *, limits: Limits | None = None
) -> Iterator[tuple[str, bytes]]:
    """Reads files from a zip archive, such as a wheel.

    Args:
      archive: a path or an open, seekable file.
      wanted: whether a file of this name is read; all files if not given.
      limits: limits on the archive's content.

    Yields:
      Each wanted file's name and content, in the archive's order.

    Raises:
      DataError: the archive is damaged or unsafe.

    Examples:
      >>> import io
      >>> file = io.BytesIO()
      >>> with zipfile.ZipFile(file, "w") as archive:
      ...     archive.writestr("views/fou.csv", "1,2")
      >>> dict(read_zip(file))
      {'views/fou.csv': b'1,2'}
    """
    title, limits = _title(archive), limits or Limits()
    with _readable_errors(title), zipfile.ZipFile(archive) as file:
        for name, member in _zip_members(file, title, wanted, limits):
            # Read by size: reading to the end would also unpack what a false header hides.
            with file.open(member) as content:
                yield name, content.read(member.file_size)


def _zip_members(
    file: zipfile.ZipFile, title: str, wanted: Callable[[str], bool] | None, limits: Limits
) -> list[tuple[str, zipfile.ZipInfo]]:
    """The wanted files of a zip archive, after every check that needs no unpacking."""
    members = [(safe_name(member.filename, title), member) for member in file.infolist() if not member.is_dir()]
    members = [(name, member) for name, member in members if wanted is None or wanted(name)]
    for name, member in members:
        if stat.S_ISLNK(member.external_attr >> 16):
            raise _link(title, name)
        if member.flag_bits & 1 or member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise DataError(f"{name!r} in {title} is encrypted or packed in a rare way: unpack and zip it again.")
        _check_size(title, name, member.file_size, limits.member)
        if member.file_size > max(_SMALL, limits.ratio * member.compress_size):
            raise _bomb(title, f"{name!r} unpacks to more than {limits.ratio} times its size")
    if len(members) > limits.files:
        raise _bomb(title, f"it has {len(members):,} files, more than {limits.files:,}")
    _check_size(title, "all files together", sum(member.file_size for _, member in members), limits.total)
    return members


def read_tar(
    archive: Archive, wanted: Callable[[str], bool] | None = None, *, limits: Limits | None = None
) -> Iterator[tuple[str, bytes]]:
    """Reads files from a tar archive, plain or compressed by gzip, bzip2 or xz; see :func:`read_zip`.

    The archive is read once from start to end, so the limits also hold for files that are skipped.

    Examples:
      >>> import io
      >>> file = io.BytesIO()
      >>> with tarfile.open(fileobj=file, mode="w:xz") as archive:
      ...     archive.addfile(tarfile.TarInfo("./stamps/cat.txt"))
      >>> dict(read_tar(file))
      {'stamps/cat.txt': b''}
    """
    title, limits = _title(archive), limits or Limits()
    with _readable_errors(title), contextlib.ExitStack() as stack:
        raw: Any = stack.enter_context(open(archive, "rb")) if isinstance(archive, (str, os.PathLike)) else archive
        size = raw.seek(0, os.SEEK_END)
        raw.seek(0)
        start = raw.read(6)
        raw.seek(0)
        unpacked, limit = raw, limits.total
        for magic, opener in ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ\0", lzma.open)):
            if start.startswith(magic):
                unpacked = stack.enter_context(opener(raw))
                limit = min(limit, max(_SMALL, limits.ratio * size))
        bounded: Any = _Bounded(unpacked, limit, title)
        file = stack.enter_context(tarfile.open(fileobj=bounded, mode="r|"))
        for count, member in enumerate(file):
            if count >= limits.files:
                raise _bomb(title, f"it has more than {limits.files:,} files")
            name = safe_name(member.name, title)
            if member.isdir() or (wanted is not None and not wanted(name)):
                continue
            if not member.isreg() or member.issparse():
                raise _link(title, name)
            _check_size(title, name, member.size, limits.member)
            content = file.extractfile(member)
            yield name, content.read() if content is not None else b""


class _Bounded:
    """A stream that raises an error when more than a number of bytes is read from it."""

    def __init__(self, stream: Any, limit: int, title: str):
        self._stream, self._left, self._limit, self._title = stream, limit, limit, title

    def read(self, size: int) -> bytes:
        content = self._stream.read(size)
        self._left -= len(content)
        if self._left < 0:
            raise _bomb(self._title, f"it unpacks to more than {self._limit:,} bytes")
        return content


def gunzip(path: str | os.PathLike[str], *, limit: int) -> bytes:
    """Returns the content of a gzip file of at most ``limit`` unpacked bytes.

    Raises:
      DataError: the file is damaged, cut short, or larger.
    """
    title = _title(path)
    with _readable_errors(title), gzip.open(path) as file:
        content = file.read(limit)
        if file.read(1):
            raise _bomb(title, f"it unpacks to more than {limit:,} bytes")
    return content


def _title(archive: Archive) -> str:
    return str(archive) if isinstance(archive, (str, os.PathLike)) else str(getattr(archive, "name", "the archive"))


def _check_size(title: str, name: str, size: int, limit: int) -> None:
    if size > limit:
        raise _bomb(title, f"{name} unpacks to {size:,} bytes, more than {limit:,}")


def _bomb(title: str, reason: str) -> DataError:
    return DataError(f"{title} may be a decompression bomb: {reason}; fetch the archive from its publisher.")


def _link(title: str, name: str) -> DataError:
    return DataError(f"{name!r} in {title} is a link or no plain file, expected files only: unpack and pack it again.")


@contextlib.contextmanager
def _readable_errors(title: str) -> Iterator[None]:
    """Turns errors of the standard library's readers into a DataError of one sentence."""
    try:
        yield
    except DataError:
        raise
    except _BROKEN as error:
        if hint := file_hint(title):
            raise DataError(f"{title} {hint}.") from error
        raise DataError(
            f"{title} is damaged or cut short ({error or type(error).__name__}): fetch it again."
        ) from error
