"""Noise and missing modalities for evaluation: pure functions, seeded per example and condition.

An example's corruption depends on (seed, the example's index, the condition's name, the modality) only; batch size,
order and worker do not matter. New protocols are entries of ``PROTOCOLS``.
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from c3r_jax.data.hashing import check_seed, example_rng
from c3r_jax.data.source import RESERVED, Example, kind_of
from c3r_jax.data.text import MASK_MARKER
from c3r_jax.errors import DataError


def _check_probability(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{name} is {value}, expected 0 to 1: give a probability.")


def gaussian_noise(image: np.ndarray, sd: float, rng: np.random.Generator) -> np.ndarray:
    """Adds Gaussian noise to an image, rounded to nearest and saturating at 0 and 255.

    Args:
      image: uint8 ``(height, width, channels)``.
      sd: standard deviation, in units of 0 to 255; 0 returns an equal image.
      rng: source of randomness.

    Example:
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
      image: uint8 ``(height, width, channels)``.
      density: probability that a pixel is changed.
      rng: source of randomness.

    Example:
      >>> noisy = salt_and_pepper(np.full((2, 2, 1), 9, np.uint8), 1, np.random.default_rng(0))
      >>> bool(np.isin(noisy, (0, 255)).all())
      True
    """
    _check_probability("density", density)
    draw = rng.random(image.shape[:2])
    noisy = image.copy()
    noisy[draw < density] = 255
    noisy[draw < density / 2] = 0
    return noisy


def mask_words(text: str, p: float, rng: np.random.Generator) -> str:
    """Replaces each word by the mask marker with probability p; a text without words stays as it is.

    Example:
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
      ratio: noise to feature standard deviation.
      rng: source of randomness.
      scale: standard deviations that broadcast against values (from the training split); that of the example's own
        entries if not given.
    """
    if ratio < 0:
        raise ValueError(f"ratio is {ratio}, expected at least 0: give a share of the standard deviation.")
    scale = values.std() if scale is None else np.asarray(scale)
    return (values + ratio * scale * rng.standard_normal(values.shape)).astype(values.dtype)


def salt_features(values: np.ndarray, density: float, rng: np.random.Generator) -> np.ndarray:
    """Sets entries of a float array to its own largest or smallest, each with probability density / 2."""
    _check_probability("density", density)
    draw = rng.random(values.shape)
    noisy = values.copy()
    noisy[draw < density] = values.max(initial=-np.inf)
    noisy[draw < density / 2] = values.min(initial=np.inf)
    return noisy


@dataclasses.dataclass(frozen=True)
class Strength:
    """One level of a protocol.

    Attributes:
      image: Gaussian sd (0 to 255) or salt-and-pepper density.
      text: probability that a word is masked.
      features: Gaussian ratio or salt density.
      chance: probability that an image or feature example is hit at all; the text has its own, ``text_chance``.
      text_chance: probability that a text is hit at all.
    """

    image: float
    text: float
    features: float
    chance: float = 1.0
    text_chance: float = 1.0


@dataclasses.dataclass(frozen=True)
class Protocol:
    """A named family of corruptions: its conditions are called ``"<label> <level>"``; kind is "gaussian" or "salt"."""

    label: str
    kind: str
    levels: Mapping[float, Strength]


def _published(label: str, kind: str, image: float, chance: float, text: float) -> Protocol:
    # The public codes hit each modality with probability 1/2, and salt noise by eps times ``chance`` on top of that.
    levels = {}
    for eps in (5, 10):
        size, hit = (image * eps, 1.0) if kind == "gaussian" else (image, chance * eps)
        levels[eps] = Strength(size, text * eps, size / 64 if kind == "gaussian" else size, 0.5 * hit, 0.5)
    return Protocol(label, kind, levels)


PROTOCOLS: dict[str, Protocol] = {
    "gaussian": Protocol(
        "noise",
        "gaussian",
        {1: Strength(25, 0.15, 0.5), 2: Strength(50, 0.3, 1.0), 3: Strength(100, 0.5, 2.0)},
    ),
    "salt": Protocol(
        "salt",
        "salt",
        {1: Strength(0.05, 0.15, 0.05), 2: Strength(0.1, 0.3, 0.1), 3: Strength(0.2, 0.5, 0.2)},
    ),
    "official": _published("official noise", "gaussian", 10, 0, 0.1),
    "official_salt": _published("official salt", "salt", 0.1, 0.1, 0.1),
    "qmf": _published("qmf noise", "gaussian", 10, 0, 0.1),
    "qmf_salt": _published("qmf salt", "salt", 0.1, 0.01, 0.1),
    "nyud2": _published("nyud2 noise", "gaussian", 1, 0, 0.0),
    "nyud2_salt": _published("nyud2 salt", "salt", 0.1, 0.1, 0.0),
}


@dataclasses.dataclass(frozen=True)
class Condition:
    """What an evaluation does to every example.

    Attributes:
      name: unique and readable, such as "clean", "image only" or "noise 2"; part of the seed.
      group: "clean", "modality_subset" or a key of ``PROTOCOLS``.
      level: the protocol's level; 0 where there is none.
      modalities: the modalities that are kept; the others are emptied and marked as not present.
    """

    name: str
    group: str
    level: float
    modalities: tuple[str, ...]


def noise_conditions(protocol: str, modalities: Sequence[str]) -> list[Condition]:
    """Returns the conditions of one protocol, one per level, on all modalities.

    Example:
      >>> [condition.name for condition in noise_conditions("qmf", ("image", "text"))]
      ['qmf noise 5', 'qmf noise 10']
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol is {protocol!r}, expected one of {sorted(PROTOCOLS)}: choose one of these.")
    chosen = PROTOCOLS[protocol]
    return [Condition(f"{chosen.label} {level}", protocol, level, tuple(modalities)) for level in chosen.levels]


