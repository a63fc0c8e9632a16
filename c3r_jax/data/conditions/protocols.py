"""Evaluation protocols by name: noise, missing modalities, misaligned pairs; see docs/robustness.md.

The change of an example depends only on (seed, example, condition, modality), not on batch size, order, worker or
process.
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from c3r_jax.data.conditions.corruptions import Noise, Strength
from c3r_jax.data.conditions.missing import Misaligned, Missing, blank_missing, still_present
from c3r_jax.data.counter_rng import check_seed, example_rng
from c3r_jax.data.source import RESERVED, Example, kind_of
from c3r_jax.errors import ConfigError, DataError


@dataclasses.dataclass(frozen=True)
class Protocol:
    """A named family of noises: its conditions are called ``"<label> <level>"``; kind is "gaussian" or "salt"."""

    label: str
    kind: str
    levels: Mapping[float, Strength]


def _published(label: str, kind: str, image: float, chance: float, text: float) -> Protocol:
    # Public code applies noise to each modality with probability 1/2; salt noise has a further factor eps * ``chance``.
    levels = {}
    for eps in (5, 10):
        size, hit = (image * eps, 1.0) if kind == "gaussian" else (image, chance * eps)
        levels[eps] = Strength(size, text * eps, size / 64 if kind == "gaussian" else size, 0.5 * hit, 0.5)
    return Protocol(label, kind, levels)


# Level 0 of every protocol is the clean input.
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
    "official_gaussian": _published("official noise", "gaussian", 10, 0, 0.1),
    "official_salt": _published("official salt", "salt", 0.1, 0.1, 0.1),
    "qmf_gaussian": _published("qmf noise", "gaussian", 10, 0, 0.1),
    "qmf_salt": _published("qmf salt", "salt", 0.1, 0.01, 0.1),
    "nyud2_gaussian": _published("nyud2 noise", "gaussian", 1, 0, 0.0),
    "nyud2_salt": _published("nyud2 salt", "salt", 0.1, 0.1, 0.0),
}
PUBLISHED = ("official", "qmf", "nyud2")  # each stands for its Gaussian and its salt-and-pepper noise
PROTOCOL_NAMES = (*PUBLISHED, *PROTOCOLS, "subsets", "missing", "misaligned")
PERCENTS = tuple(range(10, 101, 10))  # levels of "missing" and "misaligned"


@dataclasses.dataclass(frozen=True)
class Condition:
    """An evaluation condition, which is applied to every example.

    Attributes:
      name: unique and readable, such as "clean", "image only" or "noise 2"; part of the seed of noise.
      group: "clean", "modality_subset" or the family of conditions that differ only in their level.
      level: strength of the change; 0 if there is no level.
      modalities: modalities that are kept; the others are set to zero or empty, and marked as not present.
      change: change of the kept modalities; None changes nothing.
    """

    name: str
    group: str
    level: float
    modalities: tuple[str, ...]
    change: Noise | Missing | Misaligned | None = None


def protocol_conditions(names: Sequence[str], modalities: Sequence[str]) -> list[Condition]:
    """Returns the clean condition, then the conditions of each named protocol, without repetition.

    Args:
      names: names from ``PROTOCOL_NAMES``.
      modalities: names of all modalities, in the data set's order.

    Raises:
      ConfigError: a name is unknown.

    Examples:
      >>> [condition.name for condition in protocol_conditions(["qmf_salt", "subsets"], ("image", "text"))]
      ['clean', 'qmf salt 5', 'qmf salt 10', 'image only', 'text only']
    """
    every = tuple(modalities)
    conditions = [Condition("clean", "clean", 0, every)]
    for name in names:
        if name not in PROTOCOL_NAMES:
            raise ConfigError(f"Protocol {name!r} is unknown: expected some of {', '.join(PROTOCOL_NAMES)}.")
        if name == "subsets":
            conditions += _subsets(every)
        elif name in ("missing", "misaligned"):
            conditions += _missing(every) if name == "missing" else _misaligned(every)
        else:
            for family in (f"{name}_gaussian", f"{name}_salt") if name in PUBLISHED else (name,):
                conditions += _noises(family, every)
    return list(dict.fromkeys(conditions))


def standard_conditions(modalities: Sequence[str]) -> list[Condition]:
    """Returns clean, every proper subset of the modalities, and Gaussian and salt-and-pepper noise at three levels.

    Examples:
      >>> [condition.name for condition in standard_conditions(("image", "text"))][:5]
      ['clean', 'image only', 'text only', 'noise 1', 'noise 2']
    """
    return protocol_conditions(("subsets", "gaussian", "salt"), modalities)


def noise_condition(text: str, modalities: Sequence[str]) -> Condition:
    """Returns the condition that ``"family:level"`` names, such as ``"official_gaussian:5"``.

    Raises:
      ConfigError: there is no such noise.
    """
    family, _, level = text.partition(":")
    for condition in _noises(family, tuple(modalities)) if family in PROTOCOLS else []:
        if f"{condition.level:g}" == level:
            return condition
    choices = ", ".join(f"{name}:{'|'.join(f'{x:g}' for x in noise.levels)}" for name, noise in PROTOCOLS.items())
    raise ConfigError(f"Noise {text!r} is unknown: expected family:level, one of {choices}.")


def _noises(family: str, names: tuple[str, ...]) -> list[Condition]:
    noise = PROTOCOLS[family]
    return [
        Condition(f"{noise.label} {level}", family, level, names, Noise(noise.kind, strength))
        for level, strength in noise.levels.items()
    ]


def _subsets(names: tuple[str, ...]) -> list[Condition]:
    subsets = [subset for size in range(1, len(names)) for subset in itertools.combinations(names, size)]
    return [Condition(" + ".join(subset) + " only", "modality_subset", 0, subset) for subset in subsets]


def _missing(names: tuple[str, ...]) -> list[Condition]:
    """All modalities at one rate, then each modality separately; a single modality is never missing."""
    families = {"missing": names, **{f"missing {name}": (name,) for name in names}} if len(names) > 1 else {}
    return [
        Condition(f"{family} {x} %", family, x, names, Missing(tuple((name, None, x / 100) for name in affected)))
        for family, affected in families.items()
        for x in PERCENTS
    ]


def _misaligned(names: tuple[str, ...]) -> list[Condition]:
    return [
        Condition(f"misaligned {name} {x} %", f"misaligned {name}", x, names, Misaligned(((name, x / 100),)))
        for name in (names if len(names) > 1 else ())
        for x in PERCENTS
    ]


def apply_condition(
    example: Example, condition: Condition, seed: int, *, scales: Mapping[str, Any] | None = None
) -> Example:
    """Returns a copy of the example under a condition.

    Args:
      example: modalities in the data set's order, "label", "index" and, if some are missing, "present".
      condition: the condition to apply.
      seed: integer of at least 0.
      scales: standard deviations of feature modalities, see ``gaussian_features``.

    Returns:
      The example with "present", bool ``(M,)``; modalities that are not kept are zero or an empty text.

    Raises:
      DataError: the condition keeps a modality that the example does not have, or needs other examples
        (``eval_batches`` and ``DegradedSource`` misalign pairs).
    """
    check_seed(seed)
    names = [name for name in example if name not in RESERVED]
    if not condition.modalities or not set(condition.modalities) <= set(names):
        raise DataError(
            f"Condition {condition.name!r} keeps {condition.modalities}, expected some of {tuple(names)}: make the "
            "conditions with the data set's modalities."
        )
    if isinstance(condition.change, Misaligned):
        raise DataError(
            f"Condition {condition.name!r} needs the whole split: use eval_batches or DegradedSource to misalign pairs."
        )
    present = np.array(example.get("present", np.ones(len(names), bool)), bool)
    present &= np.isin(names, condition.modalities)
    index = int(example.get("index", 0))
    if isinstance(condition.change, Missing):
        labels = np.asarray([example.get("label", -1)])
        present = still_present(condition.change, names, np.array([index]), labels, present[None], seed)[0]
    changed = dict(example)
    for m, name in enumerate(names):
        kind_of(name, example[name])
        if present[m] and isinstance(condition.change, Noise):
            rng = example_rng(seed, index, f"{condition.name}/{name}")
            changed[name] = condition.change(example[name], rng, (scales or {}).get(name))
    return blank_missing(changed, present)
