"""WebDataset tar files, read at random: where each sample's image, text and class are, and which files lose samples."""

import os
import pathlib
import re
import tarfile
from collections.abc import Iterator
from typing import IO, Any

import numpy as np

from c3r_jax.data.source import UNKNOWN
from c3r_jax.errors import DataError

IMAGE_ENDINGS = ("png", "jpg", "jpeg", "webp", "bmp", "gif")
PARTS = {**dict.fromkeys(IMAGE_ENDINGS, 0), "txt": 1, "cls": 2}
NAMES = ("image", "text", "class")
EXPECTED = "every sample needs KEY.png (or jpg, webp, bmp, gif) and KEY.txt, adjacent to each other"
_BLOCK = 512
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"PK\3\4": "zip"}


class TarFiles:
    """Reads WebDataset samples (KEY.png, KEY.txt and KEY.cls, adjacent to each other) by position from tar files.

    By WebDataset's rules a key ends at the first dot of a file's name, and other files of a sample are left alone. What
    would lose a sample is refused by its name: no image or text, one of them twice, links, dots in a key, an archive
    that is cut or damaged between two files. Archives that were written one after the other into a file are all read.
    """

    def __init__(self, paths: list[pathlib.Path]):
        self.paths = paths
        samples = _Samples()
        for shard, path in enumerate(paths):
            try:
                with open(path, "rb") as file:
                    for member in _members(file, path):
                        samples.add(shard, path, member)
            except (tarfile.TarError, OSError) as error:
                raise DataError(f"{path} is no whole tar file ({error}): fetch or write it again.") from error
        self._places = np.array(samples.places, np.int64).reshape(-1, 7)
        samples.check(paths, self._places)

    def __len__(self) -> int:
        return len(self._places)

    def _part(self, position: int, part: int) -> bytes:
        shard, offset, size = self._places[position, [0, 1 + 2 * part, 2 + 2 * part]]
        with open(self.paths[shard], "rb") as file:
            file.seek(offset)
            return file.read(size)

    def read(self, position: int) -> dict[str, Any]:
        """One sample."""
        text = self._part(position, 1)
        try:
            decoded = text.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise DataError(
                f"{self.where(position)} has a text that is not UTF-8 (byte {text[error.start]:#04x} at position "
                f"{error.start} of {text[:20]!r}): write it in UTF-8."
            ) from error
        return {"image": self._part(position, 0), "text": decoded, "label": self._label(position)}

    def picture(self, position: int) -> bytes:
        """The image of a sample, as it is in its file."""
        return self._part(position, 0)

    def _label(self, position: int) -> int:
        if self._places[position, 5] < 0:
            return 0
        content = self._part(position, 2)
        if not re.fullmatch(rb"(\xef\xbb\xbf)?\s*[+-]?[0-9]{1,18}\s*", content):
            raise DataError(f"{self.where(position)} has class {content[:20]!r}: expected a whole number.")
        return int(content.decode("utf-8-sig"))

    def labels(self) -> np.ndarray:
        """The labels of all samples; all 0 if no sample has a label."""
        without = np.flatnonzero(self._places[:, 5] < 0)
        if 0 < without.size < len(self):
            raise DataError(
                f"{self.where(int(without[0]))} has no class, but others have ({without.size} such samples): give "
                "every sample KEY.cls, or none."
            )
        return np.array([self._label(i) for i in range(len(self))])

    def environments(self, field: str) -> np.ndarray:
        """Samples of tar files say nothing of environments: -1 for each."""
        del field
        return np.full(len(self), UNKNOWN)

    def key(self, position: int) -> str:
        """The name of a sample: its shard and the name of its image there, without the ending."""
        shard, offset = self._places[position, :2]
        with open(self.paths[shard], "rb") as file:
            file.seek(offset - _BLOCK)
            name = file.read(_BLOCK)[:100].rstrip(b"\0").decode("utf-8", "replace")  # longer names are cut
        return f"{self.paths[shard].name}: {pathlib.PurePosixPath(name).with_suffix('')}"

    def where(self, position: int) -> str:
        """The location of an example, for messages."""
        return f"sample {position} in {self.paths[self._places[position, 0]]}"


def has_samples(path: pathlib.Path) -> bool:
    """Whether a tar file has a sample; one that cannot be read has, until it is read as a shard."""
    samples = _Samples()
    try:
        with open(path, "rb") as file:
            for member in _members(file, path):
                samples.add(0, path, member)
                if samples.keys:
                    return True
    except (tarfile.TarError, OSError):
        return True
    return False


