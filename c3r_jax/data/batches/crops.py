"""Crops of a batch: random in training, central in evaluation, the same for all aligned modalities of an example."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from c3r_jax.data.batches.assemble import Assembler, Batch, Change
from c3r_jax.data.counter_rng import uniform
from c3r_jax.errors import DataError


@dataclasses.dataclass(frozen=True)
class Crops:
    """Crop sizes of images, frames and volumes; by default nothing is cropped.

    Attributes:
      image: height and width of the crop of images and frames, in pixels; 0 does not crop.
      volume: depth, height and width of the crop of volumes, in voxels; () does not crop.
      central: whether training crops the centre, too.
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

    def window(self, kind: str) -> tuple[int, tuple[int, ...]]:
        """The first cropped axis (axis 0 is the batch) and the sizes of the crop of a kind; () if it is not cropped."""
        if kind == "volume":
            return 1, self.volume
        if kind in ("image", "video") and self.image:
            return (1 if kind == "image" else 2), (self.image, self.image)
        return 0, ()


def mask_space(kinds: Mapping[str, str]) -> str:
    """The kind of modality that label masks are aligned with: volumes before images.

    Examples:
      >>> mask_space({"flair": "volume", "note": "text"})
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
    """Crops a window from each row.

    Args:
      values: (B, ...).
      first: the first axis that is cropped; the others follow it.
      sizes: sizes of the window along these axes.
      seed: seed of the window's position; None crops the centre.
      keys: integer arrays (B,) that identify each draw.
      name: the modality's name, for messages.

    Returns:
      (B, ...), with ``sizes`` along these axes.

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
    cropped = np.empty((*values.shape[:first], *sizes, *values.shape[first + len(sizes) :]), values.dtype)
    before = (slice(None),) * (first - 1)
    for row, start in enumerate(starts.tolist()):
        window = (slice(begin, begin + size) for begin, size in zip(start, sizes, strict=True))
        cropped[row] = values[row][(*before, *window)]
    return cropped


def crop_batch(
    batch: dict[str, Any],
    kinds: Mapping[str, str],
    crops: Crops,
    *,
    masks: bool,
    seed: int | None = None,
    keys: tuple[np.ndarray, ...] = (),
) -> dict[str, Any]:
    """Crops the images, videos, volumes and masks of a batch, at one position per example; changes the batch in place.

    Args:
      batch: a batch of the pipeline.
      kinds: {modality: kind}.
      crops: crop sizes.
      masks: whether the labels are masks, in the space of :func:`mask_space`.
      seed: seed of the positions in training; None crops the centre.
      keys: integer arrays (B,) that identify each draw.
    """
    for name, kind in kinds.items():
        batch["inputs"][name] = crop(batch["inputs"][name], *crops.window(kind), seed, keys, name)
    if masks:
        batch["labels"] = crop(batch["labels"], *crops.window(mask_space(kinds)), seed, keys, "label")
    return batch


def cropped_batch(
    assembler: Assembler,
    crops: Crops,
    positions: np.ndarray,
    change: Change | None,
    seed: int | None,
    epochs: np.ndarray,
) -> tuple[Batch, dict[str, np.ndarray]]:
    """Returns a cropped batch and its word numbers; volumes are cropped one by one, to save memory.

    Args:
      assembler: builds the split's batches.
      crops: crop sizes.
      positions: (B,) positions of the examples in the split.
      change: applied to each example first.
      seed: seed of the positions in training; None crops the centre.
      epochs: (B,) epoch numbers, which identify each draw together with the example's index.
    """
    masks = assembler.info.spec.dense
    rows = np.arange(len(positions))
    parts = []
    for part in np.split(rows, len(rows)) if crops.volume and "volume" in assembler.kinds.values() else [rows]:
        change_row = change and (lambda example, row, part=part, change=change: change(example, int(part[row])))
        batch, words = assembler.batch(positions[part], change_row)
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
