"""The hypothetical world as an expert: what each modality says of the label that its instrument does not explain.

The expert reads the residual of a modality's first stage and predicts the label from it. Training may then ask the
representation to explain the label *beyond* the expert (a product of experts), and the expert's own accuracy measures
how much of the label is predictable without the instrument: a necessity that can be compared across models.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from c3r_jax.torch.available import available_rows
from c3r_jax.torch.batch import (
    Where,
    check_counts,
    check_float,
    global_count,
    global_mean,
    keep,
    like,
    mask_of,
    not_zero,
    promote,
    weigh,
)
from c3r_jax.torch.classification import CLASSIFICATION
from c3r_jax.torch.leave_one_out import LeaveOneOut, leave_one_out
from c3r_jax.torch.processes import Group, global_sum
from c3r_jax.torch.task import Task

BETAS = (0.0, 0.5, 1.0, 2.0, 3.0, 5.0, 8.0, 12.0, 20.0)  # sharpness of an expert; 0: it says no more than the shares


class Expert(NamedTuple):
    """What one modality's residual says of the label; leave-one-out throughout, a constant for every gradient.

    Attributes:
      log_ratio: (B, K) evidence to be added to logits, log q(y | e) - log p(y); 0 in rows that lack the modality or an
        instrument of it.
      beta: the chosen sharpness, one of :data:`BETAS`.
      likelihood: minus the mean loss of q over the rows that have the modality, in nats.
      accuracy: share of correct predictions of q in those rows.
      first_stage: :class:`LeaveOneOut` of the modality on its instrument.
    """

    log_ratio: Float[Tensor, "batch classes"]
    beta: Float[Tensor, ""]
    likelihood: Float[Tensor, ""]
    accuracy: Float[Tensor, ""]
    first_stage: LeaveOneOut


@torch.no_grad()
def residual_experts(
    features: Mapping[str, Float[Tensor, "batch _"]],
    targets: Float[Tensor, "batch classes"],
    *,
    present: Bool[Tensor, "batch modalities"] | None = None,
    where: Where | None = None,
    group: Group | None = None,
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
    blocks that a row lacks are at their mean, as in prediction. Only moments and the likelihoods are summed over
    processes.

    Args:
      features: {name: (B, d_name)} representations, at least two; what is absent may hold anything.
      targets: (B, K) one-hot labels, or shares that sum to 1.
      present: (B, M) bool, columns in the sorted order of the names; None: all.
      where: (B,) bool, rows that count; None: all.
      group: process group over which the batch is split.
      ridge: penalty of both regressions, relative to the mean variance of their instrument.
      task: what targets mean.

    Returns:
      {name: :class:`Expert`}.

    Raises:
      ValueError: on fewer than two modalities, or wrong shapes or dtypes.

    Examples:
      >>> generator = torch.Generator().manual_seed(0)
      >>> cause, cue, noise = torch.randn(3, 200, 1, generator=generator)
      >>> h = {"image": torch.cat([cause, cue], 1), "text": cause + 0.1 * noise}
      >>> labels = torch.nn.functional.one_hot((cause + cue > 0).long()[:, 0], 2).float()
      >>> experts = residual_experts(h, labels)  # the cue is the image's alone
      >>> experts["image"].accuracy.item() > 0.7, experts["text"].accuracy.item() < 0.6
      (True, True)

    References:
      G. Hinton, Training products of experts by minimizing contrastive divergence, 2002.
      C. Clark et al., Don't take the easy way out: ensemble based methods for avoiding known dataset biases, 2019.
    """
    if len(features) < 2:
        raise ValueError(f"features has {len(features)} modality, but at least 2 were expected: one has no instrument.")
    names = sorted(features)
    targets = promote(check_float("targets", targets, 2))
    rows = check_counts(where, targets.shape[0], targets.device)
    if present is None:
        present = torch.ones(targets.shape[0], len(names), dtype=torch.bool, device=targets.device)
    known = present & mask_of(rows)[:, None]
    h = {name: keep(known[:, m], promote(features[name])) for m, name in enumerate(names)}
    shares = global_mean(targets, rows, group)
    experts = {}
    for m, (name, mask) in enumerate(zip(names, available_rows(present, mask_of(rows)), strict=True)):
        usable = like(rows, mask)
        others = [(k, other) for k, other in enumerate(names) if other != name]
        instrument = [_at_mean(h[other], known[:, k], usable, group) for k, other in others]
        shared: dict[str, Any] = {"ridge": ridge, "where": usable, "group": group}
        stage = leave_one_out(torch.cat(instrument, dim=1), keep(known[:, m], h[name]), **shared)
        scores = leave_one_out(stage.residual, targets, **shared).predicted
        experts[name] = _expert_of(stage, scores, targets, shares, usable, group, task)
    return experts


def _at_mean(h: Tensor, known: Tensor, rows: Where, group: Group | None) -> Tensor:
    """Values with those that are absent at the mean of the known ones among ``rows``."""
    return torch.where(known[:, None], h, global_mean(h, rows & known, group)[None, :])


def _expert_of(
    stage: LeaveOneOut, scores: Tensor, targets: Tensor, shares: Tensor, rows: Where, group: Group | None, task: Task
) -> Expert:
    """The expert of leave-one-out predictions: its sharpness is the one with the smallest loss."""
    centred = keep(rows, scores - shares[None, :])
    outputs = [task.expert_outputs(centred, shares, beta) for beta in BETAS]
    losses = torch.stack([weigh(rows, task.expert_losses(x, targets)).sum() for x in outputs])
    count = not_zero(global_count(rows, group, centred.dtype))
    likelihoods = -global_sum(losses, group) / count
    best = int(likelihoods.argmax())
    accuracy = global_sum(weigh(rows, task.expert_correct(outputs[best], targets)).sum(), group) / count
    evidence = keep(rows, outputs[best] - task.expert_outputs(torch.zeros_like(centred), shares, 0.0))
    evidence = torch.where(evidence.isfinite(), evidence, 0)  # a regression that failed says nothing
    beta = centred.new_tensor(BETAS[best])
    return Expert(evidence, beta, likelihoods[best], accuracy, stage)
