"""Noise on one modality of one example: pure functions of the value, a strength and a random generator."""

import dataclasses
from typing import Any

import numpy as np

from c3r_jax.data.source import keep_padding
from c3r_jax.data.text.tokens import MASK_MARKER


def _check_probability(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{name} is {value}, expected 0 to 1: give a probability.")


def gaussian_noise(image: np.ndarray, sd: float, rng: np.random.Generator) -> np.ndarray:
    """Adds Gaussian noise to an image or video, rounded to nearest and saturating at 0 and 255.

    Args:
      image: uint8 ``(..., height, width, channels)``.
      sd: standard deviation, in units of 0 to 255; 0 returns an equal image.
      rng: source of randomness.

    Examples:
      >>> gaussian_noise(np.full((1, 2, 1), 255, np.uint8), 0, np.random.default_rng(0)).max()
      np.uint8(255)
    """
    if sd < 0:
        raise ValueError(f"sd is {sd}, expected at least 0: give a standard deviation.")
    noisy = image.astype(np.float32) + np.float32(sd) * rng.standard_normal(image.shape, np.float32)
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)


def salt_and_pepper(image: np.ndarray, density: float, rng: np.random.Generator) -> np.ndarray:
    """Turns pixels white or black, each with probability density / 2, all channels together.

    Args:
      image: uint8 ``(..., height, width, channels)``.
      density: probability that a pixel is changed.
      rng: source of randomness.

    Examples:
      >>> noisy = salt_and_pepper(np.full((2, 2, 1), 9, np.uint8), 1, np.random.default_rng(0))
      >>> bool(np.isin(noisy, (0, 255)).all())
      True
    """
    _check_probability("density", density)
    draw = rng.random(image.shape[:-1])
    noisy = image.copy()
    noisy[draw < density] = 255
    noisy[draw < density / 2] = 0
    return noisy


def mask_words(text: str, p: float, rng: np.random.Generator) -> str:
    """Replaces each word by the mask marker with probability p; a text without words stays as it is.

    Examples:
      >>> mask_words("red apple", 1, np.random.default_rng(0))
      '[MASK] [MASK]'
    """
    _check_probability("p", p)
    words = text.split()
    hidden = rng.random(len(words)) < p
    if not hidden.any():
        return text
    return " ".join(MASK_MARKER if hide else word for word, hide in zip(words, hidden, strict=True))


def gaussian_features(values: np.ndarray, ratio: float, rng: np.random.Generator, scale: Any = None) -> np.ndarray:
    """Adds Gaussian noise to float features, with a standard deviation of ratio times their scale.

    Args:
      values: float array of any shape.
      ratio: ratio of noise to feature standard deviation.
      rng: source of randomness.
      scale: standard deviations (from the training split) that broadcast against the values; if not given, the
        standard deviation of the values.
    """
    if ratio < 0:
        raise ValueError(f"ratio is {ratio}, expected at least 0: give a share of the standard deviation.")
    scale = values.std() if scale is None else np.asarray(scale)
    return (values + ratio * scale * rng.standard_normal(values.shape)).astype(values.dtype)


def salt_features(values: np.ndarray, density: float, rng: np.random.Generator) -> np.ndarray:
    """Sets entries of a float array to its largest or smallest value, each with probability density / 2."""
    _check_probability("density", density)
    draw = rng.random(values.shape)
    noisy = values.copy()
    noisy[draw < density] = values.max(initial=-np.inf)
    noisy[draw < density / 2] = values.min(initial=np.inf)
    return noisy


@dataclasses.dataclass(frozen=True)
class Strength:
    """Strength of the noise on each kind of modality.

    Attributes:
      image: Gaussian sd (0 to 255) or salt-and-pepper density, for images and videos.
      text: probability that a word is masked.
      features: Gaussian ratio or salt density, for features, sequences and volumes.
      chance: probability that the value of a modality other than text gets noise at all.
      text_chance: probability that a text gets noise at all.
    """

    image: float
    text: float
    features: float
    chance: float = 1.0
    text_chance: float = 1.0


@dataclasses.dataclass(frozen=True)
class Noise:
    """Independent noise on every modality; words of a text are masked.

    Attributes:
      kind: "gaussian", or "salt" for salt and pepper.
      strength: how strong, for each kind of modality.
    """

    kind: str
    strength: Strength

    def __call__(self, value: Any, rng: np.random.Generator, scale: Any = None) -> Any:
        """Adds noise to one modality's value: a text, a uint8 image or video, or floats of any shape."""
        strength, text = self.strength, isinstance(value, str)
        if rng.random() >= (strength.text_chance if text else strength.chance):
            return value
        if text:
            return mask_words(value, strength.text, rng)
        if value.dtype == np.uint8:
            return (gaussian_noise if self.kind == "gaussian" else salt_and_pepper)(value, strength.image, rng)
        if self.kind == "gaussian":
            noisy = gaussian_features(value, strength.features, rng, scale)
        else:
            noisy = salt_features(value, strength.features, rng)
        return keep_padding(value, noisy) if value.ndim == 2 else noisy  # a sequence