def standard_conditions(modalities: Sequence[str]) -> list[Condition]:
    """Returns clean, every proper subset of the modalities, Gaussian and salt-and-pepper noise at three levels each.

    Args:
      modalities: all names, in the data set's order.

    Example:
      >>> [condition.name for condition in standard_conditions(("image", "text"))][:5]
      ['clean', 'image only', 'text only', 'noise 1', 'noise 2']
    """
    names = tuple(modalities)
    conditions = [Condition("clean", "clean", 0, names)]
    for size in range(1, len(names)):
        for kept in itertools.combinations(names, size):
            conditions.append(Condition(" + ".join(kept) + " only", "modality_subset", 0, kept))
    return conditions + noise_conditions("gaussian", names) + noise_conditions("salt", names)


def _corrupt(kind: str, value: Any, how: str, strength: Strength, rng: np.random.Generator, scale: Any) -> Any:
    chance = strength.text_chance if kind == "text" else strength.chance
    if rng.random() >= chance:
        return value
    if kind == "text":
        return mask_words(value, strength.text, rng)
    if kind == "image":
        apply = gaussian_noise if how == "gaussian" else salt_and_pepper
        return apply(value, strength.image, rng)
    if how == "gaussian":
        return gaussian_features(value, strength.features, rng, scale)
    return salt_features(value, strength.features, rng)


def apply_condition(
    example: Example, condition: Condition, seed: int, *, scales: Mapping[str, Any] | None = None
) -> Example:
    """Returns the example under a condition; the given one is left as it is.

    Args:
      example: modalities in the data set's order, "label", "index" and, if some are missing, "present".
      condition: what to do.
      seed: integer of at least 0.
      scales: standard deviations of feature modalities, see ``gaussian_features``.

    Returns:
      The example with "present", bool ``(M,)``; modalities that are not kept hold zeros or no text.

    Raises:
      DataError: the condition keeps a modality that the example does not have, or its group is unknown.
    """
    check_seed(seed)
    names = [name for name in example if name not in RESERVED]
    unknown = [name for name in condition.modalities if name not in names]
    if unknown or not condition.modalities:
        raise DataError(
            f"Condition {condition.name!r} keeps {condition.modalities}, expected some of {tuple(names)}: make the "
            "conditions with the data set's modalities."
        )
    strength = None
    if condition.group not in ("clean", "modality_subset"):
        protocol = PROTOCOLS.get(condition.group)
        if protocol is None or condition.level not in protocol.levels:
            raise DataError(
                f"Condition {condition.name!r} has group {condition.group!r} and level {condition.level}, expected "
                f"clean, modality_subset or a level of one of {sorted(PROTOCOLS)}: name such a group and level."
            )
        strength = protocol.levels[condition.level]
    present = np.array(example.get("present", np.ones(len(names), bool)), bool)
    changed = dict(example)
    for m, name in enumerate(names):
        kind = kind_of(name, example[name])
        if name not in condition.modalities:
            present[m] = False
            changed[name] = "" if kind == "text" else np.zeros_like(example[name])
        elif strength is not None and present[m]:
            rng = example_rng(seed, example.get("index", 0), f"{condition.name}/{name}")
            how = PROTOCOLS[condition.group].kind
            changed[name] = _corrupt(kind, example[name], how, strength, rng, (scales or {}).get(name))
    changed["present"] = present
    return changed
