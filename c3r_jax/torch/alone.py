"""What each modality says alone, at the scale at which its evidence counts in the task term and the gate."""

from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Num
from torch import Tensor

from c3r_jax.torch.batch import Where, keep, promote, weigh, zero_absent
from c3r_jax.torch.classification import CLASSIFICATION
from c3r_jax.torch.counterfactual import Predict
from c3r_jax.torch.evidence_scale import evidence_scales
from c3r_jax.torch.instruments import Fuse
from c3r_jax.torch.processes import Group, global_sum
from c3r_jax.torch.task import Task


class Alone(NamedTuple):
    """The share (B,) that one modality's evidence has in the joint outputs, and how far these are a sum of such."""

    share: Float[Tensor, " batch"]
    additivity: Float[Tensor, ""]


class AloneOutputs(NamedTuple):
    """What each modality alone says, and what the others explain of it.

    Attributes:
      outputs: (M, B, K) l_m of each modality alone, for the task term.
      compared: (M, B, K) predict(fuse(h, {m})), or the estimates of a task whose outputs do not add up, for the gate.
      explained: (M, B, K) of its explained part, as ``compared``; None without a first stage.
      additivity: of :class:`Alone`.
    """

    outputs: Float[Tensor, "modalities batch classes"]
    compared: Float[Tensor, "modalities batch classes"]
    explained: Float[Tensor, "modalities batch classes"] | None
    additivity: Float[Tensor, ""]


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
    label_smoothing: float = 0.0,
) -> AloneOutputs:
    r"""The outputs of each modality alone, at the scale at which its evidence counts.

    .. math::
       l_m = l_0 + s_m\,(\text{predict}(\text{fuse}(h, \{m\})) - l_0)

    with l_0 the best constant outputs and s_m within c and 1 (``torch.evidence_scale``). A number is an estimate, not
    evidence: there s_m is n c, so that a sum of modalities does not ask each of them for the whole label, times
    :func:`own_slopes` within 1/n and 1, so that a mean of noisy measurements need not be as far from the mean label
    with one of them as with all. Either way the loss of one modality alone asks for its direction, not for its size.

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
      label_smoothing: of the task's loss.
    """

    def of(h: dict[str, Tensor]) -> Float[Tensor, "modalities batch classes"]:
        return torch.stack([promote(predict(fuse(zero_absent(h, only), only))) for only in alone_in(present)])

    outputs = of(features)
    found = alone_in_joint(promote(logits), outputs, present, constant, where=where, group=group, task=task)

    rows: dict[str, Any] = {"labels": labels, "where": where, "group": group}
    others = None
    if explained is not None:
        with torch.no_grad():
            others = of({name: h.detach() for name, h in explained.items()})
    if not task.adds_up:
        scaled = partial(scaled_estimates, found=found, present=present, constant=constant, task=task, **rows)
        trained = scaled(outputs)
        return AloneOutputs(trained, trained.detach(), None if others is None else scaled(others), found.additivity)
    smoothed = partial(task.loss, label_smoothing=label_smoothing)
    scales = evidence_scales(promote(logits), outputs, found.share, present, constant, task=task, loss=smoothed, **rows)
    trained = torch.stack([task.at_share(value, constant, scale) for value, scale in zip(outputs, scales, strict=True)])
    return AloneOutputs(trained, outputs.detach(), others, found.additivity)


def scaled_estimates(
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
    """Estimates of each modality alone, of a task whose outputs do not add up, see :func:`outputs_alone`."""
    count, level = present.sum(1).clamp(min=1)[None, :, None], constant.to(outputs.dtype)[None, None, :]
    values = level + (found.share[None, :, None] * count).to(outputs.dtype) * (outputs - level)
    slopes = own_slopes(values, labels, present, constant, where=where, group=group, task=task)[:, None, None]
    least = 1 / count.to(values.dtype)
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
    # One quotient after the other: of outputs in large units the product of both squares is beyond float32.
    some = (alone_square > 0) & (joint_square > 0)
    of_joint = across.clamp(min=0) / torch.where(some, joint_square, 1)
    additivity = torch.where(some, kappa * of_joint, 1)
    return Alone(torch.minimum(kappa.clamp(min=1), count) / count, additivity.clamp(max=1))
