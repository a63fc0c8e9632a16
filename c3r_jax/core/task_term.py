"""The task term of the objective: the loss at z, over subsets of the modalities, and beyond the experts."""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Num

from c3r_jax.core.batch import Where, global_sum, keep, weigh, zero_absent
from c3r_jax.core.config import C3RConfig
from c3r_jax.core.counterfactual import Predict
from c3r_jax.core.expert import Expert, residual_experts
from c3r_jax.core.gate import at_most_one, is_zero
from c3r_jax.core.instruments import Fuse
from c3r_jax.core.tasks.base import Task
from c3r_jax.core.tasks.classification import CLASSIFICATION

Evidence = Mapping[str, Float[Array, "batch outputs"]]  # {name: an expert's log_ratio}


class TaskTerm(NamedTuple):
    """The task term of a batch.

    Attributes:
      losses: (B,) of each row, before any mean.
      experts: {name: :class:`Expert`} computed from the batch; None without experts, or where they were given.
    """

    losses: Float[Array, " batch"]
    experts: dict[str, Expert] | None


def task_term(
    outputs: Float[Array, "subsets batch outputs"],
    losses: Float[Array, "subsets batch"],
    features: dict[str, Array],
    labels: Num[Array, "batch ..."],
    present: Bool[Array, "batch modalities"],
    *,
    config: C3RConfig,
    expert: Any,
    evidence: Evidence | None,
    where: Where,
    axis_name: str | None,
    task: Task,
) -> TaskTerm:
    r"""The loss of each row, over subsets of its modalities and beyond the experts where the configuration asks so.

    .. math::
       T_i = \text{mean}_S \left[ (1 - w)\, \ell(l_S, y_i)
             + w\, \ell\left(l_S \oplus \{q_m\}_{m \in S}, y_i\right) \right]

    S is all that the row has, and with ``config.subsets`` also each modality of it alone, see :func:`outputs_alone`.
    q_m is the expert of modality m, w its weight, and the sign joins outputs with an expert (:meth:`Task.beyond`): for
    classes, :math:`l + \log(q / p)`.

    Args:
      outputs: l_S: (1, B, K) predict(z), or (1 + M, B, K) with :func:`outputs_alone` after it.
      losses: (1, B) or (1 + M, B) their losses.
      features: {name: (B, d_name)}, zero where absent or excluded.
      labels: (B, ...).
      present: (B, M) bool.
      config: how strong C3R is, and the experts' ridge.
      expert: w, 0 to 1; the number 0 switches experts off.
      evidence: the experts of these rows, where they are known; None: computed from the batch.
      where: (B,) bool, rows that count.
      axis_name: mapped axis over which the batch is split.
      task: what outputs and labels mean.

    Returns:
      :class:`TaskTerm`.
    """
    experts = None
    with_subsets = len(outputs) > 1
    if not is_zero(expert):
        if evidence is None:
            targets = task.expert_targets(labels, outputs.shape[2])
            shared: dict[str, Any] = {"present": present, "where": where, "axis_name": axis_name, "task": task}
            experts = residual_experts(features, targets, ridge=config.ridge, **shared)
            evidence = {name: found.log_ratio for name, found in experts.items()}
        for name, value in evidence.items():
            if value.shape != outputs.shape[1:]:
                raise ValueError(
                    f"evidence[{name!r}] has shape {value.shape}, but the outputs have {outputs.shape[1:]}."
                )
        columns = jnp.concatenate([present[None], *([alone_in(present)] if with_subsets else [])])
        joint = jax.vmap(partial(_joint, evidence))(columns)
        loss = partial(task.loss, label_smoothing=config.label_smoothing)
        beyond = jax.vmap(lambda value, other: loss(task.beyond(value, other), labels))(outputs, joint)
        losses = (1 - expert) * losses + expert * beyond
    if not with_subsets:
        return TaskTerm(losses[0], experts)
    has = present.T
    mean = (losses[0] + jnp.where(has, losses[1:], 0).sum(0)) / (1 + has.sum(0).astype(losses.dtype))
    if not isinstance(config.strength, Tracer) and config.strength >= 1:
        return TaskTerm(mean, experts)
    return TaskTerm(losses[0] + at_most_one(config.strength) * (mean - losses[0]), experts)


