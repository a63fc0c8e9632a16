"""The conditions a run is evaluated under, and which of them need no second pass through the encoders."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from c3r_jax.data.conditions.corruptions import Noise
from c3r_jax.data.conditions.missing import Misaligned, Missing, origins, still_present
from c3r_jax.data.conditions.protocols import Condition, protocol_conditions
from c3r_jax.data.sets.standardised import feature_scales
from c3r_jax.errors import ConfigError
from c3r_jax.experiments.experiment import Experiment

Encoded = tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray]  # see encode_split


def conditions_of(experiment: Experiment, protocols: Sequence[str] | None = None) -> list[Condition]:
    """The clean condition and the named protocols; by default all proper modality subsets and the configured protocols.

    Raises:
      ConfigError: a protocol is unknown, or does not apply to contrastive runs.
    """
    names = ("subsets", *experiment.settings.eval.protocols) if protocols is None else protocols
    conditions = protocol_conditions(names, experiment.model.modalities)
    changed = [c.group for c in conditions if isinstance(c.change, Missing | Misaligned)]
    if experiment.method.contrastive and changed:
        raise ConfigError(
            f"Protocol {changed[0]!r} is not for config.task={experiment.settings.task!r}: choose noise protocols, "
            "which are scored for every modality subset."
        )
    return conditions


def noise_scales(experiment: Experiment, conditions: Sequence[Condition]) -> dict[str, Any]:
    """Standard deviations of float modalities in training, the unit of noise on them; measured only if needed."""
    noisy = any(isinstance(condition.change, Noise) for condition in conditions)
    return feature_scales(experiment.sources["train"]) if noisy else {}


def rearranged(
    condition: Condition, clean: Encoded, modalities: Sequence[str], seed: int
) -> tuple[dict[str, np.ndarray], np.ndarray] | None:
    """Representations and presence under a condition, taken from the clean ones; None where inputs are changed.

    An encoder sees one modality of one example. If a modality is absent or comes from another example, the
    representations are those already computed.
    """
    if isinstance(condition.change, Noise):
        return None
    h, present, labels, index = clean
    present = present & np.isin(modalities, condition.modalities)
    if isinstance(condition.change, Missing):
        return h, still_present(condition.change, modalities, index, labels, present, seed)
    if isinstance(condition.change, Misaligned):
        h, rows = dict(h), np.arange(len(labels))
        for name, share in condition.change.shares:
            origin, has = origins(len(labels), share, seed, name), present[:, list(modalities).index(name)]
            h[name] = h[name][np.where(has & has[origin], origin, rows)]
    return h, present
