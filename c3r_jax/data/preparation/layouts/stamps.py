"""Stamps: pictures, English descriptions and spoken French, from the Debian package tuxpaint-stamps-default."""

import importlib
import io
import pathlib
import re
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Int16

from c3r_jax.data.preparation.grouping import UnionFind, assign_splits_by_class
from c3r_jax.data.preparation.layout import DamagedItem, Item, Layout, Record
from c3r_jax.data.preparation.layouts.clips import MAX_SECONDS, one_channel
from c3r_jax.data.preparation.packages import Files, Package
from c3r_jax.data.preparation.source_files import on_square

CLASSES = {  # folder: class
    "animals": "animals",
    "clothes": "clothes & household",
    "food": "food",
    "household": "clothes & household",
    "plants": "plants",
    "seasonal": "seasonal",
    "symbols": "symbols",
    "town": "town",
    "vehicles": "vehicles",
}
SPEECH, RATE = "_desc_fr.ogg", 16000
SHARES = {"train": 0.6, "validation": 0.2, "test": 0.2}
PACKAGE = Package(
    command="apt-get download tuxpaint-stamps-default",
    archives=("tuxpaint-stamps-default_*.deb",),
    wanted=rf"(?:{'|'.join(CLASSES)})/(?:[^/]+/)*[^/]+(?:\.png|\.txt|{re.escape(SPEECH)})",
    root="stamps/",
)
DECODER = "soundfile"


class Stamps(Layout):
    """Stamps of Tux Paint with a spoken French description, from the nine folders with at least 40 of them.

    Pictures are centred on a white square of at most 256 pixels. One stamp in seven has no picture (only an SVG
    drawing), one has no text; these are naturally missing modalities. Clothes and household objects, few of which have
    pictures, are one class. Near-duplicates belong to one family and one split: stamps with the same text (ignoring
    case and numbers), the same recording, or names that differ by a number or a direction. Families are split 60/20/20
    within each class.
    """

    name = "stamps"
    title = "Tux Paint stamps (picture, English text, French speech)"
    homepage = "https://packages.debian.org/tuxpaint-stamps-default"
    license = "GPL-2"
    kinds = {"image": "image", "speech": "audio", "text": "text"}
    sample_rate = RATE
    spectrogram = "stft"
    published_sizes = {"train": 501, "validation": 168, "test": 166}
    splits = {split: split for split in SHARES}
    fit = "squash"

    def problems(self, source: pathlib.Path) -> list[str]:
        """See :class:`Layout`: the package or its content with every class, and a decoder for its sounds."""
        found = PACKAGE.problems(source, ())
        if not found:
            present = {CLASSES[name.split("/")[0]] for name in _stamps(PACKAGE.files(source))}
            place = PACKAGE.archive(source) or source
            absent = sorted(set(CLASSES.values()) - present)
            found = [f"{place} has no spoken stamps of class {name!r}: fetch the package again." for name in absent]
        try:
            importlib.import_module(DECODER)
        except ImportError:
            found.append(f"Its sounds are Ogg files, which need a decoder: run `pip install {DECODER}`.")
        return found

    def class_names(self, source: pathlib.Path) -> tuple[str, ...]:
        """See :class:`Layout`."""
        del source
        return tuple(sorted(set(CLASSES.values())))

    def list_files(self, source: pathlib.Path) -> list[pathlib.Path]:
        """See :class:`Layout`: the package."""
        archive = PACKAGE.archive(source)
        return [] if archive is None else [archive]

    def items(self, source: pathlib.Path) -> dict[str, list[Item]]:
        """See :class:`Layout`: by name."""
        files, classes = PACKAGE.files(source), self.class_names(source)
        stamps = _stamps(files)
        labels = [classes.index(CLASSES[name.split("/")[0]]) for name in stamps]
        families = _families(stamps, files)
        splits = assign_splits_by_class(families, labels, SHARES, 0)
        items: dict[str, list[Item]] = {split: [] for split in SHARES}
        for name, label, family in zip(stamps, labels, families, strict=True):
            items[splits[family]].append(Item(name, label, place=family))
        return items

    def reader(self, source: pathlib.Path) -> Callable[[Item], Record]:
        """See :class:`Layout`."""
        files = PACKAGE.files(source)

        def read(item: Item) -> Record:
            picture = files.get(f"{item.key}.png")
            return {
                "image": None if picture is None else on_square(picture),
                "speech": _speech(files[item.key + SPEECH]),
                "text": _text(files, item.key),
            }

        return read


def _stamps(files: Files) -> list[str]:
    """Names of the stamps with speech, sorted: their files' paths without endings."""
    return sorted(name.removesuffix(SPEECH) for name in files if name.endswith(SPEECH))


def _text(files: Files, stamp: str) -> str | None:
    """The English description: the first line, before the translations."""
    content = files.get(f"{stamp}.txt", b"").lstrip()
    try:
        return content.splitlines()[0].decode("utf-8-sig").strip() if content else None
    except UnicodeDecodeError as error:
        raise DamagedItem(f"its text is not in UTF-8 ({error})") from error


def _families(stamps: list[str], files: Files) -> list[str]:
    """The family of each stamp, named after its first stamp; near-duplicates share a family."""

    def words(stamp: str) -> str | None:
        text = files.get(f"{stamp}.txt", b"").lstrip().split(b"\n")[0].decode("utf-8", "replace")
        return re.sub(r"[^\w]|\d", "", text.lower()) or None

    def stem(stamp: str) -> str:
        return re.sub(r"(?:[ _-]*(?:\d+|left|right|mirror|profile|front|[a-d](?<=[ _-].)))+$", "", stamp) or stamp

    union = UnionFind(len(stamps))
    union.join_equal(words(stamp) for stamp in stamps)
    union.join_equal(files[stamp + SPEECH] for stamp in stamps)
    union.join_equal(stem(stamp) for stamp in stamps)
    return [stamps[union.find(i)] for i in range(len(stamps))]


def _speech(content: bytes) -> Int16[np.ndarray, " samples"]:
    """Decodes an Ogg file."""
    decoder: Any = importlib.import_module(DECODER)
    try:
        with decoder.SoundFile(io.BytesIO(content)) as file:
            if file.frames > MAX_SECONDS * file.samplerate:
                raise DamagedItem(f"its sound says it has {file.frames:,} samples, more than {MAX_SECONDS} s")
            samples = file.read(dtype="int16")
            source_rate = file.samplerate
    except (RuntimeError, ValueError, TypeError) as error:  # the decoder raises RuntimeErrors
        raise DamagedItem(f"its sound is no whole Ogg file ({error})") from error
    return one_channel(samples, source_rate, RATE)
