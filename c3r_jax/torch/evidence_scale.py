"""The scale at which the evidence of one modality alone counts, in a fusion of several."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Num
from torch import Tensor

from c3r_jax.torch.batch import Where, weigh
from c3r_jax.torch.processes import Group, global_sum
from c3r_jax.torch.task import Task

POINTS = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the way from the least scale to the largest, in logarithms
MORE = 2.0  # how much surer all modalities together may ask each alone to be
FLAT = 1e-4  # nats: a mean loss that changes less over the way does not depend on the scale


def evidence_scales(
    joint: Float[Tensor, "batch classes"],
    alone: Float[Tensor, "modalities batch classes"],
    share: Float[Tensor, " batch"],
    present: Bool[Tensor, "batch modalities"],
    constant: Float[Tensor, " classes"],
    *,
    labels: Num[Tensor, "batch ..."],
    where: Where,
    group: Group | None,
    task: Task,
    loss: Callable[[Tensor, Tensor], Float[Tensor, " batch"]],
) -> Float[Tensor, "modalities batch 1"]:
    r"""The scale at which the evidence of each modality alone counts; without gradient.

    .. math::
       s_{m,i} = \max\left(c_i,\ c_i^{1 - u_m} / \beta\right), \quad
       u_m = \arg\min_{0 \le u \le 1} \text{mean}_i\, \ell(l_0 + c_i^{1 - u} (l_{m,i} - l_0), y_i), \quad
       \beta = \arg\min_{1 \le \beta \le 2} \text{mean}_i\, \ell(l_0 + \beta (l_i - l_0), y_i)

    over the rows of the global batch with several modalities; c is the share of
    :func:`c3r_jax.torch.alone.alone_in_joint`. See ``c3r_jax.core.evidence_scale`` for why.

    Args:
      joint: (B, K) logits l of all modalities.
      alone: (M, B, K) logits of each alone; anything where absent.
      share: (B,) c.
      present: (B, M) bool.
      constant: (K,) l_0.
      labels: (B, ...).
      where: (B,) bool, rows that count.
      group: process group over which the batch is split.
      task: what outputs mean.
      loss: (outputs, labels) -> (B,).

    Returns:
      (M, B, 1) s.

    Examples:
      >>> from c3r_jax.torch.classification import CLASSIFICATION
      >>> labels = torch.arange(8) % 2
      >>> right = torch.where(torch.arange(8) < 6, 1.0, -1.0)  # six rows of eight
      >>> sure = (torch.eye(2)[labels] * 2 - 1) * right[:, None] * torch.tensor(3.0).log() / 2
      >>> settings = {"labels": labels, "where": labels >= 0, "group": None, "task": CLASSIFICATION}
      >>> present, c, zero = torch.ones(8, 2).bool(), torch.full((8,), 0.25), torch.zeros(2)
      >>> alone = torch.stack([sure, 2 * sure])  # the second is twice as sure as it should be
      >>> s = evidence_scales(sure, alone, c, present, zero, loss=CLASSIFICATION.loss, **settings)
      >>> s[:, 0, 0].round(decimals=2)
      tensor([1.0000, 0.5000])
    """
    joint, alone, share, constant = joint.detach(), alone.detach(), share.detach()[:, None], constant.detach()
    several = present.sum(1) > 1

    def slopes(values: Tensor, rows: Where, start: Tensor, end: Tensor) -> Tensor:
        """Slopes of the summed loss at each of the points, and the number of its rows."""
        found = []
        for point in POINTS:
            with torch.enable_grad():
                at = torch.tensor(point, dtype=values.dtype, device=values.device, requires_grad=True)
                scaled = task.at_share(values, constant, (start + at * (end - start)).exp())
                total = weigh(rows, loss(scaled, labels)).sum()
                found.append(torch.autograd.grad(total, at)[0])
        return torch.stack([*found, weigh(rows, torch.ones_like(values[:, 0])).sum()])

    none, log_share = torch.zeros_like(share), share.log()
    sums = [slopes(joint, where & several, none, none + math.log(MORE))]
    for m, value in enumerate(alone):
        sums.append(slopes(value, where & several & present[:, m], log_share, none))
    found = global_sum(torch.stack(sums), group)
    # Where outputs say nothing the slope is noise around 0: then one modality counts fully, and all are sure enough.
    flat = FLAT * found[:, -1:]
    more = MORE ** first_zero(found[:1, :-1] + flat[:1])
    u = first_zero(found[1:, :-1] - flat[1:])[:, None, None]
    return torch.maximum(share[None], ((1 - u) * log_share[None]).exp() / more)


def first_zero(slopes: Float[Tensor, "functions points"]) -> Float[Tensor, " functions"]:
    """Where slopes at :data:`POINTS`, linear between them, first are no longer negative; the last point if nowhere."""
    points = torch.tensor(POINTS, dtype=slopes.dtype, device=slopes.device)
    up = slopes >= 0
    after = up.to(torch.uint8).argmax(1).clamp(min=1)
    low, high = (slopes.gather(1, at[:, None])[:, 0] for at in (after - 1, after))
    rise = torch.where(high > low, high - low, 1)
    between = points[after - 1] + (points[after] - points[after - 1]) * (-low / rise).clamp(0, 1)
    return torch.where(up[:, 0], points[0], torch.where(up.any(1), between, points[-1]))
