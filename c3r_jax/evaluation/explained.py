"""How far the real world explains a run's predictions on its validation split: C3R's gate in training."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Array

from c3r_jax.caches import quick_compilation
from c3r_jax.core.batch import pad_rows, shared_size, zero_absent
from c3r_jax.core.gate import has_gate
from c3r_jax.core.held_out import held_out_share
from c3r_jax.core.moments import Moments
from c3r_jax.experiments.experiment import Experiment
from c3r_jax.models.branches import BranchRunner
from c3r_jax.models.twin import apply

FEWEST, MOST = 20, 1024  # validation examples: fewer say nothing, and more say the same


def measures_share(experiment: Experiment) -> bool:
    """Whether each validation measures :func:`validation_share`: C3R has a gate, and the split enough examples.

    For contrastive tasks and segmentation the gate stays that of each batch.
    """
    return _asks_for_share(experiment) and len(experiment.sources["validation"]) >= FEWEST


def unmeasured_note(experiment: Experiment) -> str | None:
    """A sentence where the validation split is too small for the gate; None where it is not, or none is measured."""
    if not _asks_for_share(experiment) or measures_share(experiment):
        return None
    return (
        f"the validation split has {len(experiment.sources['validation'])} examples, but {FEWEST} were expected for "
        "C3R's gate, which is then measured on training batches: C3R may silence what only one modality says, and cost "
        "accuracy; give more validation examples, or compare with --config.method=plain."
    )


def _asks_for_share(experiment: Experiment) -> bool:
    method, c3r = experiment.method, experiment.method.c3r
    gated = method.regularised and c3r.strength > 0 and has_gate(c3r)
    return gated and not (method.contrastive or method.spec.dense)


def validation_share(
    experiment: Experiment,
    params: Any,
    moments: Moments,
    h: Mapping[str, np.ndarray],
    present: np.ndarray,
    labels: np.ndarray,
) -> float:
    """:func:`c3r_jax.held_out_share` of encoded validation examples, of :data:`MOST` evenly spaced ones at most.

    Args:
      experiment: the run.
      params: the parameters after the encoders, on the host.
      moments: of the training split, with the same parameters.
      h: {modality: (n, d)} representations.
      present: (n, M) bool.
      labels: (n, ...).
    """
    count = min(len(labels), MOST)
    chosen = np.linspace(0, len(labels) - 1, count).round().astype(int)
    rows = {"h": dict(h), "present": present, "labels": labels, "where": np.ones(len(labels), bool)}
    rows = jax.tree.map(lambda x: pad_rows(x[chosen], shared_size(count)), rows)
    return float(_share(experiment.branches)(params, moments, **rows))


@functools.lru_cache(maxsize=16)
def _share(branches: BranchRunner) -> Callable[..., Array]:
    """Compiled once per model, split and task, for any parameters."""
    model, task = branches.model, branches.task

    def share(params: Any, moments: Moments, h: Any, present: Array, labels: Array, where: Array) -> Array:
        fuse, predict = (
            functools.partial(apply, model, {"params": params}, part) for part in (model.fuse, model.predict)
        )
        shared: dict[str, Any] = {"present": present, "where": where, "config": model.c3r, "task": task}
        return held_out_share(predict, fuse, zero_absent(h, present), labels, moments, **shared)

    return jax.jit(share, compiler_options=quick_compilation(0))
