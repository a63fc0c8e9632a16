"""The task term of the objective: the loss at z, over subsets of the modalities, and beyond the experts."""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Num
from torch import Tensor

from c3r_jax.objective_config import C3RConfig
from c3r_jax.torch.batch import Where, keep, promote, weigh, zero_absent
from c3r_jax.torch.classification import CLASSIFICATION
from c3r_jax.torch.counterfactual import Predict
from c3r_jax.torch.expert import Expert, residual_experts
from c3r_jax.torch.gate import is_zero
from c3r_jax.torch.instruments import Fuse
from c3r_jax.torch.processes import Group, global_sum
from c3r_jax.torch.task import Task

Evidence = Mapping[str, Float[Tensor, "batch classes"]]  # {name: an expert's log_ratio}


class Alone(NamedTuple):
    """The share (B,) that one modality's evidence has in the joint outputs, and how far these are a sum of such."""

    share: Float[Tensor, " batch"]
    additivity: Float[Tensor, ""]


class AloneOutputs(NamedTuple):
    """What each modality alone says, and what the others explain of it.

    Attributes:
      outputs: (M, B, K) l_m of each modality alone.
      explained: (M, B, K) the same of its explained part, without gradient; None without a first stage.
      additivity: of :class:`Alone`.
    """

    outputs: Float[Tensor, "modalities batch classes"]
    explained: Float[Tensor, "modalities batch classes"] | None
    additivity: Float[Tensor, ""]


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

    "All" is all that the row has, the mean is over each modality of it alone, see :func:`outputs_alone`, and a is
    ``config.subsets`` times the strength and ``share``. For all, l_S is predict(z). q_m is the expert of modality m, w
    its weight.

    Args:
      features: {name: (B, d_name)}, zero where absent or excluded.
      logits: (B, K) predict(fuse(features, present)).
      alone: (M, B, K) outputs of :func:`outputs_alone`; None without subsets.
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


def alone_in(present: Bool[Tensor, "batch modalities"]) -> Bool[Tensor, "modalities batch modalities"]:
    """Of each row one modality; a row without it keeps what it has, so that its z is finite, and is not counted."""
    columns = torch.eye(present.shape[1], dtype=torch.bool, device=present.device)
    return torch.where(present.T[:, :, None], columns[:, None, :], present[None, :, :])


def outputs_alone(
    predict: Predict,
    fuse: Fuse,
    features: dict[str, Tensor],
    explained: dict[str, Tensor] | None,
    logits: Float[Tensor, "batch classes"],
    labels: Num[Tensor, "batch ..."],
    present: Bool[Tensor, "batch modalities"],
    constant: Float[Tensor, " classes"],
    *,
    where: Where,
    group: Group | None,
    task: Task,
) -> AloneOutputs:
    r"""The outputs of each modality alone, with the share c that its evidence has in the fusion.

    .. math::
       l_m = l_0 + c\,(\text{predict}(\text{fuse}(h, \{m\})) - l_0)

    with l_0 the best constant logits, see :func:`alone_in_joint`. Without c a mean of modalities would have to be as
    sure with one of them as with all, and rare classes would pay for that. A number is an estimate, not evidence: there
    n c takes the place of c, so that a sum of modalities does not ask each of them for the whole label, times
    :func:`own_slopes` within 1/n and 1, so that a mean of noisy measurements need not be as far from the mean label
    with one of them as with all.

    Args:
      predict: z (B, d) -> logits (B, K).
      fuse: ({name: (B, d_name)}, present (B, M)) -> z (B, d).
      features: {name: (B, d_name)}, zero where absent or excluded.
      explained: {name: (B, d_name)} what the other modalities explain of each; None without a first stage.
      logits: (B, K) predict(fuse(features, present)).
      labels: (B, ...).
      present: (B, M) bool.
      constant: (K,) l_0.
      where: (B,) bool, rows that count.
      group: process group over which the batch is split.
      task: what outputs mean.
    """

    def of(h: dict[str, Tensor]) -> Float[Tensor, "modalities batch classes"]:
        return torch.stack([promote(predict(fuse(zero_absent(h, only), only))) for only in alone_in(present)])

    outputs = of(features)
    found = alone_in_joint(promote(logits), outputs, present, constant, where=where, group=group, task=task)

    rows: dict[str, Any] = {"labels": labels, "where": where, "group": group}
    scaled = partial(scaled_alone, found=found, present=present, constant=constant, task=task, **rows)
    others = None
    if explained is not None:
        with torch.no_grad():
            others = scaled(of({name: h.detach() for name, h in explained.items()}))
    return AloneOutputs(scaled(outputs), others, found.additivity)


def scaled_alone(
    outputs: Float[Tensor, "modalities batch classes"],
    *,
    found: Alone,
    labels: Num[Tensor, "batch ..."],
    present: Bool[Tensor, "batch modalities"],
    constant: Float[Tensor, " classes"],
    where: Where,
    group: Group | None,
    task: Task,
) -> Float[Tensor, "modalities batch classes"]:
    """The outputs of each modality alone at the scale at which they answer for the label, see :func:`outputs_alone`."""
    share, count = found.share[:, None], present.sum(1, keepdim=True).clamp(min=1)
    values = torch.stack([task.alone(value, constant, share, count) for value in outputs])
    if task.adds_up:
        return values
    slopes = own_slopes(values, labels, present, constant, where=where, group=group, task=task)[:, None, None]
    least, level = 1 / count[None].to(values.dtype), constant.to(values.dtype)[None, None, :]
    return level + slopes.clamp(min=least, max=torch.ones_like(least)) * (values - level)


