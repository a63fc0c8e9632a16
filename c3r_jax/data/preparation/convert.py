"""From an item on disk to a stored entry: every value is checked, and a reason is given if it cannot be used."""

import dataclasses
import pathlib
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from c3r_jax.data.media.audio import spectrogram
from c3r_jax.data.media.image import PLAIN, PictureRules
from c3r_jax.data.preparation.layout import DamagedItem, Item, Layout
from c3r_jax.data.preparation.source_files import look_at_image
from c3r_jax.errors import C3RError, DataError

# One item: index, key, and either reason or label, one value per modality, and digests of what its pictures show.
Entry = dict[str, Any]
MAX_TEXT = 1 << 20
MAX_FRAMES = 10_000


@dataclasses.dataclass(frozen=True)
class Converter:
    """Reads and checks the items of a layout.

    Attributes:
      layout: layout of the benchmark.
      source: directory of the benchmark.
      num_classes: number of classes of its labels.
    """

    layout: Layout
    source: pathlib.Path
    num_classes: int

    def reader(self) -> Callable[[int, Item], Entry]:
        """Returns a function from index and item to entry; called once per process, since it may open large files."""
        read = self.layout.reader(self.source)

        def convert(index: int, item: Item) -> Entry:
            try:
                if item.damage is not None:
                    raise DamagedItem(item.damage)
                record = dict(read(item))
                label, repairs = record.pop("label", item.label), record.pop("mended", None)
                shown: dict[str, bytes] = {}
                values = {name: self._value(name, record.pop(name, None), shown) for name in self.layout.kinds}
                if record:
                    raise TypeError(f"{self.layout.name} gives {sorted(record)}, which are none of its modalities.")
                if all(value is None for value in values.values()):
                    raise DamagedItem("all of its modalities are missing")
                entry = {"index": index, "key": item.key, "label": self._label(label), **values}
                return entry | ({"mended": repairs} if repairs else {}) | ({"shown": shown} if shown else {})
            except (C3RError, OSError, ValueError, EOFError) as error:
                reason = str(error) if isinstance(error, C3RError) else f"{type(error).__name__}: {error}"
                return {"index": index, "key": item.key, "reason": reason}

        return convert

    def _value(self, name: str, value: Any, shown: dict[str, bytes]) -> Any:
        """A checked value; of pictures and videos ``shown`` gets a digest of what they show."""
        if value is None:
            return None
        kind = self.layout.kinds[name]
        try:
            if kind in ("image", "video"):
                rules = self.layout.pictures.get(name, PLAIN)
                stored, shown[name] = look_at_image(value, rules) if kind == "image" else _frames(value, rules)
                return stored
            checked = _CHECKS[kind](value, self.layout.shapes.get(name))
            if kind == "audio":  # computed as in training: some spectrograms need a minimum length
                spectrogram(value, self.layout.sample_rate or 0, self.layout.spectrogram)
            return checked
        except (DamagedItem, DataError) as error:
            raise DamagedItem(f"{name}: {error}") from error

    def _label(self, label: Any) -> Any:
        found = self.layout.task.item_label(label, self.num_classes)
        return pack(_shaped(found, self.layout.shapes.get("label"))) if self.layout.task.dense else found


def pack(array: np.ndarray) -> Entry:
    """Returns an array as plain values for a part file; :func:`unpack` is the inverse."""
    # The fastest compression level: a part is read once, and most of a brain scan is air.
    return {"dtype": array.dtype.str, "shape": array.shape, "zlib": zlib.compress(array.tobytes(), 1)}


def unpack(packed: Mapping[str, Any]) -> np.ndarray:
    """Returns a packed array.

    Examples:
      >>> unpack(pack(np.arange(3.0)))
      array([0., 1., 2.])
    """
    return np.frombuffer(zlib.decompress(packed["zlib"]), packed["dtype"]).reshape(packed["shape"])


def _shaped(array: np.ndarray, shape: tuple[int | None, ...] | None) -> np.ndarray:
    expected = array.shape if shape is None else shape
    wrong = len(expected) != array.ndim or any(
        wanted not in (None, size) for size, wanted in zip(array.shape, expected, strict=True)
    )
    if wrong or not array.size:
        raise DamagedItem(f"it has shape {array.shape}, expected {shape or 'at least one value'}")
    return array


def _text(value: Any, shape: Any) -> str:
    del shape
    size = len(value.encode())  # raises a ValueError for half of a surrogate pair, which no file can hold
    if not 0 < size <= MAX_TEXT:
        raise DamagedItem(f"its text has {size:,} bytes, expected 1 to {MAX_TEXT:,}")
    return value


def _floats(value: Any, shape: Any) -> Entry:
    array = _shaped(np.asarray(value, np.float32), shape)
    if not np.isfinite(array).all():
        raise DamagedItem(f"{np.count_nonzero(~np.isfinite(array))} of {array.size} values are NaN or infinite")
    return pack(array)


def _sound(value: Any, shape: Any) -> Entry:
    array = np.asarray(value)
    if array.dtype != np.int16 or array.ndim != 1:
        raise DamagedItem(f"its sound is a {array.dtype} array of shape {array.shape}, expected int16 (samples,)")
    return pack(_shaped(array, shape))


def _frames(value: Any, rules: PictureRules) -> tuple[list[bytes], bytes]:
    if not 0 < len(value) <= MAX_FRAMES:
        raise DamagedItem(f"it has {len(value):,} frames, expected 1 to {MAX_FRAMES:,}")
    frames, digests = zip(*(look_at_image(frame, rules) for frame in value), strict=True)
    return list(frames), b"".join(digests)


_CHECKS: dict[str, Callable[[Any, Any], Any]] = {
    "text": _text,
    "features": _floats,
    "sequence": _floats,
    "audio": _sound,
    "volume": _floats,
}
