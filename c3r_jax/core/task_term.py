"""The task term of the objective: the loss at z, over subsets of the modalities, and beyond the experts."""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Num

from c3r_jax.core.batch import keep, zero_absent
from c3r_jax.core.config import C3RConfig
from c3r_jax.core.counterfactual import Predict
from c3r_jax.core.expert import Expert, residual_experts
from c3r_jax.core.instruments import Fuse
from c3r_jax.core.tasks.base import Task


class TaskTerm(NamedTuple):
    """The task term of a batch.

    Attributes:
      losses: (B,) of each row, before any mean.
      logits: (B, K) predict(z), of all that is present.
      experts: {name: :class:`Expert`}; None without experts.
    """

    losses: Float[Array, " batch"]
    logits: Float[Array, "batch classes"]
    experts: dict[str, Expert] | None


def task_term(
    predict: Predict,
    fuse: Fuse,
    features: dict[str, Array],
    z: Float[Array, "batch features"],
    labels: Num[Array, "batch ..."],
    present: Bool[Array, "batch modalities"],
    *,
    config: C3RConfig,
    where: Bool[Array, " batch"],
    axis_name: str | None,
    task: Task,
) -> TaskTerm:
    r"""The loss of each row, over subsets of its modalities and beyond the experts where the configuration asks so.

    .. math::
       T_i = \text{mean}_S \left[ (1 - w)\, \ell(l_S, y_i)
             + w\, \ell\left(l_S \oplus \{q_m\}_{m \in S}, y_i\right) \right],
       \quad l_S = \text{predict}(\text{fuse}(h, S))

    S is all that the row has, and with ``config.subsets`` also each modality of it alone. w is ``config.expert``, q_m
    the expert of modality m, and the sign joins outputs with an expert (:meth:`Task.beyond`): for classes,
    :math:`l + \log(q / p)`.

    Args:
      predict: z (B, d) -> logits (B, K).
      fuse: ({name: (B, d_name)}, present (B, M)) -> z (B, d).
      features: {name: (B, d_name)}, zero where absent or excluded.
      z: (B, d) fuse(features, present).
      labels: (B, ...).
      present: (B, M) bool.
      config: which subsets, how much of the expert.
      where: (B,) bool, rows that count.
      axis_name: mapped axis over which the batch is split.
      task: what outputs and labels mean.

    Returns:
      :class:`TaskTerm`.
    """
    loss = partial(task.loss, label_smoothing=config.label_smoothing)
    logits = predict(z)
    experts = None
    if config.expert:
        targets = task.expert_targets(labels, logits.shape[1])
        experts = residual_experts(
            features, targets, present=present, where=where, axis_name=axis_name, ridge=config.ridge
        )

    def of_subset(outputs: Array, columns: Bool[Array, "batch modalities"]) -> Array:
        plain = loss(outputs, labels)
        if experts is None:
            return plain
        beyond = loss(task.beyond(outputs, _evidence(experts, columns)), labels)
        return (1 - config.expert) * plain + config.expert * beyond

    losses = of_subset(logits, present)
    if not config.subsets:
        return TaskTerm(losses, logits, experts)
    total, count, columns = losses, jnp.ones_like(losses), jnp.arange(present.shape[1])
    for m in range(present.shape[1]):
        has = present[:, m]
        # A row without the modality keeps what it has, so that its z is finite, and is not counted.
        alone = jnp.where(has[:, None], columns[None, :] == m, present)
        total = total + keep(has, of_subset(predict(fuse(zero_absent(features, alone), alone)), alone))
        count = count + has.astype(count.dtype)
    return TaskTerm(total / count, logits, experts)


def _evidence(experts: Mapping[str, Expert], columns: Any) -> Float[Array, "batch classes"]:
    """The sum of the log-ratios of the experts whose modality is in the subset."""
    parts = [keep(columns[:, m], expert.log_ratio) for m, expert in enumerate(experts.values())]
    return jnp.stack(parts).sum(0)
