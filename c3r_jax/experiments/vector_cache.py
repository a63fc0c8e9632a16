"""Vectors of frozen encoders, computed once per split instead of in every step.

Frozen parameters are not differentiated: they have no gradient, optimiser state or updates, and cost a step nothing
but memory. They stay in the state, so that a checkpoint is complete without any other file.
"""

import hashlib
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np

from c3r_jax.experiments.experiment import Experiment
from c3r_jax.models.build import PUBLISHED
from c3r_jax.step.frozen import split_frozen

KEPT_SPLITS = 64  # passes over splits whose vectors are cached, over all runs of a process


_cache: dict[str, list[dict[str, Any]]] = {}  # batches of cached_batches, by a hash of everything they depend on


def cached_batches(
    experiment: Experiment, params: Any, split: Any, rest: tuple[Any, ...], batches: Callable[[], Iterator[Any]]
) -> Iterable[dict[str, Any]]:
    """Batches with frozen encoders' vectors in place of their inputs, computed once in a process.

    Args:
      experiment: the run.
      params: on the devices.
      split: a split's name; any other source is encoded each time.
      rest: everything else that the batches depend on.
      batches: starts one pass over the split.
    """
    if not isinstance(split, str):
        return _encoded(experiment, params, batches())
    settings = experiment.settings
    digest = hashlib.sha256(experiment.tokenizer.to_json().encode())
    encoders = [part for kind in PUBLISHED if (part := getattr(settings.model, kind)).frozen]
    parts = (split, rest, settings.eval, settings.data, settings.model.dtype, encoders)
    digest.update(repr(parts).encode())
    if split == "train" and (settings.data.train_missing or settings.data.train_misaligned):
        digest.update(repr(settings.seed).encode())  # which decides which modalities are missing
    digest.update(_digest(experiment, split_frozen(params, experiment.model)[1]))
    key = digest.hexdigest()
    if key not in _cache:
        while len(_cache) >= KEPT_SPLITS:
            _cache.pop(next(iter(_cache)))
        _cache[key] = list(_encoded(experiment, params, batches()))
    return _cache[key]


class _Digest:
    """SHA-256 of frozen weights. The last ones, shared by all conditions of a report, are not hashed again."""

    def __init__(self):
        self._arrays: list[weakref.ref[Any]] = []
        self._value = b""

    def __call__(self, experiment: Experiment, weights: Any) -> bytes:
        arrays = jax.tree.leaves(weights)
        same = len(arrays) == len(self._arrays) and all(x is ref() for x, ref in zip(arrays, self._arrays, strict=True))
        if not same:
            digest = hashlib.sha256()
            for value in jax.tree.leaves(experiment.devices.host(weights)):
                digest.update(np.asarray(value).tobytes())
            self._arrays, self._value = [weakref.ref(x) for x in arrays], digest.digest()
        return self._value


_digest = _Digest()


def _encoded(experiment: Experiment, params: Any, batches: Iterator[Any]) -> Iterator[dict[str, Any]]:
    devices = experiment.devices
    for batch in batches:
        vectors = devices.gather(experiment.vectors(params, devices.split(batch["inputs"])))
        yield {**batch, "inputs": {**batch["inputs"], **vectors}}


class VectorTable:
    """The frozen encoders' vectors of the training split, which replace a training batch's inputs.

    Args:
      batches: :func:`cached_batches` of the training split.
      names: modalities to replace.
    """

    def __init__(self, batches: Iterable[dict[str, Any]], names: Iterable[str]):
        unpadded = [jax.tree.map(lambda x, rows=batch["where"]: x[rows], batch) for batch in batches]
        index = np.concatenate([batch["index"] for batch in unpadded])
        self._order = np.argsort(index)
        self._index = index[self._order]
        self._vectors = {name: np.concatenate([batch["inputs"][name] for batch in unpadded]) for name in names}

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The batch with vectors in place of inputs."""
        rows = self._order[np.searchsorted(self._index, batch["index"])]
        return {**batch, "inputs": {**batch["inputs"], **{name: v[rows] for name, v in self._vectors.items()}}}
