"""Several labels per row, each 0 or 1: independent binary losses, averaged over labels."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from c3r_jax.torch.batch import Where, global_mean, promote
from c3r_jax.torch.processes import Group
from c3r_jax.torch.task import Task, check_outputs


class MultiLabel(Task):
    r"""K labels of 0 or 1 per row, with the margin m_k = (2 y_k - 1) l_k of each label's logit.

    .. math::
       S = \tfrac1K \sum_k \log(1 + e^{-m_k}), \quad
       N = \tfrac1K \sum_k [\log \sigma(m_k) + \log 2]_+ \ \text{(hinge)},\
       \tfrac1K \sum_k \log(1 + e^{m_k}) \ \text{(log)},\
       \tfrac1K \sum_k KL(\text{prior}_k \| \sigma(l_k)) \ \text{(kl; constant: the mean probability as the prior)}

    A label is correct if m_k > 0; risks count (row, label) pairs. Labels are integers (B, K).

    Examples:
      >>> MultiLabel().loss(torch.zeros(1, 3), torch.tensor([[0, 1, 1]]))
      tensor([0.6931])
    """

    def check_labels(self, labels: Any, num_rows: int) -> Int[Tensor, "batch classes"]:
        """Integers (B, K)."""
        labels = torch.as_tensor(labels)
        number = not (labels.dtype.is_floating_point or labels.dtype.is_complex or labels.dtype == torch.bool)
        if labels.ndim != 2 or labels.shape[0] != num_rows or not number:
            raise ValueError(
                f"labels have shape {tuple(labels.shape)} and dtype {labels.dtype}, but integers ({num_rows}, K) were "
                "expected: a 0 or 1 for each class."
            )
        return labels.long()

    def check(self, outputs: Any, labels: Any) -> tuple[Float[Tensor, "batch classes"], Int[Tensor, "batch classes"]]:
        """Logits (B, K) and labels (B, K) of 0 and 1."""
        outputs = check_outputs(outputs, 1)
        labels = self.check_labels(labels, outputs.shape[0])
        if labels.shape != outputs.shape:
            raise ValueError(f"labels have shape {tuple(labels.shape)}, but the logits have {tuple(outputs.shape)}.")
        wrong = labels[(labels < 0) | (labels > 1)]
        if wrong.numel():
            raise ValueError(f"label {int(wrong[0])} is neither 0 nor 1.")
        return outputs, labels

    def check_prior(self, prior: Tensor, num_outputs: int) -> Tensor:
        """Each label's share of ones, (K,)."""
        if tuple(prior.shape) != (num_outputs,):
            raise ValueError(
                f"prior has shape {tuple(prior.shape)}, but ({num_outputs},) was expected: one share per label."
            )
        if not (prior.min() >= 0 and prior.max() <= 1):
            raise ValueError(f"prior {prior.tolist()} was expected to hold shares between 0 and 1.")
        return prior

    def loss(self, outputs: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Float[Tensor, " batch"]:
        """Mean binary cross-entropy in nats; smoothing gives each label's other value the share epsilon / 2."""
        margins = _margins(outputs, labels)
        return (F.softplus(-margins) + label_smoothing / 2 * margins).mean(-1)

    def necessity(
        self, outputs: Tensor, labels: Tensor, kind: str, prior: Tensor | None = None
    ) -> Float[Tensor, " batch"]:
        """Mean over labels of hinge, log, kl or constant, in nats."""
        return self._necessities(outputs, labels, kind, prior).mean(-1)

    def necessity_by_rarity(
        self, outputs: Tensor, labels: Tensor, kind: str, prior: Tensor, asked: Tensor
    ) -> Float[Tensor, " batch"]:
        """As :meth:`Classification.rarity`, in every label: a rare value gives up less of it; 1 on average."""
        losses = self._necessities(outputs, labels, kind, asked)
        return (_rarities(labels, prior).to(losses.dtype) * losses).mean(-1)

    def mean_prediction(
        self, outputs: Tensor, labels: Tensor, prior: Tensor, *, by_rarity: bool, where: Where, group: Group | None
    ) -> Float[Tensor, " classes"]:
        """The mean probability of each label, (K,)."""
        p = promote(outputs).detach().sigmoid()
        rarity = _rarities(labels, prior).to(p.dtype) if by_rarity else torch.ones_like(p)
        means = global_mean(torch.stack([rarity, rarity * p], dim=1), where, group)
        return torch.where(means[0] > 0, means[1] / torch.where(means[0] > 0, means[0], 1), 0.5)

    def _necessities(
        self, outputs: Tensor, labels: Tensor, kind: str, prior: Tensor | None
    ) -> Float[Tensor, "batch classes"]:
        margins = _margins(outputs, labels)
        if kind == "hinge":
            return F.relu(F.logsigmoid(margins) + math.log(2))
        if kind == "log":
            return F.softplus(margins)
        assert prior is not None
        shares, logits = prior.to(margins.dtype), promote(outputs)
        entropy = torch.special.entr(shares) + torch.special.entr(1 - shares)
        cross = shares[None, :] * F.softplus(-logits) + (1 - shares)[None, :] * F.softplus(logits)
        return cross - entropy[None, :]

    def excess(self, outputs: Tensor, labels: Tensor) -> Float[Tensor, " batch"]:
        """log(e^L - 1) of the row's summed loss L, relative to chance (one in 2^K)."""
        margins = _margins(outputs, labels)
        # log softplus(-m) is -m where softplus underflows.
        fitted = margins > 15
        log_losses = torch.where(fitted, -margins, F.softplus(-torch.where(fitted, 0, margins)).log())
        log_total = log_losses.logsumexp(-1)
        small = log_total < -8
        total = torch.where(small, 0, log_total).exp()
        # log(e^L - 1) = log L + L/2 + O(L^2) for a small L.
        near = log_total + log_total.clamp(max=0).exp() / 2
        odds = torch.where(small, near, total + (-torch.expm1(-total)).log())
        classes = margins.shape[-1]
        return odds - (classes * math.log(2) + math.log1p(-(2.0**-classes)))

    def correct(self, outputs: Tensor, labels: Tensor) -> Bool[Tensor, "batch classes"]:
        """Whether (l_k > 0) = y_k, for each label."""
        return ((outputs > 0) == (labels > 0)) & outputs.isfinite()

    def probability(self, outputs: Tensor, labels: Tensor) -> Float[Tensor, " batch"]:
        """Mean over labels of sigma(m_k)."""
        return _margins(outputs, labels).sigmoid().mean(-1)

    def constant(self, prior: Tensor, num_rows: Float[Tensor, ""]) -> Float[Tensor, " classes"]:
        """Log-odds of each label's share, with half a row more on either side, so that they are finite."""
        ones = num_rows * prior
        return ((ones + 0.5) / (num_rows - ones + 0.5)).log()

    def at_share(self, outputs: Tensor, constant: Tensor, share: Float[Tensor, "batch 1"]) -> Tensor:
        """The log-odds of the share of each label, plus ``share`` times their distance from it."""
        constant = constant.to(outputs.dtype)[None, :]
        return constant + share.to(outputs.dtype) * (outputs - constant)

    def expert_targets(self, labels: Tensor, num_outputs: int, dtype: torch.dtype) -> Float[Tensor, "batch classes"]:
        """0 or 1 of each label."""
        del num_outputs
        return labels.to(dtype)

    def expert_outputs(self, scores: Tensor, shares: Tensor, beta: float) -> Float[Tensor, "batch classes"]:
        """Log-odds of each label: beta scores beyond those of its share; 0 for a label that is the same in all rows."""
        varies = (shares > 0) & (shares < 1)
        share = torch.where(varies, shares, 0.5)
        return torch.where(varies[None, :], beta * scores + (share / (1 - share)).log()[None, :], 0)

    def expert_losses(self, outputs: Tensor, targets: Tensor) -> Float[Tensor, " batch"]:
        """Mean binary cross-entropy."""
        return (F.softplus(outputs) - targets * outputs).mean(-1)

    def expert_correct(self, outputs: Tensor, targets: Tensor) -> Float[Tensor, " batch"]:
        """Share of correct labels."""
        return ((outputs > 0) == (targets > 0.5)).to(outputs.dtype).mean(-1)

    def keys(self, labels: Tensor) -> Int[Tensor, " batch"]:
        """The rank of each row among the distinct rows."""
        return torch.unique(labels, dim=0, return_inverse=True)[1]


def _rarities(labels: Tensor, prior: Tensor) -> Float[Tensor, "batch classes"]:
    """The share of each label's value over the sum of squared shares of 0 and 1."""
    shares = promote(prior)[None, :]
    return torch.where(labels > 0, shares, 1 - shares) / (shares.square() + (1 - shares).square())


def _margins(outputs: Tensor, labels: Tensor) -> Float[Tensor, "batch classes"]:
    outputs = promote(outputs)
    return torch.where(labels > 0, outputs, -outputs)
