"""Encodes a split once; everything after the encoders is cheap algebra on the result."""

import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from c3r_jax.data.conditions.protocols import Condition
from c3r_jax.data.source import Source
from c3r_jax.experiments.compiled import COLUMNS
from c3r_jax.experiments.experiment import Experiment
from c3r_jax.experiments.vector_cache import cached_batches


def without_encoders(params: Any) -> Any:
    """The parameters after the encoders: fusion and head, which are small."""
    return {name: value for name, value in params.items() if not name.startswith("encoders_")}


def encoded_batches(
    experiment: Experiment,
    params: Any,
    split: str | Source,
    condition: Condition | None = None,
    scales: Mapping[str, Any] | None = None,
) -> Iterable[dict[str, Any]]:
    """One pass over a split; with ``config.train.cache_frozen``, frozen encoders' vectors replace their inputs."""
    one_pass = functools.partial(experiment.eval_iterator, split, condition, scales)
    if not experiment.settings.train.cache_frozen:
        return one_pass()
    return cached_batches(experiment, params, split, (condition, scales), one_pass)


def encode_split(
    experiment: Experiment,
    params: Any,
    split: str | Source,
    condition: Condition | None = None,
    scales: Mapping[str, Any] | None = None,
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray]:
    """Encodes a full split once; everything else (subsets, routes, counterfactuals) is cheap algebra on the result.

    Args:
      experiment: the run.
      params: on the devices.
      split: "train", "validation" or "test"; or any source of the same modalities.
      condition: change of the inputs.
      scales: standard deviations of float modalities in training, for noise; see ``feature_scales``.

    Returns:
      {modality: (n, d)}, present (n, M), labels (n,) and the examples' indices (n,), without padding, of all processes.
    """
    return encode_batches(experiment, params, encoded_batches(experiment, params, split, condition, scales))


def encode_batches(
    experiment: Experiment, params: Any, batches: Iterable[dict[str, Any]]
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray]:
    """Encodes batches of the evaluation size, as :func:`encode_split` encodes a split."""
    parts = list(encode_each(experiment, params, batches))
    h, present, labels, index = jax.tree.map(lambda *columns: np.concatenate(columns), *parts)
    return h, present, labels, index


def encode_each(
    experiment: Experiment, params: Any, batches: Iterable[dict[str, Any]]
) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray]]:
    """What :func:`encode_batches` returns, batch by batch: maps of voxels need not fit in memory together."""
    devices = experiment.devices
    for batch in batches:
        on_devices = devices.split({name: batch[name] for name in ("inputs", *COLUMNS)})
        part = devices.gather(experiment.rows(params, on_devices))
        part = jax.tree.map(lambda column, rows=part["where"]: column[rows], part)
        yield part["h"], part["present"], part["labels"], part["index"]
