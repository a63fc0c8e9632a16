"""One of K classes per row."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from c3r_jax.torch.batch import Where, check_labels, global_mean, promote
from c3r_jax.torch.processes import Group
from c3r_jax.torch.task import Task, check_outputs

# A logit so far below the largest is of a masked class: from 104 on a probability is 0 in float32, so that training
# has no reason to push a class further.
MASKED = 1e3


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


class Classification(Task):
    """One of K classes per row: cross-entropy; correct if it is the arg max."""

    def check_labels(self, labels: Any, num_rows: int) -> Int[Tensor, " batch"]:
        """Class ids (B,)."""
        return check_labels(labels, num_rows)

    def check(self, outputs: Any, labels: Any) -> tuple[Float[Tensor, "batch classes"], Int[Tensor, " batch"]]:
        """Logits (B, K), K >= 2, and class ids (B,) in [0, K)."""
        outputs = check_outputs(outputs, 2)
        return outputs, check_labels(labels, outputs.shape[0], outputs.shape[1])

    def check_prior(self, prior: Tensor, num_outputs: int) -> Float[Tensor, " classes"]:
        """Label shares, (K,)."""
        if tuple(prior.shape) != (num_outputs,):
            raise ValueError(
                f"prior has shape {tuple(prior.shape)}, but ({num_outputs},) was expected: one share per class."
            )
        if not (prior.min() >= 0 and abs(float(prior.sum()) - 1) <= 1e-3):
            raise ValueError(f"prior {prior.tolist()} was expected to hold shares >= 0 that sum to 1.")
        return prior

    def loss(self, outputs: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Float[Tensor, " batch"]:
        """Cross-entropy in nats, see :func:`c3r_jax.torch.sufficiency_loss`."""
        logits = promote(outputs)
        losses = logits.logsumexp(-1) - label_logit(logits, labels)
        if not label_smoothing:
            return losses  # so that a class masked by a logit of -inf adds nothing
        return losses + label_smoothing * (label_logit(logits, labels) - logits.mean(-1))

    def necessity(
        self, outputs: Tensor, labels: Tensor, kind: str, prior: Tensor | None = None
    ) -> Float[Tensor, " batch"]:
        """hinge, log, kl or constant in nats, see :func:`c3r_jax.torch.necessity_loss`; ``prior``: (K,) shares."""
        logits = promote(outputs)
        if kind == "hinge":
            chance = -torch.log(torch.tensor(float(logits.shape[1]), dtype=logits.dtype, device=logits.device))
            return F.relu(label_logit(logits, labels) - logits.logsumexp(-1) - chance)
        if kind == "log":
            return F.softplus(-odds_against(logits, labels))
        assert prior is not None
        shares = prior.to(logits.dtype)
        log_p = logits.log_softmax(-1)  # -infinity for a class that is masked, of which the prior asks nothing
        return torch.xlogy(shares, shares).sum() - torch.where(shares > 0, shares * log_p, 0).sum(-1)

    def excess(self, outputs: Tensor, labels: Tensor) -> Float[Tensor, " batch"]:
        """Log-odds against the label, relative to those at chance (1/K)."""
        logits = promote(outputs)
        chance = torch.tensor(float(logits.shape[1] - 1), dtype=logits.dtype, device=logits.device).log()
        return odds_against(logits, labels) - chance

    def correct(self, outputs: Tensor, labels: Tensor) -> Bool[Tensor, " batch"]:
        """Whether argmax l = y; not where a logit is NaN or infinity (-infinity masks a class)."""
        return (outputs.argmax(-1) == labels) & outputs.amax(-1).isfinite()

    def probability(self, outputs: Tensor, labels: Tensor) -> Float[Tensor, " batch"]:
        """p_y."""
        return label_logit(promote(outputs).softmax(-1), labels)

    def batch_prior(
        self, labels: Tensor, num_outputs: int, *, where: Where, group: Group | None, dtype: torch.dtype
    ) -> Float[Tensor, " classes"]:
        """Label shares of the global batch; even ones where no row counts."""
        shares = global_mean(self.expert_targets(labels, num_outputs, dtype), where, group)
        return torch.where(shares.sum() > 0, shares, 1 / num_outputs)

    def mean_prediction(
        self, outputs: Tensor, labels: Tensor, prior: Tensor, *, by_rarity: bool, where: Where, group: Group | None
    ) -> Float[Tensor, " classes"]:
        """The mean of p, (K,)."""
        p = promote(outputs).detach().softmax(-1)
        weights = self.rarity(labels, prior).to(p.dtype)[:, None] if by_rarity else torch.ones_like(p[:, :1])
        means = global_mean(torch.cat([weights, weights * p], dim=1), where, group)
        return torch.where(means[0] > 0, means[1:] / torch.where(means[0] > 0, means[0], 1), 1 / p.shape[1])

    def constant(self, prior: Tensor, num_rows: Float[Tensor, ""]) -> Float[Tensor, " classes"]:
        """Log shares, with half a row more in every class, so that a class without rows has a logarithm."""
        return torch.log((num_rows * prior + 0.5) / (num_rows + 0.5 * prior.shape[0]))

    def rarity(self, labels: Tensor, prior: Tensor) -> Float[Tensor, " batch"]:
        """p_y / sum_k p_k^2: evidence must outweigh a small share before a rare class is predicted."""
        return prior[labels] / prior.square().sum()

    def at_share(self, outputs: Tensor, constant: Tensor, share: Float[Tensor, "batch 1"]) -> Tensor:
        """Log p + share (l - log p)."""
        constant = constant.to(outputs.dtype)[None, :]
        scaled = constant + share.to(outputs.dtype) * (outputs - constant)
        return torch.where(outputs.isneginf(), outputs, scaled)  # a masked class stays so, at a share of 0 too

    def contrasts(self, outputs: Tensor) -> Tensor:
        """Logits minus their mean, which a softmax ignores; 0 for classes that are masked by a very small logit."""
        possible = ~(outputs < outputs.amax(1, keepdim=True) - MASKED)  # NaN stays
        mean = torch.where(possible, outputs, 0).sum(1, keepdim=True) / possible.sum(1, keepdim=True).clamp(min=1)
        return torch.where(possible, outputs - mean, 0)

    def expert_targets(self, labels: Tensor, num_outputs: int, dtype: torch.dtype) -> Float[Tensor, "batch classes"]:
        """One-hot labels."""
        return label_mask(num_outputs, labels).to(dtype)

    def expert_outputs(self, scores: Tensor, shares: Tensor, beta: float) -> Float[Tensor, "batch classes"]:
        """Log q, where q = softmax(beta scores + log shares); the smallest number for a class without rows."""
        seen, least = (shares > 0)[None, :], torch.finfo(scores.dtype).min
        log_shares = torch.where(shares > 0, shares, 1).log()
        logits = torch.where(seen, beta * scores + log_shares[None, :], least)
        return torch.where(seen, logits.log_softmax(1), least)

    def expert_losses(self, outputs: Tensor, targets: Tensor) -> Float[Tensor, " batch"]:
        """-log q(y); ``targets`` may be shares."""
        return -(targets * outputs).sum(1)

    def expert_correct(self, outputs: Tensor, targets: Tensor) -> Float[Tensor, " batch"]:
        """Whether q's most probable class is the target's."""
        return (outputs.argmax(1) == targets.argmax(1)).to(outputs.dtype)


CLASSIFICATION = Classification()
