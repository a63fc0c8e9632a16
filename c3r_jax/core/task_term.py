"""The task term of the objective: the loss at z, over subsets of the modalities, and beyond the experts."""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Num

from c3r_jax.core.alone import alone_in
from c3r_jax.core.batch import Where, keep
from c3r_jax.core.config import C3RConfig
from c3r_jax.core.expert import Expert, residual_experts
from c3r_jax.core.gate import at_most_one, is_zero
from c3r_jax.core.tasks.base import Task

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
    alone: Float[Array, ""] | None,
    expert: Any,
    evidence: Evidence | None,
    where: Where,
    axis_name: str | None,
    task: Task,
) -> TaskTerm:
    r"""The loss of each row, over subsets of its modalities and beyond the experts where the configuration asks so.

    .. math::
       T_i = (1 - a)\, t_i(\text{all}) + a\, \text{mean}_m\, t_i(\{m\}), \quad
       t_i(S) = (1 - w)\, \ell(l_S, y_i) + w\, \ell\left(l_S \oplus \{q_m\}_{m \in S}, y_i\right)

    "All" is all that the row has, the mean is over each modality of it alone (``core.alone.outputs_alone``), and a is
    ``config.subsets`` times the strength and ``alone``.
    q_m is the expert of modality m, w its weight, and the sign joins outputs with an expert (:meth:`Task.beyond`): for
    classes, :math:`l + \log(q / p)`.

    Args:
      outputs: l_S: (1, B, K) predict(z), or (1 + M, B, K) with those of ``core.alone.outputs_alone`` after it.
      losses: (1, B) or (1 + M, B) their losses.
      features: {name: (B, d_name)}, zero where absent or excluded.
      labels: (B, ...).
      present: (B, M) bool.
      config: how strong C3R is, and the experts' ridge.
      alone: how far modalities alone may stand for all together, 0 to 1; None without modalities alone.
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
    count = has.sum(0).astype(losses.dtype)
    of_one = jnp.where(has, losses[1:], 0).sum(0) / jnp.maximum(count, 1)
    assert alone is not None  # for type checkers
    share = at_most_one(config.strength) * config.subsets * alone
    return TaskTerm(losses[0] + share * jnp.where(count > 0, of_one - losses[0], 0), experts)


def _joint(evidence: Evidence, columns: Any) -> Float[Array, "batch outputs"]:
    """The summed evidence of the experts whose modality is in the subset."""
    parts = [keep(columns[:, m], value) for m, value in enumerate(evidence.values())]
    return jnp.stack(parts).sum(0)