class _Samples:
    """The samples found so far."""

    def __init__(self) -> None:
        self.places: list[list[int]] = []  # shard, then offset and size of image, text and class
        self.keys: list[str] = []
        self._dotted: set[tuple[str, int]] = set()  # of the last sample: the rest of a key with dots, and the part

    def add(self, shard: int, path: pathlib.Path, member: tarfile.TarInfo) -> None:
        """Adds a member of a tar file to its sample."""
        folder, _, name = member.name.rpartition("/")
        if member.isdir() or name.startswith(".") or "__MACOSX" in folder.split("/"):
            return  # hidden files and those a Mac adds belong to no sample
        stem, _, ending = name.partition(".")
        rest, _, last = ending.lower().rpartition(".")
        part = PARTS.get(last)
        if part is None:
            return
        key = f"{folder}/{stem}"
        if not member.isreg() or member.issparse():
            raise DataError(
                f"{member.name!r} in {path} is a link or a sparse file, expected plain files: write it again with tar "
                "--hard-dereference --dereference."
            )
        if not self.keys or self.keys[-1] != key or self.places[-1][0] != shard:
            self.keys.append(key)
            self.places.append([shard, -1, 0, -1, 0, -1, 0])
            self._dotted.clear()
        if rest:
            self._dotted.add((rest, part))
            if self.places[-1][1] < 0 or self.places[-1][3] < 0:
                return  # complete later, or else refused as incomplete
            if {(rest, 0), (rest, 1)} <= self._dotted:
                raise self._dots(key, path, name)
            return
        place = self.places[-1]
        if place[1 + 2 * part] >= 0:
            raise DataError(
                f"Sample {key!r} in {path} has its {NAMES[part]} twice ({member.name!r} is the second): keep one of "
                "them, or give the samples different keys."
            )
        place[1 + 2 * part : 3 + 2 * part] = [member.offset_data, member.size]

    def check(self, paths: list[pathlib.Path], places: np.ndarray) -> None:
        """Refuses incomplete samples, and files without any."""
        incomplete = np.flatnonzero((places[:, (1, 3)] < 0).any(1))
        if incomplete.size:
            first = incomplete[0]
            raise DataError(
                f"Sample {self.keys[first]!r} in {paths[places[first, 0]]} has no image or no text ({len(incomplete)} "
                f"such samples): {EXPECTED}; KEY is what comes before the first dot of a name."
            )
        if not len(places):
            raise DataError(f"{paths[0]} and the other shards of its split have no sample: {EXPECTED}.")

    def _dots(self, key: str, path: pathlib.Path, name: str) -> DataError:
        return DataError(
            f"{name!r} in {path} has more than one dot: by WebDataset's rules it is a part of sample {key!r}, which "
            "has an image and a text already; rename the files so that keys have no dots."
        )


def _members(file: IO[bytes], path: pathlib.Path) -> Iterator[tarfile.TarInfo]:
    """The members of all archives in a file, one after the other.

    The standard library ends at the first empty block, at a damaged header and at the end of the file, without a word.
    """
    start = file.read(6)
    packed = next((name for magic, name in _COMPRESSED.items() if start.startswith(magic)), None)
    if packed is not None:
        raise DataError(
            f"{path} is a {packed} file, expected a plain tar file, which can be read at random: unpack it, and write "
            "the .tar that is in it."
        )
    size, offset = file.seek(0, os.SEEK_END), 0
    while offset < size or not offset:
        file.seek(offset)
        with tarfile.open(fileobj=file, mode="r:") as archive:
            yield from archive
            offset = archive.offset
        file.seek(offset)
        block = file.read(_BLOCK)
        if block.count(0) != _BLOCK:
            what = "ends without the empty block that closes a tar file" if not block.strip(b"\0") else "has no header"
            raise DataError(
                f"{path} {what} at byte {offset:,} of {size:,}: it is damaged or cut short; fetch or write it again."
            )
        offset = _after_zeros(file, offset, size)


def _after_zeros(file: IO[bytes], offset: int, size: int) -> int:
    """Where the next block that is not empty begins, or ``size``."""
    while offset < size:
        file.seek(offset)
        content = file.read(256 * _BLOCK)
        left = len(content) - len(content.lstrip(b"\0"))
        if left < len(content):
            return offset + left - left % _BLOCK
        offset += len(content)
    return size
