"""Clips of people speaking: lists of clips, and a wav file and a folder of frames for each."""

import collections
import io
import math
import pathlib
import struct
import warnings
from collections.abc import Callable, Iterator
from typing import ClassVar, NamedTuple

import numpy as np
from jaxtyping import Int16
from scipy.io import wavfile
from scipy.signal import resample_poly

from c3r_jax.data.media.audio import unit_samples
from c3r_jax.data.preparation.layout import DamagedItem, Item, Layout, Record
from c3r_jax.data.preparation.source_files import is_clutter, read_file, resolve_inside
from c3r_jax.errors import DataError
from c3r_jax.files.natural import in_natural_order

FRAME_ENDINGS = (".jpg", ".jpeg", ".png")
Repairs = collections.Counter[str]
_UNKNOWN = 0x7FFF0000  # a size of a wav file from here on stands for "not known yet"
_AUDIBLE = (8 / 32768) ** 2  # mean square of a sound; below it there is next to none, so that none can be lost
MAX_SECONDS = 600  # of one clip; more is a mistake or an attack


class Clip(NamedTuple):
    """The content of one line of a list."""

    name: str
    label: str
    text: str | None = None


class ClipLayout(Layout):
    """Clips that are listed in text files, one per line.

    Attributes:
      lists: possible names of the list of a split, the first that exists is used; ``{split}`` is its name on disk.
      sounds: possible paths of a clip's wav file, with ``{split}`` and ``{name}``.
      frames: possible paths of the folder of its frames.
      num_frames: number of frames that are read, evenly spaced.
      labels: {label as in the lists: class name}.
      lacks_video: whether video is a missing modality of a clip without frames; otherwise the clip is damaged.
    """

    lists: ClassVar[tuple[str, ...]]
    sounds: ClassVar[tuple[str, ...]]
    frames: ClassVar[tuple[str, ...]]
    num_frames: ClassVar[int]
    labels: ClassVar[dict[str, str]]
    lacks_video: ClassVar[bool] = False
    version = "1.1.0"  # 1.0.0 took frames in the order of their names as texts: 1, 10, 2

    def parse(self, line: str) -> Clip:
        """Parses one line; raises a DamagedItem if it does not have the list's format."""
        raise NotImplementedError

    def problems(self, source: pathlib.Path) -> list[str]:
        """See :class:`Layout`: lists of all splits, and folders for sounds and frames."""
        found = []
        for split in self.splits.values():
            if self._list(source, split) is None:
                names = " or ".join(name.format(split=split) for name in self.lists)
                found.append(f"{source} has no list {names}: get it where {self.homepage} says, or write it.")
            places = [self.sounds] if self.lacks_video else [self.sounds, self.frames]
            for patterns in places:
                folders = [pathlib.PurePath(pattern.format(split=split, name="x")).parent for pattern in patterns]
                if not any((source / folder).is_dir() for folder in folders):
                    names = " nor ".join(str(folder) for folder in folders)
                    found.append(f"{source} has no folder {names}: put what belongs there in one of them.")
        return found

    def class_names(self, source: pathlib.Path) -> tuple[str, ...]:
        """See :class:`Layout`."""
        return tuple(sorted(set(self.labels.values())))

    def list_files(self, source: pathlib.Path) -> list[pathlib.Path]:
        """See :class:`Layout`."""
        paths = (self._list(source, split) for split in self.splits.values())
        return [path for path in paths if path is not None]

    def items(self, source: pathlib.Path) -> dict[str, list[Item]]:
        """See :class:`Layout`: one clip per line."""
        return {split: list(self._items(source, name)) for split, name in self.splits.items()}

    def _items(self, source: pathlib.Path, split: str) -> Iterator[Item]:
        path = self._list(source, split)
        if path is None:
            return
        classes = self.class_names(source)
        for number, line in enumerate(path.read_bytes().splitlines(), 1):
            if not line.strip():
                continue
            try:
                clip = self.parse(line.decode("utf-8-sig").strip())
                resolve_inside(source, clip.name)
                if clip.label not in self.labels:
                    raise DamagedItem(f"it has label {clip.label!r}, expected one of {', '.join(self.labels)}")
            except (DamagedItem, UnicodeDecodeError) as error:
                shown = line[:80].decode("utf-8", "replace")
                yield Item(f"{path.name}, line {number}", None, damage=f"{shown!r}: {error}")
                continue
            yield Item(clip.name, classes.index(self.labels[clip.label]), place=(split, clip.text))

    def _list(self, source: pathlib.Path, split: str) -> pathlib.Path | None:
        paths = (source / name.format(split=split) for name in self.lists)
        return next((path for path in paths if path.is_file()), None)

    def reader(self, source: pathlib.Path) -> Callable[[Item], Record]:
        """See :class:`Layout`."""

        def find(patterns: tuple[str, ...], item: Item) -> str:
            names = [pattern.format(split=item.place[0], name=item.key) for pattern in patterns]
            return next((name for name in names if resolve_inside(source, name).exists()), names[0])

        def read(item: Item) -> Record:
            rate, frames = self.sample_rate, find(self.frames, item)
            assert rate is not None
            repairs: Repairs = collections.Counter()
            sound = int16_samples(read_file(source, find(self.sounds, item)), rate, repairs)
            record: Record = {"audio": sound, "video": read_frames(source, frames, self.num_frames)}
            if record["video"] is None and not self.lacks_video:
                raise DamagedItem(f"its folder of frames {frames!r} is missing or empty")
            record |= {"text": item.place[1]} if "text" in self.kinds else {}
            return record | {"mended": dict(repairs)} if repairs else record

        return read