def alone_in(present: Bool[Array, "batch modalities"]) -> Bool[Array, "modalities batch modalities"]:
    """Of each row one modality; a row without it keeps what it has, so that its z is finite, and is not counted."""
    has = present.T
    return jnp.where(has[:, :, None], jnp.eye(len(has), dtype=bool)[:, None, :], present[None, :, :])


def outputs_alone(
    predict: Predict,
    fuse: Fuse,
    features: dict[str, Array],
    logits: Float[Array, "batch outputs"],
    present: Bool[Array, "batch modalities"],
    constant: Float[Array, " outputs"],
    *,
    where: Where,
    axis_name: str | None,
    task: Task,
) -> Float[Array, "modalities batch outputs"]:
    r"""The outputs of each modality alone, with the share c that its evidence has in the fusion.

    .. math::
       l_m = l_0 + c\,(\text{predict}(\text{fuse}(h, \{m\})) - l_0)

    with l_0 the best constant outputs, see :func:`share_alone`. Without c a mean of modalities would have to be as sure
    with one of them as with all, and rare classes would pay for that.

    Args:
      predict: z (B, d) -> outputs (B, K).
      fuse: ({name: (B, d_name)}, present (B, M)) -> z (B, d).
      features: {name: (B, d_name)}, zero where absent or excluded.
      logits: (B, K) predict(fuse(features, present)).
      present: (B, M) bool.
      constant: (K,) l_0.
      where: (B,) bool, rows that count.
      axis_name: mapped axis over which the batch is split.
      task: what outputs mean.
    """
    # One program for all modalities: it does not grow with their number.
    outputs = jax.vmap(lambda only: predict(fuse(zero_absent(features, only), only)))(alone_in(present))
    share = share_alone(logits, outputs, present, constant, where=where, axis_name=axis_name, task=task)[:, None]
    return jax.vmap(lambda value: task.at_share(value, constant, share))(outputs)


def share_alone(
    joint: Float[Array, "batch outputs"],
    alone: Float[Array, "modalities batch outputs"],
    present: Bool[Array, "batch modalities"],
    constant: Float[Array, " outputs"],
    *,
    where: Where,
    axis_name: str | None = None,
    task: Task = CLASSIFICATION,
) -> Float[Array, " batch"]:
    r"""The share that one modality's evidence has in the joint outputs: 1/n under a mean of n, 1 under a sum.

    .. math::
       c_i = \kappa / n_i, \quad
       \kappa = \frac{\langle l - l_0,\ \bar l - l_0 \rangle}{\langle \bar l - l_0,\ \bar l - l_0 \rangle}
       \ \text{within } [1, n_i]

    where :math:`\bar l` is the mean of the outputs from each present modality alone, and the products run over the rows
    of the global batch with several modalities; what a softmax ignores, the mean of a row's logits, is left out.

    Args:
      joint: (B, K) outputs l of all modalities.
      alone: (M, B, K) outputs of each alone; anything where absent.
      present: (B, M) bool.
      constant: (K,) l_0.
      where: (B,) bool, rows that count.
      axis_name: mapped axis over which the batch is split.
      task: what outputs mean.

    Returns:
      (B,) c, without gradient.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> alone = jax.random.normal(jax.random.key(0), (2, 8, 3))
      >>> rows, present, zero = jnp.ones(8, bool), jnp.ones((8, 2), bool), jnp.zeros(3)
      >>> print(share_alone(alone.mean(0), alone, present, zero, where=rows)[:2].round(3))
      [0.5 0.5]
    """
    joint, alone, constant = jax.lax.stop_gradient((joint, alone, constant.astype(joint.dtype)))
    count = jnp.maximum(present.sum(1), 1).astype(joint.dtype)
    mean = jnp.stack([keep(present[:, m], value) for m, value in enumerate(alone)]).sum(0) / count[:, None]
    several = where & (count > 1)
    e, s = (keep(several, task.contrasts(value - constant[None, :])) for value in (joint, mean))
    products = global_sum(jnp.stack([weigh(several, x * s).sum() for x in (e, s)]), axis_name)
    kappa = products[0] / jnp.where(products[1] > 0, products[1], 1)
    return jnp.clip(kappa, 1, count) / count


def _joint(evidence: Evidence, columns: Any) -> Float[Array, "batch outputs"]:
    """The summed evidence of the experts whose modality is in the subset."""
    parts = [keep(columns[:, m], value) for m, value in enumerate(evidence.values())]
    return jnp.stack(parts).sum(0)
