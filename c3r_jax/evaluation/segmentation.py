"""Segmentation, one volume at a time: overlap of regions for every subset of modalities, and risks of voxels.

No volume's scores depend on another: z_bar of a voxel uses the mean over its own volume (training: over the batch).
A volume is reduced to a few sums, so that a split of any size is scored in the memory of one batch.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from c3r_jax.core.batch import zero_absent
from c3r_jax.core.moments import Moments
from c3r_jax.core.risk import C3Risk, risk_events, risk_of
from c3r_jax.core.worlds import both_worlds
from c3r_jax.data.source import DatasetInfo
from c3r_jax.evaluation.risk_report import Voxels
from c3r_jax.experiments.experiment import Experiment
from c3r_jax.metrics.routes import ROUTES
from c3r_jax.models.branches import BranchRunner
from c3r_jax.models.twin import apply, rows_of, with_moments

SAMPLED = 2000  # voxels of a volume that first-stage diagnostics and the probe of z_bar see
Regions = tuple[tuple[str, tuple[int, ...]], ...]


def regions_of(info: DatasetInfo) -> Regions:
    """Named sets of class ids whose overlap is scored: the data set's, or every class but the first (background).

    Examples:
      >>> regions_of(DatasetInfo("demo", ("t1",), ("background", "organ")))
      (('organ', (1,)),)
    """
    regions = info.regions or {name: (k,) for k, name in enumerate(info.class_names) if k}
    return tuple((name, tuple(ids)) for name, ids in regions.items())


class Overlap(NamedTuple):
    """The sums behind Dice for some volumes; :meth:`merge` joins those of several batches.

    Attributes:
      both, predicted, true: (volumes, regions) voxels.
      events: (volumes, 3) weighted sums of :func:`risk_events`.
      correct: (volumes,) weighted sum of correct voxels.
      weight: (volumes,) sum of the voxels' weights.
    """

    both: Any
    predicted: Any
    true: Any
    events: Any
    correct: Any
    weight: Any

    @classmethod
    def merge(cls, parts: list["Overlap"]) -> "Overlap":
        """All volumes, concatenated."""
        return cls(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))

    def dice(self) -> np.ndarray:
        """2 |A and B| / (|A| + |B|) for each volume and region; 1 where both are empty, as in BraTS."""
        size = np.asarray(self.predicted, np.float64) + np.asarray(self.true, np.float64)
        return np.where(size > 0, 2 * np.asarray(self.both, np.float64) / np.maximum(size, 1), 1.0)

    def scores(self, regions: Regions) -> dict[str, float]:
        """Mean Dice of each region over volumes, the mean over regions, and the weighted share of correct voxels."""
        by_region = self.dice().mean(0)
        accuracy = np.asarray(self.correct, np.float64).sum() / np.asarray(self.weight, np.float64).sum()
        named = {f"dice_{name}": float(value) for (name, _), value in zip(regions, by_region, strict=True)}
        return {"dice": float(by_region.mean()), **named, "accuracy": float(accuracy)}

    def risk(self) -> C3Risk:
        """The 0/1 risk of all voxels, weighted."""
        events = np.asarray(self.events, np.float64) / np.asarray(self.weight, np.float64)[:, None]
        where = jnp.ones(len(events), bool)
        return risk_of(jnp.asarray(events), where=where, weights=jnp.asarray(self.weight, jnp.float32))


def overlap(logits: Array, labels: Array, regions: Regions) -> tuple[Array, Array, Array]:
    """|A and B|, |A|, |B| for each region (R,), with arg max predictions; a non-finite row predicts class 0.

    Examples:
      >>> import jax.numpy as jnp
      >>> logits = jnp.array([[0.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
      >>> print(*overlap(logits, jnp.array([1, 0, 0]), (("organ", (1,)),)))
      [1] [2] [1]
    """
    predicted_ids = jnp.where(jnp.isfinite(logits).all(-1), logits.argmax(-1), 0)
    counts = []
    for _, ids in regions:
        members = jnp.asarray(ids)
        inside = (predicted_ids[:, None] == members[None, :]).any(-1)
        truth = (labels[:, None] == members[None, :]).any(-1)
        counts.append(((inside & truth).sum(), inside.sum(), truth.sum()))
    both, predicted, true = (jnp.stack(column) for column in zip(*counts, strict=True))
    return both, predicted, true


class VolumeScorer:
    """Scores encoded volumes of a run, compiled once per shape.

    Args:
      experiment: the run.
      params: parameters of fusion and head, on the host.
      moments: moments of the training set, or running ones; None without an instrument.
    """

    def __init__(self, experiment: Experiment, params: Any, moments: Moments | None):
        variables = {"params": params}
        self._variables = variables if moments is None else with_moments(variables, moments)
        self._key = jax.random.key(experiment.settings.seed)
        self.regions = regions_of(experiment.sources["train"].info)
        self._run, self._sample = _compiled(experiment.branches, self.regions)

    def __call__(
        self, h: Mapping[str, np.ndarray], present: np.ndarray, labels: np.ndarray, kept: np.ndarray | None = None
    ) -> dict[str, Overlap]:
        """Scores some volumes.

        Args:
          h: {modality: (n, ..., d)} maps.
          present: (n, M) bool.
          labels: (n, ...) class ids.
          kept: (M,) bool, modalities to use; None: all.

        Returns:
          {route: :class:`Overlap`}; the events are the same for both routes.
        """
        present = present if kept is None else present & kept
        parts = []
        for i in range(len(labels)):
            maps = {name: value[i : i + 1] for name, value in h.items()}
            parts.append(jax.device_get(self._run(self._variables, maps, present[i : i + 1], labels[i], self._key)))
        return {route: Overlap.merge([part[route] for part in parts]) for route in ROUTES}

    def sample(self, encoded: Iterable[Any]) -> Voxels:
        """Evenly spaced voxels of every volume of encoded batches."""
        parts = []
        for h, present, labels, _ in encoded:
            for i in range(len(labels)):
                maps = {name: value[i : i + 1] for name, value in h.items()}
                voxels = self._sample(self._variables, maps, present[i : i + 1], labels[i], self._key)
                parts.append(jax.device_get(voxels))
        return jax.tree.map(lambda *columns: np.concatenate(columns), *parts)


@lru_cache(maxsize=16)
def _compiled(branches: BranchRunner, regions: Regions) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Compiled once per model, for any parameters."""
    static = (branches.model, branches.task)
    return jax.jit(partial(score_volume, *static, regions)), jax.jit(partial(sample_volume, *static))


def score_volume(
    model: Any, task: Any, regions: Regions, variables: Any, maps: Any, present: Array, labels: Array, key: Array
) -> dict[str, Overlap]:
    """One volume's overlaps by route; pure.

    Args:
      model: the twin network.
      task: the task, with class weights.
      regions: regions to score.
      variables: the model's variables, with moments.
      maps: {modality: (1, ..., d)}.
      present: (1, M) bool.
      labels: (...) class ids.
      key: PRNG key for counterfactual "permute".
    """
    labels = labels.reshape(-1)
    predict, _, (z, z_c, z_bar) = _worlds(model, task, variables, maps, present, labels, key)
    logits = {"representation": predict(z), "instrument": predict(z_c)}
    weights = task.weights(labels)
    events = (risk_events(logits["instrument"], predict(z_bar), labels, task) * weights[:, None]).sum(0)
    overlaps = {}
    for route, outputs in logits.items():
        correct = (task.correct(outputs, labels) * weights).sum()
        sums = (*overlap(outputs, labels, regions), events, correct, weights.sum())
        overlaps[route] = Overlap(*(x[None] for x in sums))
    return overlaps


def _worlds(
    model: Any, task: Any, variables: Any, maps: Any, present: Array, labels: Array, key: Array
) -> tuple[Callable[[Array], Array], tuple[dict[str, Array], Array], tuple[Array, Array, Array]]:
    """The head; representations and presence of one volume's voxels; their z, z_c and z_bar (n, d)."""
    predict, fuse = (partial(apply, model, variables, part) for part in (model.predict, model.fuse))
    h, (rows,) = rows_of(maps, present)
    h = zero_absent({name: h[name] for name in model.modalities}, rows)
    moments = Moments(**variables["instrument"]) if model.c3r.instrument != "none" else None
    worlds = both_worlds(predict, fuse, h, rows, labels, moments, config=model.c3r, key=key, task=task)
    return predict, (h, rows), worlds


def sample_volume(
    model: Any, task: Any, variables: Any, maps: Any, present: Array, labels: Array, key: Array
) -> Voxels:
    """Evenly spaced voxels of one volume; pure, arguments as in :func:`score_volume`."""
    labels = labels.reshape(-1)
    predict, (h, rows), (*_, z_bar) = _worlds(model, task, variables, maps, present, labels, key)
    step = max(1, labels.size // SAMPLED)
    h, rows, labels, z_bar = jax.tree.map(lambda x: x[::step], (h, rows, labels, z_bar))
    return Voxels(h, rows, labels, z_bar, task.probability(predict(z_bar), labels), task.weights(labels))


def volume_scores(
    encoded: Iterable[Any], scorer: VolumeScorer, kept: Sequence[np.ndarray | None]
) -> list[dict[str, Overlap]]:
    """Scores encoded batches once for each subset of modalities.

    Args:
      encoded: encoded batches, see ``encode_each``.
      scorer: the run's scorer.
      kept: (M,) masks of modalities, or None for all.

    Returns:
      {route: :class:`Overlap`} for each of ``kept``.
    """
    parts: list[list[dict[str, Overlap]]] = [[] for _ in kept]
    for h, present, labels, _ in encoded:
        for subset, mask in zip(parts, kept, strict=True):
            subset.append(scorer(h, present, labels, mask))
    return [{route: Overlap.merge([part[route] for part in subset]) for route in ROUTES} for subset in parts]
