"""Classes by phrases: each class is the mean representation of phrases that name it, and no label is learned."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from c3r_jax.core.contrastive import unit
from c3r_jax.core.matching import Match
from c3r_jax.data.array_source import ArraySource
from c3r_jax.experiments.encode import encode_split
from c3r_jax.experiments.experiment import Experiment


def class_keys(experiment: Experiment, params: Any) -> np.ndarray | None:
    """One unit key (d,) per class: the mean unit representation of its phrases, which are not training examples.

    Args:
      experiment: a contrastive run.
      params: on the devices.

    Returns:
      (K, d), in the order of the class names; None where a class has no phrases or there is no text.
    """
    info, modalities = experiment.sources["train"].info, experiment.model.modalities
    if not info.class_names or not set(info.class_names) <= info.phrases.keys() or "text" not in modalities:
        return None
    phrases = [phrase for name in info.class_names for phrase in info.phrases[name]]
    owners = np.repeat(np.arange(info.num_classes), [len(info.phrases[name]) for name in info.class_names])
    inputs = experiment.example_batch()["inputs"]
    columns: dict[str, Any] = {
        name: phrases if name == "text" else np.zeros((len(phrases), *inputs[name].shape[1:]), inputs[name].dtype)
        for name in modalities
    }
    text_only = np.tile([name == "text" for name in modalities], (len(phrases), 1))
    # Phrases are of no environment, whatever the examples are of.
    source = ArraySource(columns, owners, info=dataclasses.replace(info, environments=()), present=text_only)
    rows = unit(jnp.asarray(encode_split(experiment, params, source)[0]["text"]))
    return np.asarray(unit(jnp.stack([rows[owners == k].mean(0) for k in range(info.num_classes)])))


def pooled(h: Mapping[str, np.ndarray], mask: np.ndarray) -> np.ndarray:
    """Unit mean (n, d) of the unit representations of the modalities in the mask (M,), in sorted order."""
    rows = [np.asarray(unit(jnp.asarray(h[name]))) for name, on in zip(sorted(h), mask, strict=True) if on]
    return np.asarray(unit(jnp.asarray(np.mean(rows, axis=0))))


def zero_shot(match: Match, z: np.ndarray, keys: np.ndarray, labels: np.ndarray) -> float:
    """Share of examples whose class's key is the best match.

    Args:
      match: queries (n, d), keys (K, d) -> logits (n, K).
      z: (n, d) unit representations.
      keys: output of :func:`class_keys`.
      labels: (n,) class ids.

    Examples:
      >>> import numpy as np
      >>> zero_shot(lambda q, k: q @ k.T, np.eye(2), np.eye(2), np.array([0, 0]))
      0.5
    """
    return float((np.asarray(match(jnp.asarray(z), jnp.asarray(keys))).argmax(1) == labels).mean())
