"""From an item on disk to what is stored of it: every value is checked, and what cannot be used says why."""

import dataclasses
import pathlib
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from c3r_jax.data.audio import spectrogram
from c3r_jax.data.builders.files import check_image
from c3r_jax.data.builders.layout import DamagedItem, Item, Layout
from c3r_jax.errors import C3RError, DataError

Entry = dict[str, Any]  # of one item: index, key and either reason or label, present and one value per modality
MAX_TEXT = 1 << 20
MAX_FRAMES = 10_000


@dataclasses.dataclass(frozen=True)
class Converter:
    """Reads and checks the items of a layout.

    Attributes:
      layout: the benchmark's.
      source: its directory.
      num_classes: classes of its labels.
    """

    layout: Layout
    source: pathlib.Path
    num_classes: int

    def reader(self) -> Callable[[int, Item], Entry]:
        """A function from an item and its index to its entry; made once per process, for it may open large files."""
        read = self.layout.reader(self.source)

        def convert(index: int, item: Item) -> Entry:
            try:
                if item.damage is not None:
                    raise DamagedItem(item.damage)
                record = dict(read(item))
                label, mended = record.pop("label", item.label), record.pop("mended", None)
                values = {name: self._value(name, record.pop(name, None)) for name in self.layout.kinds}
                if record:
                    raise TypeError(f"{self.layout.name} gives {sorted(record)}, which are none of its modalities.")
                if all(value is None for value in values.values()):
                    raise DamagedItem("all of its modalities are missing")
                entry = {"index": index, "key": item.key, "label": self._label(label), **values}
                return entry | {"mended": mended} if mended else entry
            except (C3RError, OSError, ValueError, EOFError) as error:
                reason = str(error) if isinstance(error, C3RError) else f"{type(error).__name__}: {error}"
                return {"index": index, "key": item.key, "reason": reason}

        return convert

    def _value(self, name: str, value: Any) -> Any:
        if value is None:
            return None
        kind = self.layout.kinds[name]
        try:
            checked = _CHECKS[kind](value, self.layout.shapes.get(name))
            if kind == "audio":  # what training makes of it: some spectra need a frame's length of sound
                spectrogram(value, self.layout.sample_rate or 0, self.layout.spectrogram)
            return checked
        except (DamagedItem, DataError) as error:
            raise DamagedItem(f"{name}: {error}") from error

    def _label(self, label: Any) -> Any:
        task = self.layout.task
        if label is None and task == "classification":
            return -1  # as TensorFlow Datasets marks a class that is unknown
        if task == "regression":
            if label is None or not np.isfinite(np.float64(label)):
                raise DamagedItem(f"its label is {label}, expected a finite number")
            return float(label)
        found = np.asarray(label)
        top = 1 if task == "multilabel" else self.num_classes - 1
        if not np.issubdtype(found.dtype, np.integer) and found.dtype != bool:
            raise DamagedItem(f"its label is a {found.dtype}, expected whole numbers")
        if found.size == 0 or found.min() < 0 or found.max() > top:
            raise DamagedItem(f"its label is {_range(found)}, expected 0 to {top}")
        if task == "segmentation":
            return pack(_shaped(found.astype(np.uint8), self.layout.shapes.get("label")))
        expected = (self.num_classes,) if task == "multilabel" else ()
        if found.shape != expected:
            raise DamagedItem(f"its label has shape {found.shape}, expected {expected}")
        return found.astype(int).tolist()


def pack(array: np.ndarray) -> Entry:
    """Returns an array as plain values for a part; :func:`unpack` is its inverse."""
    # The fastest level: a part is read once, and most of a brain's volume is air.
    return {"dtype": array.dtype.str, "shape": array.shape, "zlib": zlib.compress(array.tobytes(), 1)}


def unpack(packed: Mapping[str, Any]) -> np.ndarray:
    """Returns a packed array.

    Example:
      >>> unpack(pack(np.arange(3.0)))
      array([0., 1., 2.])
    """
    return np.frombuffer(zlib.decompress(packed["zlib"]), packed["dtype"]).reshape(packed["shape"])


def _range(values: np.ndarray) -> str:
    return "empty" if not values.size else str(values) if values.ndim == 0 else f"{values.min()} to {values.max()}"


def _shaped(array: np.ndarray, shape: tuple[int | None, ...] | None) -> np.ndarray:
    expected = array.shape if shape is None else shape
    wrong = len(expected) != array.ndim or any(
        there not in (None, here) for here, there in zip(array.shape, expected, strict=True)
    )
    if wrong or not array.size:
        raise DamagedItem(f"it has shape {array.shape}, expected {shape or 'at least one value'}")
    return array


def _image(value: Any, shape: Any) -> bytes:
    del shape
    return check_image(value)


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


def _frames(value: Any, shape: Any) -> list[bytes]:
    del shape
    if not 0 < len(value) <= MAX_FRAMES:
        raise DamagedItem(f"it has {len(value):,} frames, expected 1 to {MAX_FRAMES:,}")
    return [check_image(frame) for frame in value]


_CHECKS: dict[str, Callable[[Any, Any], Any]] = {
    "image": _image,
    "text": _text,
    "features": _floats,
    "sequence": _floats,
    "audio": _sound,
    "video": _frames,
    "volume": _floats,
}
