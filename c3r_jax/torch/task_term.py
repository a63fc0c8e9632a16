"""The task term of the objective: the loss at z, over subsets of the modalities, and beyond the experts."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Num
from torch import Tensor

from c3r_jax.objective_config import C3RConfig
from c3r_jax.torch.alone import alone_in
from c3r_jax.torch.batch import Where, keep, promote
from c3r_jax.torch.expert import Expert, residual_experts
from c3r_jax.torch.gate import is_zero
from c3r_jax.torch.processes import Group
from c3r_jax.torch.task import Task

Evidence = Mapping[str, Float[Tensor, "batch classes"]]  # {name: an expert's log_ratio}


class TaskTerm(NamedTuple):
    """The task term of a batch.

    Attributes:
      losses: (B,) of each row, before any mean.
      experts: {name: :class:`Expert`} computed from the batch; None without experts, or where they were given.
    """

    losses: Float[Tensor, " batch"]
    experts: dict[str, Expert] | None


def task_term(
    features: dict[str, Tensor],
    logits: Float[Tensor, "batch classes"],
    alone: Float[Tensor, "modalities batch classes"] | None,
    labels: Num[Tensor, "batch ..."],
    present: Bool[Tensor, "batch modalities"],
    *,
    config: C3RConfig,
    share: Any,
    expert: Any,
    evidence: Evidence | None,
    where: Where,
    group: Group | None,
    task: Task,
) -> TaskTerm:
    r"""The loss of each row, over subsets of its modalities and beyond the experts where the configuration asks so.

    .. math::
       T_i = (1 - a)\, t_i(\text{all}) + a\, \text{mean}_m\, t_i(\{m\}), \quad
       t_i(S) = (1 - w)\, \ell(l_S, y_i) + w\, \ell\left(l_S + \sum_{m \in S} \log(q_m / p), y_i\right)

    "All" is all that the row has, the mean is over each modality of it alone (``torch.alone.outputs_alone``), and a is
    ``config.subsets`` times the strength and ``share``. For all, l_S is predict(z). q_m is the expert of modality m, w
    its weight.

    Args:
      features: {name: (B, d_name)}, zero where absent or excluded.
      logits: (B, K) predict(fuse(features, present)).
      alone: (M, B, K) outputs of :func:`c3r_jax.torch.alone.outputs_alone`; None without subsets.
      labels: (B,).
      present: (B, M) bool.
      config: which subsets, and how strong C3R is.
      share: how far modalities alone may stand for all together, 0 to 1.
      expert: w, 0 to 1; the number 0 switches experts off.
      evidence: the experts of these rows, where they are known; None: computed from the batch.
      where: (B,) bool, rows that count.
      group: process group over which the batch is split.
      task: what outputs and labels mean.

    Returns:
      :class:`TaskTerm`.
    """
    experts, logits = None, promote(logits)
    if is_zero(expert):
        evidence = None
    else:
        if evidence is None:
            targets = task.expert_targets(labels, logits.shape[1], logits.dtype)
            shared: dict[str, Any] = {"present": present, "where": where, "group": group, "task": task}
            experts = residual_experts(features, targets, ridge=config.ridge, **shared)
            evidence = {name: found.log_ratio for name, found in experts.items()}
        for name, value in evidence.items():
            if value.shape != logits.shape:
                raise ValueError(
                    f"evidence[{name!r}] has shape {tuple(value.shape)}, but the logits have {tuple(logits.shape)}."
                )

    def of_subset(outputs: Tensor, columns: Bool[Tensor, "batch modalities"]) -> Tensor:
        plain = task.loss(outputs, labels, config.label_smoothing)
        if evidence is None:
            return plain
        joined = outputs + _joint(evidence, columns).to(outputs.dtype)
        return (1 - expert) * plain + expert * task.loss(joined, labels, config.label_smoothing)

    losses = of_subset(logits, present)
    if alone is None:
        return TaskTerm(losses, experts)
    total, count = torch.zeros_like(losses), present.sum(1).to(losses.dtype)
    for m, (only, value) in enumerate(zip(alone_in(present), alone, strict=True)):
        total = total + keep(present[:, m], of_subset(value, only))
    further = keep(count > 0, total / count.clamp(min=1) - losses)
    return TaskTerm(losses + min(1.0, config.strength) * config.subsets * share * further, experts)


def _joint(evidence: Evidence, columns: Tensor) -> Float[Tensor, "batch classes"]:
    """The summed evidence of the experts whose modality is in the subset."""
    return torch.stack([keep(columns[:, m], value) for m, value in enumerate(evidence.values())]).sum(0)
