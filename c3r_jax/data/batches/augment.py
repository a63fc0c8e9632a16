"""Training augmentation of a whole batch at once, with separate random numbers for each example."""

import dataclasses
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from c3r_jax.data.batches.crops import mask_space
from c3r_jax.data.counter_rng import uniform
from c3r_jax.data.source import keep_padding
from c3r_jax.data.text.tokens import MASK_ID


@dataclasses.dataclass(frozen=True)
class AugmentConfig:
    """Strength of each augmentation; the default changes nothing.

    Attributes:
      shift: largest shift of images and video frames in pixels, in each direction; border pixels are repeated.
      flip: whether images are mirrored with probability 1/2.
      brightness: largest change of brightness, as a share of 255.
      contrast: largest relative change of the differences from mid-grey.
      colour: largest relative change of each channel.
      word_drop: probability that a word's ids become the mask id.
      feature_noise: standard deviation of the Gaussian noise on features, sequences and volumes, in the units that the
        model sees.
    """

    shift: int = 0
    flip: bool = False
    brightness: float = 0.0
    contrast: float = 0.0
    colour: float = 0.0
    word_drop: float = 0.0
    feature_noise: float = 0.0

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            low, high = 0, 1 if field.name not in ("shift", "feature_noise") else float("inf")
            if not low <= value <= high:
                raise ValueError(f"{field.name} is {value}, expected {low} to {high}: choose a value in that range.")
        if not isinstance(self.shift, int):
            raise ValueError(f"shift is {self.shift!r}, expected whole pixels: give an integer.")


def _around(seed: int, name: str, keys: tuple[np.ndarray, ...], width: float, *more: np.ndarray) -> np.ndarray:
    return np.float32(width) * (2 * uniform(seed, name, *keys, *more) - 1)


def augment_images(
    images: np.ndarray, config: AugmentConfig, seed: int, keys: tuple[np.ndarray, ...], *, colours: bool = True
) -> np.ndarray:
    """Shifts, mirrors and recolours images; all frames of a video in the same way.

    Args:
      images: uint8 ``(B, height, width, channels)`` or ``(B, frames, height, width, channels)``; not changed.
      config: strength of each augmentation.
      seed: integer of at least 0.
      keys: integer arrays ``(B,)`` that identify each draw, such as epoch and example.
      colours: whether the values are colours; other values (depth, masks) are moved but not changed.

    Returns:
      uint8 of the same shape; colours saturate at 0 and 255.
    """
    height, width = images.shape[-3:-1]
    if config.shift or config.flip:
        moved = np.empty_like(images)
        size = config.shift
        border = [(0, 0)] * (images.ndim - 3) + [(size, size), (size, size), (0, 0)]
        padded = np.pad(images, border, mode="edge") if size else images
        down, right = (
            np.floor(uniform(seed, name, *keys) * (2 * size + 1)).astype(int).tolist() for name in ("down", "right")
        )
        mirror = (uniform(seed, "flip", *keys) < 0.5).tolist() if config.flip else [False] * len(images)
        for i in range(len(images)):
            view = padded[i, ..., down[i] : down[i] + height, right[i] : right[i] + width, :]
            moved[i] = view[..., ::-1, :] if mirror[i] else view
        images = moved
    if colours and (config.brightness or config.contrast or config.colour):
        images = _recolour(images, config, seed, keys)
    return images


def _recolour(images: np.ndarray, config: AugmentConfig, seed: int, keys: tuple) -> np.ndarray:
    # All three combine into one scale and one offset per example and channel.
    channels = images.shape[-1]
    contrast = 1 + _around(seed, "contrast", keys, config.contrast)[:, None]
    by_channel = tuple(key[:, None] for key in keys)
    colour = 1 + _around(seed, "colour", by_channel, config.colour, np.arange(channels))
    brightness = 255 * _around(seed, "brightness", keys, config.brightness)[:, None]
    shape = (len(images), *(1,) * (images.ndim - 2), channels)
    scale = (contrast * colour).reshape(shape)
    offset = (127.5 * (1 - contrast) * colour + brightness + 0.5).reshape(shape)
    values = images * scale
    values += offset
    np.clip(values, 0, 255.5, out=values)
    return values.astype(np.uint8)  # rounds to nearest, since 0.5 was added


def drop_words(
    ids: np.ndarray, words: np.ndarray, p: float, seed: int, keys: tuple[np.ndarray, ...], *, mask_id: int = MASK_ID
) -> np.ndarray:
    """Replaces all ids of a word by the mask id with probability p, word by word.

    Args:
      ids: int32 ``(B, L)``.
      words: number of each id's word, -1 for padding and special tokens. Shape ``(B, L)``.
      p: probability for each word.
      seed: integer of at least 0.
      keys: integer arrays ``(B,)`` that identify each draw.
      mask_id: the tokeniser's mask id.
    """
    if not p:
        return ids
    draws = uniform(seed, "words", *(key[:, None] for key in keys), np.maximum(words, 0))
    return np.where((draws < p) & (words >= 0), np.int32(mask_id), ids)


def add_noise(values: np.ndarray, sd: float, seed: int, keys: tuple[np.ndarray, ...]) -> np.ndarray:
    """Adds Gaussian noise to float features ``(B, ...)``, by the Box-Muller method."""
    if not sd:
        return values
    entry = np.arange(values[0].size)
    by_entry = tuple(key[:, None] for key in keys)
    radius = np.sqrt(-2 * np.log1p(-uniform(seed, "radius", *by_entry, entry)))
    noise = radius * np.cos(2 * np.pi * uniform(seed, "angle", *by_entry, entry))
    return (values + np.float32(sd) * noise.reshape(values.shape)).astype(values.dtype)


def augment_batch(
    batch: dict[str, Any],
    words: Mapping[str, np.ndarray],
    kinds: Mapping[str, str],
    config: AugmentConfig,
    seed: int,
    keys: tuple[np.ndarray, ...],
    *,
    depth: tuple[str, ...] = (),
    masks: bool = False,
    mask_id: int = MASK_ID,
) -> dict[str, Any]:
    """Augments a whole batch in place.

    All images and frames of one example (colour and depth), and masks of the same space, move together; texts and
    floats are augmented independently of each other.

    Args:
      batch: a batch of the pipeline.
      words: word numbers (B, L) of each text modality.
      kinds: {modality: kind}.
      config: strength of each augmentation.
      seed: integer of at least 0.
      keys: integer arrays ``(B,)`` that identify each draw, such as epoch and example.
      depth: image modalities whose values are not colours.
      masks: whether the labels are masks, in the space of ``mask_space``.
      mask_id: the tokeniser's mask id, for dropped words.
    """
    for name, kind in kinds.items():
        value = batch["inputs"][name]
        modality_keys = (*keys, np.full(len(value), zlib.crc32(name.encode())))
        if kind in ("image", "video"):
            value = augment_images(value, config, seed, keys, colours=name not in depth)
        elif kind == "text":
            value = drop_words(value, words[name], config.word_drop, seed, modality_keys, mask_id=mask_id)
        else:
            noisy = add_noise(value, config.feature_noise, seed, modality_keys)
            value = keep_padding(value, noisy) if kind == "sequence" and noisy is not value else noisy
        batch["inputs"][name] = value
    if masks and mask_space(kinds) == "image":
        batch["labels"] = augment_images(batch["labels"][..., None], config, seed, keys, colours=False)[..., 0]
    return batch
