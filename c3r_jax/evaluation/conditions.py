"""What a run is evaluated under, and which of it needs no second pass through the encoders."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from c3r_jax.data import Condition, Misaligned, Missing, Noise, feature_scales, protocol_conditions
from c3r_jax.data.altered import origins, remaining
from c3r_jax.errors import ConfigError
from c3r_jax.training.experiment import Experiment

Encoded = tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray]  # see encode_split


def conditions_of(experiment: Experiment, protocols: Sequence[str] | None = None) -> list[Condition]:
    """Clean and the named protocols; of none named, every proper modality subset and the configured ones.

    Raises:
      ConfigError: a protocol is unknown, or not for contrastive runs.
    """
    names = ("subsets", *experiment.config.eval.protocols) if protocols is None else protocols
    conditions = protocol_conditions(names, experiment.model.modalities)
    changed = [c.group for c in conditions if isinstance(c.change, Missing | Misaligned)]
    if experiment.method.contrastive and changed:
        raise ConfigError(
            f"Protocol {changed[0]!r} is not for config.task={experiment.config.task!r}: choose noise protocols, which "
            "are scored for every modality subset."
        )
    return conditions


def noise_scales(experiment: Experiment, conditions: Sequence[Condition]) -> dict[str, Any]:
    """Standard deviations of float modalities in training, which noise on them is a multiple of; measured if needed."""
    noisy = any(isinstance(condition.change, Noise) for condition in conditions)
    return feature_scales(experiment.sources["train"]) if noisy else {}


def rearranged(
    condition: Condition, clean: Encoded, modalities: Sequence[str], seed: int
) -> tuple[dict[str, np.ndarray], np.ndarray] | None:
    """Representations and presence under a condition, taken from the clean ones; None where inputs are changed.

    Encoders see one modality of one example each: with some absent, or another example's in its place, the
    representations are those that are there already.
    """
    if isinstance(condition.change, Noise):
        return None
    h, present, labels, index = clean
    present = present & np.isin(modalities, condition.modalities)
    if isinstance(condition.change, Missing):
        return h, remaining(condition.change, modalities, index, labels, present, seed)
    if isinstance(condition.change, Misaligned):
        h, here = dict(h), np.arange(len(labels))
        for name, share in condition.change.shares:
            origin, there = origins(len(labels), share, seed, name), present[:, list(modalities).index(name)]
            h[name] = h[name][np.where(there & there[origin], origin, here)]
    return h, present
