"""Crops of a batch: random in training, central in evaluation, at one place for all that shows an example's space."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from c3r_jax.data.batching import Assembler, Batch, Change
from c3r_jax.data.hashing import uniform
from c3r_jax.errors import DataError


@dataclasses.dataclass(frozen=True)
class Crops:
    """What is cut out of images, frames and volumes; by default nothing.

    Attributes:
      image: height and width in pixels of what is kept of images and frames; 0: everything.
      volume: depth, height and width in voxels of what is kept of volumes; (): everything.
      central: take the centre in training too.
    """

    image: int = 0
    volume: tuple[int, ...] = ()
    central: bool = False

    def __post_init__(self):
        if self.image < 0 or len(self.volume) not in (0, 3) or min(self.volume, default=1) < 1:
            raise ValueError(
                f"crops of image {self.image} and volume {self.volume}, expected a side of at least 0 and three sides "
                "of at least 1, or none: choose sizes in pixels and voxels."
            )

    def of(self, kind: str) -> tuple[int, tuple[int, ...]]:
        """The first axis (the batch being axis 0) and the sizes that a kind is cut to; () if it is left whole."""
        if kind == "volume":
            return 1, self.volume
        if kind in ("image", "video") and self.image:
            return (1 if kind == "image" else 2), (self.image, self.image)
        return 0, ()


def space_of(kinds: Mapping[str, str]) -> str:
    """The kind whose space a mask of labels has: volumes before images.

    Example:
      >>> space_of({"flair": "volume", "note": "text"})
      'volume'
    """
    return next((kind for kind in ("volume", "image", "video") if kind in kinds.values()), "")


def crop(
    values: np.ndarray,
    first: int,
    sizes: tuple[int, ...],
    seed: int | None = None,
    keys: tuple[np.ndarray, ...] = (),
    name: str = "values",
) -> np.ndarray:
    """Cuts a window out of each row.

    Args:
      values: (B, ...).
      first: the first axis that is cut; the others follow it.
      sizes: of the window along these axes.
      seed: of the window's place; None: the centre.
      keys: integer arrays (B,) that name each draw.
      name: for messages.

    Returns:
      (B, ...) with these axes as long as ``sizes``.

    Raises:
      DataError: an axis is shorter than its window.
    """
    extents = values.shape[first : first + len(sizes)]
    if any(extent < size for extent, size in zip(extents, sizes, strict=True)):
        raise DataError(
            f"{name!r} has {extents} along the axes of the crop, expected at least {sizes}: choose a smaller crop, or "
            "load the data larger (config.data.resize)."
        )
    if not sizes or extents == sizes:
        return values
    spare = np.array(extents) - np.array(sizes)
    if seed is None:
        starts = np.tile(spare // 2, (len(values), 1))
    else:
        draws = [uniform(seed, f"crop {axis}", *keys) for axis in range(len(sizes))]
        starts = np.floor(np.stack(draws, axis=1) * (spare + 1)).astype(int)
    made = np.empty((*values.shape[:first], *sizes, *values.shape[first + len(sizes) :]), values.dtype)
    before = (slice(None),) * (first - 1)
    for row, start in enumerate(starts.tolist()):
        window = (slice(begin, begin + size) for begin, size in zip(start, sizes, strict=True))
        made[row] = values[row][(*before, *window)]
    return made


def crop_batch(
    batch: dict[str, Any],
    kinds: Mapping[str, str],
    crops: Crops,
    *,
    masks: bool,
    seed: int | None = None,
    keys: tuple[np.ndarray, ...] = (),
) -> dict[str, Any]:
    """Cuts the images, videos and volumes of a batch, and its masks, at one place per example; changes the batch.

    Args:
      batch: of the pipeline.
      kinds: {modality: kind}.
      crops: the sizes.
      masks: whether the labels are masks, of the space of :func:`space_of`.
      seed: of the places in training; None: the centre.
      keys: integer arrays (B,) that name each draw.
    """
    for name, kind in kinds.items():
        batch["inputs"][name] = crop(batch["inputs"][name], *crops.of(kind), seed, keys, name)
    if masks:
        batch["labels"] = crop(batch["labels"], *crops.of(space_of(kinds)), seed, keys, "label")
    return batch


def cropped_batch(
    assembler: Assembler,
    crops: Crops,
    positions: np.ndarray,
    change: Change | None,
    seed: int | None,
    epochs: np.ndarray,
) -> tuple[Batch, dict[str, np.ndarray]]:
    """Returns a batch, cropped, and its word numbers; the whole of a batch of volumes is never in memory.

    Args:
      assembler: of the split.
      crops: the sizes.
      positions: (B,) of the examples in the split.
      change: what each example goes through first.
      seed: of the places in training; None: the centre.
      epochs: (B,) numbers that name each draw, beside the example's index.
    """
    masks = assembler.info.task == "segmentation"
    rows = np.arange(len(positions))
    parts = []
    for part in np.split(rows, len(rows)) if crops.volume and "volume" in assembler.kinds.values() else [rows]:
        own = change and (lambda example, row, part=part, change=change: change(example, int(part[row])))
        batch, words = assembler.batch(positions[part], own)
        keys = (epochs[part], batch["index"])
        parts.append((crop_batch(batch, assembler.kinds, crops, masks=masks, seed=seed, keys=keys), words))
    batches, words = zip(*parts, strict=True)
    return _joined(batches), _joined(words)


def _joined(parts: Sequence[Any]) -> Any:
    if len(parts) == 1:
        return parts[0]
    if isinstance(parts[0], dict):
        return {name: _joined([part[name] for part in parts]) for name in parts[0]}
    return np.concatenate(parts)
