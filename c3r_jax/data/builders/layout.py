"""What a benchmark's layout must tell: what is on disk, which items there are, and what one of them holds."""

import abc
import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np

from c3r_jax.errors import C3RError

KINDS = ("image", "text", "features", "sequence", "audio", "video", "volume")
TASKS = ("classification", "multilabel", "regression", "segmentation")
Value = bytes | str | np.ndarray | list[bytes] | dict[str, int] | None
Record = dict[str, Value]


class DamagedItem(C3RError):
    """One item cannot be used (truncated image, bad line, missing file, NaN features); its message is the reason."""


@dataclasses.dataclass(frozen=True)
class Item:
    """One example before it is read.

    Attributes:
      key: unique within its split, and what a person would look for: a file's name, an id.
      label: class id, number, (K,) 0/1 array, or None where the reader finds it (segmentation masks) or it is unknown.
      place: what the layout's reader needs to find it, picklable and small: relative paths, a position, a text.
      damage: why it cannot be used, if listing it showed that already (a bad line of JSON); None: nothing known.
    """

    key: str
    label: Any
    place: Any = None
    damage: str | None = None


class Layout(abc.ABC):
    """A benchmark as people have it on disk.

    Attributes:
      name: as on the command line and in ``config.data.name``.
      title: its name in words.
      homepage: where people get it.
      license: what its owners allow, in a few words.
      task: one of TASKS.
      kinds: {modality: one of KINDS}, sorted by name, which is the order of ``present``.
      shapes: {modality: shape of its array} for features (F,), sequences (T, F) and volumes (D, H, W, C), and
        "label" for masks (D, H, W); None stands for a side that differs between items.
      sample_rate: Hz of its audio, if it has any.
      published_sizes: {split: examples}, as published; a split of unknown size is not in it.
      splits: {name of a split here: its name in the layout}; "train", "validation" and "test" where there are such.
      unlabelled: splits (names as here) that may come without labels: then every item of it has label None.
      first_seen: whether class ids in the order of first appearance are offered (some public loaders take them so).
      fit: how images become squares, see ``decode_image``: "crop" or "squash".
      spectrogram: what its audio becomes as a model's input, see ``c3r_jax.data.audio.spectrogram``: "stft" or "fbank".
      version: of what is written; a new one where this layout's reading changes.
      part_size: items that are read and kept together; fewer where they are large.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    homepage: ClassVar[str]
    license: ClassVar[str]
    task: str = "classification"
    kinds: Mapping[str, str]
    shapes: Mapping[str, tuple[int, ...]] = {}
    sample_rate: ClassVar[int | None] = None
    published_sizes: Mapping[str, int]
    splits: Mapping[str, str]
    unlabelled: ClassVar[tuple[str, ...]] = ()
    first_seen: ClassVar[bool] = False
    fit: ClassVar[str] = "crop"
    spectrogram: ClassVar[str] = "fbank"
    version: ClassVar[str] = "1.0.0"
    part_size: ClassVar[int] = 256

    def opened(self, source: pathlib.Path) -> "Layout":
        """This layout as ``source`` has it: itself, unless the source says what its modalities are."""
        del source
        return self

    @property
    def origin(self) -> str:
        """Where people get it, in a sentence."""
        return f"People get it at {self.homepage} (licence: {self.license})."

    @abc.abstractmethod
    def problems(self, source: pathlib.Path) -> list[str]:
        """What of the layout is missing in ``source``, one sentence each that names the path; [] if nothing is."""

    @abc.abstractmethod
    def class_names(self, source: pathlib.Path) -> tuple[str, ...]:
        """Names by class id, sorted unless the benchmark fixes an order; () for regression."""

    def list_files(self, source: pathlib.Path) -> list[pathlib.Path]:
        """The files that say which items there are, if any: their checksums are written into the manifest."""
        del source
        return []

    @abc.abstractmethod
    def items(self, source: pathlib.Path) -> dict[str, list[Item]]:
        """The items of each split, in a fixed order, found by listing and reading lists only: seconds, not hours."""

    @abc.abstractmethod
    def reader(self, source: pathlib.Path) -> Callable[[Item], Record]:
        """A function that reads one item; called once in each worker, so it may open large files.

        Its record has one value per modality: an image file's bytes (image; they are decoded and checked afterwards), a
        str (text), a float32 array (features, sequence, volume), int16 samples (audio), a list of image files (video),
        None (naturally missing); "label" (a uint8 mask) where items have none; and "mended", {what: how often}, if
        values were replaced, which is summed up in the manifest. It raises :class:`DamagedItem` with
        a reason for an item that cannot be used; an OSError or ValueError counts as one, too.
        """
