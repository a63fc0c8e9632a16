"""The hypothetical world as an expert: what each modality says of the label that its instrument does not explain.

The expert reads the residual of a modality's first stage and predicts the label from it. Training may then ask the
representation to explain the label *beyond* the expert (a product of experts), and the expert's own accuracy measures
how much of the label is predictable without the instrument: a necessity that can be compared across models.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from c3r_jax.core.available import available_rows
from c3r_jax.core.batch import (
    Where,
    check_counts,
    check_float,
    global_count,
    global_mean,
    global_sum,
    keep,
    like,
    mask_of,
    not_zero,
    promote,
    weigh,
)
from c3r_jax.core.batch_checks import checked_present
from c3r_jax.core.leave_one_out import LeaveOneOut, leave_one_out
from c3r_jax.core.tasks.base import Task
from c3r_jax.core.tasks.classification import CLASSIFICATION

BETAS = (0.0, 0.5, 1.0, 2.0, 3.0, 5.0, 8.0, 12.0, 20.0)  # sharpness of an expert; 0: it says no more than the shares


class Expert(NamedTuple):
    """What one modality's residual says of the label; leave-one-out throughout, a constant for every gradient.

    Attributes:
      log_ratio: (B, K) evidence to be added to outputs, log q(y | e) - log p(y) for classes; 0 in rows that lack the
        modality or an instrument of it.
      beta: the chosen sharpness, one of :data:`BETAS`.
      likelihood: minus the mean loss of q over the rows that have the modality, in nats for classes.
      accuracy: share of correct predictions of q in those rows.
      first_stage: :class:`LeaveOneOut` of the modality on its instrument.
    """

    log_ratio: Float[Array, "batch outputs"]
    beta: Float[Array, ""]
    likelihood: Float[Array, ""]
    accuracy: Float[Array, ""]
    first_stage: LeaveOneOut


def residual_experts(
    features: Mapping[str, Float[Array, "batch _"]],
    targets: Float[Array, "batch outputs"],
    *,
    present: Bool[Array, "batch modalities"] | None = None,
    where: Where | None = None,
    axis_name: str | None = None,
    ridge: float = 1e-2,
    task: Task = CLASSIFICATION,
) -> dict[str, Expert]:
    r"""An expert for every modality, from one global batch, in closed form.

    .. math::
       e_i = h_i - \hat h_i^{(-i)}, \quad
       q(y \mid e_i) = \mathrm{softmax}_y\left(\beta\,(s_i - p) + \log p\right)

    :math:`\hat h^{(-i)}` is the leave-one-out first stage on the other modalities, s the leave-one-out ridge prediction
    of the one-hot label from e, p the label shares, and beta the value of :data:`BETAS` with the highest leave-one-out
    likelihood; it is 0 where e says nothing of the label. A modality's rows are those that have it and another one; the
    blocks that a row lacks are at their mean, as in prediction. For other tasks see :meth:`Task.expert_outputs`:
    several labels have one log-odds each, a number its own prediction. Only moments and the likelihoods are summed over
    devices.

    Args:
      features: {name: (B, d_name)} representations, at least two; what is absent may hold anything.
      targets: (B, K) one-hot labels, or shares that sum to 1; for other tasks :meth:`Task.expert_targets`.
      present: (B, M) bool, columns in the sorted order of the names; None: all.
      where: (B,) bool, rows that count; None: all.
      axis_name: mapped axis over which the batch is split.
      ridge: penalty of both regressions, relative to the mean variance of their instrument.
      task: what targets mean.

    Returns:
      {name: :class:`Expert`}.

    Raises:
      ValueError: on fewer than two modalities, or wrong shapes or dtypes.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> keys = jax.random.split(jax.random.key(0), 3)
      >>> cause, cue = jax.random.normal(keys[0], (200, 1)), jax.random.normal(keys[1], (200, 1))
      >>> h = {"image": jnp.concatenate([cause, cue], 1), "text": cause + 0.1 * jax.random.normal(keys[2], (200, 1))}
      >>> labels = jax.nn.one_hot((cause + cue > 0).astype(int)[:, 0], 2)
      >>> experts = residual_experts(h, labels)  # the cue is the image's alone
      >>> [round(float(experts[name].accuracy), 1) for name in ("image", "text")]
      [0.8, 0.5]

    References:
      G. Hinton, Training products of experts by minimizing contrastive divergence, 2002.
      C. Clark et al., Don't take the easy way out: ensemble based methods for avoiding known dataset biases, 2019.
    """
    if len(features) < 2:
        raise ValueError(f"features has {len(features)} modality, but at least 2 were expected: one has no instrument.")
    names = sorted(features)
    targets = promote(check_float("targets", targets, 2))
    rows = check_counts(where, targets.shape[0])
    shapes = {name: jnp.shape(features[name]) for name in names}
    if any(len(shape) != 2 or shape[0] != targets.shape[0] for shape in shapes.values()):
        raise ValueError(
            f"features have shapes {shapes}, but ({targets.shape[0]}, d) was expected, as targets have rows."
        )
    present = checked_present(present, targets.shape[0], names)
    known = present & mask_of(rows)[:, None]
    h = {name: jax.lax.stop_gradient(keep(known[:, m], promote(features[name]))) for m, name in enumerate(names)}
    shares = global_mean(targets, rows, axis_name)
    experts = {}
    for m, (name, mask) in enumerate(zip(names, available_rows(present, mask_of(rows)), strict=True)):
        usable = like(rows, mask)
        others = [(k, other) for k, other in enumerate(names) if other != name]
        instrument = [_at_mean(h[other], known[:, k], usable, axis_name) for k, other in others]
        shared: dict[str, Any] = {"ridge": ridge, "where": usable, "axis_name": axis_name}
        stage = leave_one_out(jnp.concatenate(instrument, axis=1), keep(known[:, m], h[name]), **shared)
        scores = leave_one_out(stage.residual, targets, **shared).predicted
        experts[name] = expert_of(stage, scores, targets, shares, usable, axis_name=axis_name, task=task)
    return jax.lax.stop_gradient(experts)


def _at_mean(h: Array, known: Array, rows: Where, axis_name: str | None) -> Array:
    """Values with those that are absent at the mean of the known ones among ``rows``."""
    return jnp.where(known[:, None], h, global_mean(h, rows & known, axis_name)[None, :])


def expert_of(
    stage: LeaveOneOut,
    scores: Float[Array, "batch outputs"],
    targets: Float[Array, "batch outputs"],
    shares: Float[Array, " outputs"],
    rows: Where,
    *,
    axis_name: str | None = None,
    task: Task = CLASSIFICATION,
) -> Expert:
    """The expert of leave-one-out predictions: its sharpness is the one with the smallest loss.

    Args:
      stage: the modality's first stage.
      scores: (B, K) leave-one-out predictions of the targets from the stage's residual.
      targets: (B, K).
      shares: (K,) mean targets.
      rows: (B,) bool, rows that the predictions are for.
      axis_name: mapped axis over which the batch is split.
      task: what targets mean.
    """
    centred = keep(rows, scores - shares[None, :])

    def losses(beta: Array) -> Array:
        return weigh(rows, task.expert_losses(task.expert_outputs(centred, shares, beta), targets)).sum()

    betas = jnp.asarray(BETAS, centred.dtype)
    count = not_zero(global_count(rows, axis_name, centred.dtype))
    likelihoods = -global_sum(jax.lax.map(losses, betas), axis_name) / count
    best = jnp.argmax(likelihoods)
    chosen = task.expert_outputs(centred, shares, betas[best])
    accuracy = global_sum(weigh(rows, task.expert_correct(chosen, targets)).sum(), axis_name) / count
    evidence = keep(rows, chosen - task.expert_outputs(jnp.zeros_like(centred), shares, betas[0]))
    evidence = jnp.where(jnp.isfinite(evidence), evidence, 0)  # a regression that failed says nothing
    return Expert(evidence, betas[best], likelihoods[best], accuracy, stage)