@torch.no_grad()
def own_slopes(
    alone: Float[Tensor, "modalities batch classes"],
    labels: Num[Tensor, "batch ..."],
    present: Bool[Tensor, "batch modalities"],
    constant: Float[Tensor, " classes"],
    *,
    where: Where,
    group: Group | None,
    task: Task,
) -> Float[Tensor, " modalities"]:
    r"""Least-squares slopes of the label on what each modality alone says; without gradient; 1 where it says nothing.

    .. math:: b_m = \frac{\langle y - l_0,\ l_m - l_0 \rangle}{\langle l_m - l_0,\ l_m - l_0 \rangle}

    over the rows of the global batch that have the modality. With it the loss of one modality alone asks for its
    direction, not for its size: of n measurements with independent noise, the best mean is further from the mean label
    than each of them should be alone.

    Args:
      alone: (M, B, K) l_m; anything where absent.
      labels: (B, ...).
      present: (B, M) bool.
      constant: (K,) l_0.
      where: (B,) bool, rows that count.
      group: process group over which the batch is split.
      task: what labels mean.
    """
    level = constant.to(alone.dtype)[None, :]
    y = task.expert_targets(labels, alone.shape[2], alone.dtype) - level
    products = []
    for m, value in enumerate(alone):
        rows = where & present[:, m]
        e, s = keep(rows, y), keep(rows, value - level)
        products.append(torch.stack([weigh(rows, e * s).sum(), weigh(rows, s * s).sum()]))
    across, square = global_sum(torch.stack(products), group).unbind(1)
    return torch.where(square > 0, across / torch.where(square > 0, square, 1), 1)


@torch.no_grad()
def alone_in_joint(
    joint: Float[Tensor, "batch classes"],
    alone: Float[Tensor, "modalities batch classes"],
    present: Bool[Tensor, "batch modalities"],
    constant: Float[Tensor, " classes"],
    *,
    where: Where,
    group: Group | None = None,
    task: Task = CLASSIFICATION,
) -> Alone:
    r"""The share that one modality's evidence has in the joint logits: 1/n under a mean of n, 1 under a sum.

    .. math::
       c_i = \kappa / n_i, \quad
       \kappa = \frac{\langle l - l_0,\ \bar l - l_0 \rangle}{\langle \bar l - l_0,\ \bar l - l_0 \rangle}
       \ \text{within } [1, n_i], \quad
       \rho^2 = \frac{\langle l - l_0,\ \bar l - l_0 \rangle_+^2}{\|l - l_0\|^2\ \|\bar l - l_0\|^2}

    where :math:`\bar l` is the mean of the logits from each present modality alone, and the products run over the rows
    of the global batch with several modalities; what a softmax ignores, the mean of a row's logits, is left out.

    Args:
      joint: (B, K) logits l of all modalities.
      alone: (M, B, K) logits of each alone; anything where absent.
      present: (B, M) bool.
      constant: (K,) l_0.
      where: (B,) bool, rows that count.
      group: process group over which the batch is split.
      task: what outputs mean.

    Returns:
      :class:`Alone`: c and rho^2, which is 1 where no row has several modalities.

    Examples:
      >>> alone = torch.randn(2, 8, 3, generator=torch.Generator().manual_seed(0))
      >>> rows, present, zero = torch.ones(8).bool(), torch.ones(8, 2).bool(), torch.zeros(3)
      >>> alone_in_joint(alone.mean(0), alone, present, zero, where=rows).share[:2]
      tensor([0.5000, 0.5000])
    """
    constant = constant.to(joint.dtype)
    count = present.sum(1).clamp(min=1).to(joint.dtype)
    mean = torch.stack([keep(present[:, m], value) for m, value in enumerate(alone)]).sum(0) / count[:, None]
    several = where & (count > 1)
    e, s = (keep(several, task.contrasts(value - constant[None, :])) for value in (joint, mean))
    products = torch.stack([weigh(several, x * other).sum() for x, other in ((e, s), (s, s), (e, e))])
    across, alone_square, joint_square = global_sum(products, group)
    kappa = across / torch.where(alone_square > 0, alone_square, 1)
    squares = alone_square * joint_square
    additivity = torch.where(squares > 0, across.clamp(min=0) ** 2 / torch.where(squares > 0, squares, 1), 1)
    return Alone(torch.minimum(kappa.clamp(min=1), count) / count, additivity.clamp(max=1))


def _joint(evidence: Evidence, columns: Tensor) -> Float[Tensor, "batch classes"]:
    """The summed evidence of the experts whose modality is in the subset."""
    return torch.stack([keep(columns[:, m], value) for m, value in enumerate(evidence.values())]).sum(0)
