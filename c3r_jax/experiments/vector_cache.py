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

from c3r_jax.core.expert import Expert
from c3r_jax.core.rows_experts import experts_of_rows
from c3r_jax.core.tasks.base import Task
from c3r_jax.core.tasks.classification import CLASSIFICATION
from c3r_jax.experiments.compiled import COLUMNS
from c3r_jax.experiments.experiment import Experiment
from c3r_jax.models.build import PUBLISHED
from c3r_jax.parallel.hosts import gathered
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
        vectors = devices.own(experiment.vectors(params, devices.split(batch["inputs"])))
        yield {**batch, "inputs": {**batch["inputs"], **vectors}}


class VectorTable:
    """The frozen encoders' vectors of the whole training split, which replace a training batch's inputs.

    Args:
      batches: this process's :func:`cached_batches` of the training split.
      names: modalities to replace.
    """

    def __init__(self, batches: Iterable[dict[str, Any]], names: Iterable[str]):
        columns = [
            {"inputs": {name: batch["inputs"][name] for name in names}, **{name: batch[name] for name in COLUMNS}}
            for batch in batches
        ]
        # Which examples a process trains on changes with every epoch, and experts are those of the whole split.
        whole = gathered(jax.tree.map(lambda *parts: np.concatenate(parts), *columns))
        rows = np.flatnonzero(whole["where"])  # without padding
        rows = rows[np.argsort(whole["index"][rows])]
        self._rows = jax.tree.map(lambda column: column[rows], whole)
        self._evidence: dict[str, np.ndarray] = {}

    def add_experts(self, num_outputs: int, task: Task = CLASSIFICATION) -> dict[str, Expert]:
        """Computes the experts of all rows once; every batch then has their evidence as a column of its own.

        Args:
          num_outputs: K.
          task: what labels mean.

        Returns:
          {modality: :class:`Expert`} of :func:`c3r_jax.experts_of_rows`.
        """
        rows = self._rows
        known = {"num_outputs": num_outputs, "present": rows["present"], "task": task}
        experts = experts_of_rows(rows["inputs"], rows["labels"], **known)
        self._evidence = {name: np.asarray(found.log_ratio) for name, found in experts.items()}
        return experts

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The batch with vectors in place of inputs, and "evidence" {modality: (B, K)} where there are experts."""
        rows = np.searchsorted(self._rows["index"], batch["index"])
        vectors = {name: column[rows] for name, column in self._rows["inputs"].items()}
        evidence = {name: column[rows] for name, column in self._evidence.items()}
        more = {"evidence": evidence} if evidence else {}
        return {**batch, "inputs": {**batch["inputs"], **vectors}, **more}