def int16_samples(content: bytes, rate: int, repairs: Repairs | None = None) -> Int16[np.ndarray, " samples"]:
    """Returns the sound of a wav file as int16 samples of one channel at ``rate`` Hz.

    Channels are averaged; another rate is converted by polyphase filtering. A header that does not know the length, as
    programs write it that send sound through a pipe, gets that of the file.

    Args:
      content: the file.
      rate: the rate to return.
      repairs: counts what was corrected.

    Raises:
      DamagedItem: the sound is no wav file, cut short, empty, not finite, in an unknown range, or longer than
        :data:`MAX_SECONDS`.
    """
    repairs = collections.Counter() if repairs is None else repairs
    content, unknown = with_length(content)
    repairs.update({"the length of a sound, which its header did not know": 1} if unknown else {})
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            source_rate, samples = wavfile.read(io.BytesIO(content))
    except Exception as error:  # the reader raises many kinds of errors on damaged files
        raise DamagedItem(f"its sound is no whole wav file ({type(error).__name__}: {error})") from error
    if any("prematurely" in str(warning.message) for warning in caught):
        raise DamagedItem("its sound is cut short: the wav file has fewer samples than it says")
    return one_channel(samples, source_rate, rate, repairs)


def with_length(content: bytes) -> tuple[bytes, bool]:
    """A wav file whose header knows its length, and whether it did not: sizes of 0, or of all or nearly all ones."""
    if content[:4] != b"RIFF" or content[8:12] != b"WAVE":
        return content, False
    place, align = 12, 1
    while place + 8 <= len(content):
        name, (size,) = content[place : place + 4], struct.unpack_from("<I", content, place + 4)
        if name == b"fmt " and place + 22 <= len(content):
            align = max(1, struct.unpack_from("<H", content, place + 20)[0])
        if name == b"data":
            there = (len(content) - place - 8) // align * align
            whole = struct.unpack_from("<I", content, 4)[0]
            unknown = size >= _UNKNOWN or (size == 0 and (whole >= _UNKNOWN or whole <= place))
            if not unknown or not there:
                return content, False
            head = content[:4] + struct.pack("<I", place + there) + content[8 : place + 4] + struct.pack("<I", there)
            return head + content[place + 8 : place + 8 + there], True
        place += 8 + size + size % 2
    return content, False


def one_channel(
    samples: np.ndarray, source_rate: int, rate: int, repairs: Repairs | None = None
) -> Int16[np.ndarray, " samples"]:
    """Converts sound (n,) or (n, channels) at ``source_rate`` Hz to int16 samples of one channel at ``rate`` Hz.

    Raises:
      DamagedItem: the sound is empty, not finite, in an unknown range, or longer than :data:`MAX_SECONDS`, or its
        channels cancel one another.
    """
    if not samples.size or not 100 <= source_rate <= 1_000_000 or len(samples) > MAX_SECONDS * source_rate:
        raise DamagedItem(
            f"its sound has {len(samples):,} samples at {source_rate} Hz, expected a moment to {MAX_SECONDS} s"
        )
    if samples.dtype == np.int16 and samples.ndim == 1 and source_rate == rate:
        return samples
    try:
        sound, scaled = unit_samples(samples)
    except DataError as error:
        raise DamagedItem(f"its {str(error).removeprefix('the ')}") from error
    if repairs is not None and scaled:
        repairs["floats of a sound in the range of int16, divided by 32768"] += 1
    if sound.ndim == 2:
        mean = sound.mean(1)
        power = np.square(sound).mean()  # of near silence rounding and dither may cancel
        if power > _AUDIBLE and 1e-4 * power > np.square(mean).mean():
            raise DamagedItem(
                f"its sound has {sound.shape[1]} channels that cancel one another, as of a reversed cable: write one"
            )
        sound = mean
    common = math.gcd(rate, source_rate)
    sound = resample_poly(sound, rate // common, source_rate // common)
    return np.clip(np.round(sound * 32768), -32768, 32767).astype(np.int16)


def read_frames(source: pathlib.Path, folder: str, count: int) -> list[bytes] | None:
    """Reads ``count`` encoded frames of a folder, evenly spaced from the first; None if there is no frame.

    These are the frames ``i n // count`` of n, in the order of their numbers (frame_2 before frame_10); some repeat if
    n is less than ``count``.
    """
    path = resolve_inside(source, folder)
    paths = path.iterdir() if path.is_dir() else ()
    found = [path.name for path in paths if path.suffix.lower() in FRAME_ENDINGS and not is_clutter(path.name)]
    names = in_natural_order(found)
    chosen = [names[i * len(names) // count] for i in range(count if names else 0)]
    return [read_file(source, f"{folder}/{name}") for name in chosen] or None
