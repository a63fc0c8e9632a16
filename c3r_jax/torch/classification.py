"""Losses, chances and evidence of one class per row: what the objective asks of a task.

Values are checked once, by :func:`check`, and not in every function: to look at a value waits for the accelerator.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from c3r_jax.torch.batch import check_float, check_labels, global_mean, promote
from c3r_jax.torch.processes import Group


def check(logits: Any, labels: Any) -> tuple[Float[Tensor, "batch classes"], Int[Tensor, " batch"]]:
    """Logits (B, K) in float32 or wider, K >= 2, and class ids (B,) in [0, K)."""
    logits = promote(check_float("logits", logits, 2))
    if logits.shape[1] < 2:
        raise ValueError(
            f"logits have shape {tuple(logits.shape)}, but at least 2 classes were expected in the last axis."
        )
    return logits, check_labels(labels, logits.shape[0], logits.shape[1])


def label_mask(num_classes: int, labels: Int[Tensor, " batch"]) -> Bool[Tensor, "batch classes"]:
    """Marks each row's label among its classes."""
    return labels[:, None] == torch.arange(num_classes, device=labels.device)[None, :]


def label_logit(logits: Float[Tensor, "batch classes"], labels: Int[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """Picks l_y."""
    return logits.gather(1, labels[:, None])[:, 0]


def odds_against(logits: Float[Tensor, "batch classes"], labels: Int[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """Log-odds of not being the label, logsumexp_{k != y} l_k - l_y: linear where cross-entropy underflows."""
    least = torch.finfo(logits.dtype).min
    others = logits.masked_fill(label_mask(logits.shape[1], labels), least)
    return others.logsumexp(-1) - label_logit(logits, labels)


def loss(
    logits: Float[Tensor, "batch classes"], labels: Int[Tensor, " batch"], label_smoothing: float = 0.0
) -> Float[Tensor, " batch"]:
    """Cross-entropy in nats, see :func:`c3r_jax.torch.sufficiency_loss`."""
    logits = promote(logits)
    losses = logits.logsumexp(-1) - label_logit(logits, labels)
    if not label_smoothing:
        return losses  # so that a class masked by a logit of -inf adds nothing
    return losses + label_smoothing * (label_logit(logits, labels) - logits.mean(-1))


def necessity(
    logits: Float[Tensor, "batch classes"], labels: Int[Tensor, " batch"], kind: str, prior: Tensor | None = None
) -> Float[Tensor, " batch"]:
    """hinge, log or kl in nats, see :func:`c3r_jax.torch.necessity_loss`; ``prior``: (K,) shares, for "kl"."""
    logits = promote(logits)
    if kind == "hinge":
        chance = -torch.log(torch.tensor(float(logits.shape[1]), dtype=logits.dtype, device=logits.device))
        return F.relu(label_logit(logits, labels) - logits.logsumexp(-1) - chance)
    if kind == "log":
        return F.softplus(-odds_against(logits, labels))
    assert prior is not None
    shares = prior.to(logits.dtype)
    return torch.xlogy(shares, shares).sum() - (shares[None, :] * logits.log_softmax(-1)).sum(-1)


def excess(logits: Float[Tensor, "batch classes"], labels: Int[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """Log-odds against the label, relative to those at chance (1/K)."""
    logits = promote(logits)
    chance = torch.tensor(float(logits.shape[1] - 1), dtype=logits.dtype, device=logits.device).log()
    return odds_against(logits, labels) - chance


def correct(logits: Float[Tensor, "batch classes"], labels: Int[Tensor, " batch"]) -> Bool[Tensor, " batch"]:
    """Whether argmax l = y; not where a logit is not finite."""
    return (logits.argmax(-1) == labels) & logits.isfinite().all(-1)


def batch_prior(
    labels: Int[Tensor, " batch"],
    num_classes: int,
    *,
    where: Bool[Tensor, " batch"],
    group: Group | None,
    dtype: torch.dtype,
) -> Float[Tensor, " classes"]:
    """Label shares of the global batch; even ones where no row counts."""
    shares = global_mean(label_mask(num_classes, labels).to(dtype), where, group)
    return torch.where(shares.sum() > 0, shares, 1 / num_classes)


def constant(prior: Float[Tensor, " classes"], num_rows: Float[Tensor, ""]) -> Float[Tensor, " classes"]:
    """Log shares, with half a row more in every class, so that a class without rows has a logarithm."""
    return torch.log((num_rows * prior + 0.5) / (num_rows + 0.5 * prior.shape[0]))


def rarity(labels: Int[Tensor, " batch"], prior: Float[Tensor, " classes"]) -> Float[Tensor, " batch"]:
    """p_y / sum_k p_k^2: evidence must outweigh a small share before a rare class is predicted."""
    return prior[labels] / prior.square().sum()


def at_share(
    logits: Float[Tensor, "batch classes"], constant: Float[Tensor, " classes"], share: Float[Tensor, "batch 1"]
) -> Float[Tensor, "batch classes"]:
    """Log p + share (l - log p)."""
    constant = constant.to(logits.dtype)[None, :]
    return constant + share.to(logits.dtype) * (logits - constant)


def contrasts(logits: Float[Tensor, "batch classes"]) -> Float[Tensor, "batch classes"]:
    """Logits minus their mean, which a softmax ignores."""
    return logits - logits.mean(1, keepdim=True)


def expert_logits(
    scores: Float[Tensor, "batch classes"], shares: Float[Tensor, " classes"], beta: float
) -> Float[Tensor, "batch classes"]:
    """Log q, where q = softmax(beta scores + log shares); the smallest number for a class without rows."""
    seen, least = (shares > 0)[None, :], torch.finfo(scores.dtype).min
    log_shares = torch.where(shares > 0, shares, 1).log()
    logits = torch.where(seen, beta * scores + log_shares[None, :], least)
    return torch.where(seen, logits.log_softmax(1), least)
