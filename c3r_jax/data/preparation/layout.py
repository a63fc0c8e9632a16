"""The interface of a benchmark's layout: the files on disk, the list of items, and a reader of one item."""

import abc
import copy
import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np

from c3r_jax.data.media.image import PictureRules
from c3r_jax.data.preparation.missing_values import MissingValues
from c3r_jax.errors import C3RError
from c3r_jax.tasks.base import TaskSpec
from c3r_jax.tasks.classification import CLASSIFICATION

KINDS = ("image", "text", "features", "sequence", "audio", "video", "volume")
Value = bytes | str | np.ndarray | list[bytes] | dict[str, int] | None
Record = dict[str, Value]


class DamagedItem(C3RError):
    """An item cannot be used (truncated image, bad line, missing file, NaN features); the message is the reason."""


@dataclasses.dataclass(frozen=True)
class Item:
    """One example, before it is read.

    Attributes:
      key: unique within its split and recognisable for a person: a file's name, an id.
      label: class id, number, (K,) 0/1 array, or None if the reader returns it (segmentation masks) or it is unknown.
      place: what the layout's reader needs to find the item, small and picklable: relative paths, a position, a text.
      damage: why it cannot be used, if that is known from listing (such as a bad line of JSON); else None.
      environments: its value in each of the layout's columns of environments; "" where it is not known.
    """

    key: str
    label: Any
    place: Any = None
    damage: str | None = None
    # Without repr: the files of a preparation are named after items' reprs, and environments are in none of them.
    environments: tuple[str, ...] = dataclasses.field(default=(), repr=False)


class Layout(abc.ABC):
    """A benchmark, as it is distributed on disk.

    Attributes:
      name: name on the command line and in ``config.data.name``.
      title: name for people.
      homepage: where to get it.
      license: its licence, in a few words.
      task: that its labels are for, of ``c3r_jax.tasks``.
      kinds: {modality: one of KINDS}, sorted by name, which is the order of ``present``.
      shapes: {modality: shape of its array} for features (F,), sequences (T, F) and volumes (D, H, W, C), and
        "label" for masks (D, H, W); None is a side that differs between items.
      regions: {name: class ids} of masks, whose overlap is scored; {}: every class but the first (background).
      sample_rate: sample rate of its audio in Hz, if it has any.
      published_sizes: {split: number of examples}, as published; splits of unknown size are omitted.
      splits: {name of a split here: its name in the layout}; "train", "validation" and "test" if they exist.
      unlabelled: splits (names as here) that may have no labels: then every item of the split has label None.
      environments: columns that say which environment an item is from, such as ("subject",); the first is the one that
        runs use unless they name another.
      first_seen: whether class ids in the order of first appearance are offered, as in some public loaders.
      fit: how images become squares, see ``decode_image``: "crop" or "squash".
      spectrogram: spectrogram of its audio, see :func:`spectrogram`: "stft" or "fbank".
      version: version of the output; increased when this layout is read differently.
      part_size: number of items per part file; smaller if items are large.
      missing: which words in its lists stand for a missing value.
      columns: {modality: names of the columns of its features}, where they have names.
      pictures: {modality: what the values of its images or frames mean}, where it is not the default.
      phrases: {class name: what a person would call its examples}, for classification without labels.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    homepage: ClassVar[str]
    license: ClassVar[str]
    task: TaskSpec = CLASSIFICATION
    kinds: Mapping[str, str]
    shapes: Mapping[str, tuple[int, ...]] = {}
    regions: ClassVar[Mapping[str, tuple[int, ...]]] = {}
    sample_rate: ClassVar[int | None] = None
    published_sizes: Mapping[str, int]
    splits: Mapping[str, str]
    unlabelled: ClassVar[tuple[str, ...]] = ()
    environments: tuple[str, ...] = ()
    first_seen: ClassVar[bool] = False
    fit: ClassVar[str] = "crop"
    spectrogram: ClassVar[str] = "fbank"
    version: ClassVar[str] = "1.0.0"
    part_size: ClassVar[int] = 256
    missing: MissingValues = MissingValues()
    columns: Mapping[str, tuple[str, ...]] = {}
    pictures: Mapping[str, PictureRules] = {}
    phrases: ClassVar[Mapping[str, tuple[str, ...]]] = {}

    def for_source(self, source: pathlib.Path) -> "Layout":
        """The layout for a source: this one, unless the source itself defines its modalities."""
        del source
        return self

    def with_missing(self, missing: MissingValues) -> "Layout":
        """A copy with another rule for missing values."""
        changed = copy.copy(self)
        changed.missing = missing
        return changed

    def with_pictures(self, rules: PictureRules) -> "Layout":
        """A copy in which the files of all pictures have this meaning."""
        changed = copy.copy(self)
        changed.pictures = {name: rules for name, kind in self.kinds.items() if kind in ("image", "video")}
        return changed

    def missing_values(self, source: pathlib.Path) -> dict[str, dict[str, int]]:
        """{column or key of the lists: {word: how often it stands for a missing value}}."""
        del source
        return {}

    @property
    def origin(self) -> str:
        """A sentence that says where to get the benchmark."""
        return f"It is available at {self.homepage} (licence: {self.license})."

    @abc.abstractmethod
    def problems(self, source: pathlib.Path) -> list[str]:
        """What is missing in ``source``: a sentence with the path for each problem, [] if there is none."""

    @abc.abstractmethod
    def class_names(self, source: pathlib.Path) -> tuple[str, ...]:
        """Names by class id, sorted unless the benchmark fixes an order; () for regression."""

    def list_files(self, source: pathlib.Path) -> list[pathlib.Path]:
        """The files that list the items, if any; their checksums are written into the manifest."""
        del source
        return []

    @abc.abstractmethod
    def items(self, source: pathlib.Path) -> dict[str, list[Item]]:
        """The items of each split in a fixed order, from directories and lists only: this takes seconds, not hours."""

    def notes(self, source: pathlib.Path, items: Mapping[str, list[Item]]) -> list[str]:
        """What a person should know about the items found, such as what was left out and why; a sentence each."""
        del source, items
        return []

    @abc.abstractmethod
    def reader(self, source: pathlib.Path) -> Callable[[Item], Record]:
        """Returns a function that reads one item; called once in each worker, so it may open large files.

        Its record has one value per modality: an image file's bytes (image; decoded and checked later), a str (text), a
        float32 array (features, sequence, volume), int16 samples (audio), a list of image files (video), or None
        (naturally missing). It has "label" (a uint8 mask) if items have none, and "mended", {repair: count}, if values
        were replaced; the manifest has the totals. The function raises :class:`DamagedItem` with a reason for an item
        that cannot be used; an OSError or ValueError has the same effect.
        """
