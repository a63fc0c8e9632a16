"""Segmentation, one volume at a time: overlap of regions for every subset of modalities, and risks of voxels.

No volume's scores depend on another: z_bar of a voxel uses the mean over its own volume (training: over the batch).
What is kept of a volume are a few sums, so that a split of any size is scored in the memory of one batch.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from c3r_jax.core.instrument import Moments
from c3r_jax.core.risk import C3Risk, risk_events, risk_of
from c3r_jax.evaluation.branches import BranchRunner, both_worlds
from c3r_jax.models.twin import ROUTES, apply, rows_of, with_moments

if TYPE_CHECKING:
    from c3r_jax.training.experiment import Experiment

TUMOUR = {"WT": (1, 2, 3), "TC": (1, 3), "ET": (3,)}  # BraTS, its label 4 mapped to 3
SAMPLED = 2000  # voxels of a volume that first-stage diagnostics and the probe of z_bar see
Regions = tuple[tuple[str, tuple[int, ...]], ...]


def regions_of(class_names: tuple[str, ...]) -> Regions:
    """Named sets of class ids whose overlap is scored: BraTS's three, or every class but the first (background).

    Examples:
      >>> regions_of(("background", "organ"))
      (('organ', (1,)),)
    """
    if "enhancing tumour" in class_names:
        return tuple(TUMOUR.items())
    return tuple((name, (k,)) for k, name in enumerate(class_names) if k)


class Overlap(NamedTuple):
    """What Dice needs of some volumes; those of more volumes are added by :meth:`merge`.

    Attributes:
      both, predicted, true: (volumes, regions) voxels.
      events: (volumes, 3) weighted sums of :func:`risk_events`.
      right: (volumes,) weighted sum of voxels told right.
      weight: (volumes,) sum of the voxels' weights.
    """

    both: Any
    predicted: Any
    true: Any
    events: Any
    right: Any
    weight: Any

    @classmethod
    def merge(cls, parts: list["Overlap"]) -> "Overlap":
        """All volumes, one after the other."""
        return cls(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))

    def dice(self) -> np.ndarray:
        """2 |A and B| / (|A| + |B|) of each volume and region; 1 where both are empty, as in BraTS."""
        size = np.asarray(self.predicted, np.float64) + np.asarray(self.true, np.float64)
        return np.where(size > 0, 2 * np.asarray(self.both, np.float64) / np.maximum(size, 1), 1.0)

    def scores(self, regions: Regions) -> dict[str, float]:
        """Mean Dice over volumes of each region, their mean, and the weighted share of voxels told right."""
        by_region = self.dice().mean(0)
        accuracy = np.asarray(self.right, np.float64).sum() / np.asarray(self.weight, np.float64).sum()
        named = {f"dice_{name}": float(value) for (name, _), value in zip(regions, by_region, strict=True)}
        return {"dice": float(by_region.mean()), **named, "accuracy": float(accuracy)}

    def risk(self) -> C3Risk:
        """The 0/1 risk of all voxels, each by its weight."""
        events = np.asarray(self.events, np.float64) / np.asarray(self.weight, np.float64)[:, None]
        where = jnp.ones(len(events), bool)
        return risk_of(jnp.asarray(events), where=where, weights=jnp.asarray(self.weight, jnp.float32))


class Voxels(NamedTuple):
    """Some voxels, for diagnostics: their representations, and the hypothetical world's.

    Attributes:
      h: {modality: (n, d)}, zeros where it is not present.
      present: (n, M) bool.
      labels: (n,) class ids.
      z_bar: (n, d), of the whole volume that a voxel is of.
      told: (n,) probability of the label, p_y(z_bar).
      weights: (n,) of the voxels, by class.
    """

    h: Any
    present: Any
    labels: Any
    z_bar: Any
    told: Any
    weights: Any


def overlap(logits: Array, labels: Array, regions: Regions) -> tuple[Array, Array, Array]:
    """|A and B|, |A|, |B| of each region (R,), of voxels predicted by arg max; a non-finite row predicts class 0.

    Examples:
      >>> import jax.numpy as jnp
      >>> logits = jnp.array([[0.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
      >>> print(*overlap(logits, jnp.array([1, 0, 0]), (("organ", (1,)),)))
      [1] [2] [1]
    """
    said = jnp.where(jnp.isfinite(logits).all(-1), logits.argmax(-1), 0)
    found = []
    for _, ids in regions:
        members = jnp.asarray(ids)
        inside = (said[:, None] == members[None, :]).any(-1)
        truth = (labels[:, None] == members[None, :]).any(-1)
        found.append(((inside & truth).sum(), inside.sum(), truth.sum()))
    both, predicted, true = (jnp.stack(column) for column in zip(*found, strict=True))
    return both, predicted, true


class VolumeScorer:
    """Scores encoded volumes of a run, compiled once per shape.

    Args:
      experiment: the run.
      params: of fusion and head, on the host.
      moments: of the training set, or running ones; None without an instrument.
    """

    def __init__(self, experiment: "Experiment", params: Any, moments: Moments | None):
        variables = {"params": params}
        self._variables = variables if moments is None else with_moments(variables, moments)
        self._key = jax.random.key(experiment.config.seed)
        self.regions = regions_of(experiment.sources["train"].info.class_names)
        self._run, self._sample = _compiled(experiment.branches, self.regions)

    def __call__(
        self, h: Mapping[str, np.ndarray], present: np.ndarray, labels: np.ndarray, kept: np.ndarray | None = None
    ) -> dict[str, Overlap]:
        """Scores some volumes.

        Args:
          h: {modality: (n, ..., d)} maps.
          present: (n, M) bool.
          labels: (n, ...) class ids.
          kept: (M,) bool, modalities that are looked at; None: all.

        Returns:
          {route: :class:`Overlap`}; the events are the same on both.
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
                found = self._sample(self._variables, maps, present[i : i + 1], labels[i], self._key)
                parts.append(jax.device_get(found))
        return jax.tree.map(lambda *columns: np.concatenate(columns), *parts)


@lru_cache(maxsize=16)
def _compiled(branches: BranchRunner, regions: Regions) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Once per model, whatever the parameters."""
    known = (branches.model, branches.task)
    return jax.jit(partial(score_volume, *known, regions)), jax.jit(partial(sample_volume, *known))


def score_volume(
    model: Any, task: Any, regions: Regions, variables: Any, maps: Any, present: Array, labels: Array, key: Array
) -> dict[str, Overlap]:
    """One volume's overlaps by route; pure.

    Args:
      model: the twin network.
      task: with the classes' weights.
      regions: to score.
      variables: the model's, with moments.
      maps: {modality: (1, ..., d)}.
      present: (1, M) bool.
      labels: (...) class ids.
      key: of counterfactual "permute".
    """
    labels = labels.reshape(-1)
    predict, _, (z, z_c, z_bar) = _worlds(model, task, variables, maps, present, labels, key)
    logits = {"representation": predict(z), "instrument": predict(z_c)}
    weights = task.weights(labels)
    events = (risk_events(logits["instrument"], predict(z_bar), labels, task) * weights[:, None]).sum(0)
    found = {}
    for route, own in logits.items():
        right = (task.right(own, labels) * weights).sum()
        sums = (*overlap(own, labels, regions), events, right, weights.sum())
        found[route] = Overlap(*(x[None] for x in sums))
    return found


def _worlds(
    model: Any, task: Any, variables: Any, maps: Any, present: Array, labels: Array, key: Array
) -> tuple[Callable[[Array], Array], tuple[dict[str, Array], Array], tuple[Array, Array, Array]]:
    """The head; representations and presence of one volume's voxels; their z, z_c and z_bar (n, d)."""
    predict, fuse = (partial(apply, model, variables, part) for part in (model.predict, model.fuse))
    h, (rows,) = rows_of(maps, present)
    h = {
        name: jnp.where(rows[:, m, None], h[name], jnp.zeros((), h[name].dtype))
        for m, name in enumerate(model.modalities)
    }
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
      encoded: of ``encoded_batches``.
      scorer: of the run.
      kept: (M,) masks of modalities, or None for all.

    Returns:
      {route: :class:`Overlap`} for each of ``kept``.
    """
    parts: list[list[dict[str, Overlap]]] = [[] for _ in kept]
    for h, present, labels, _ in encoded:
        for own, mask in zip(parts, kept, strict=True):
            own.append(scorer(h, present, labels, mask))
    return [{route: Overlap.merge([part[route] for part in own]) for route in ROUTES} for own in parts]
