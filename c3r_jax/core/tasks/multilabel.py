"""Several labels per row, each 0 or 1: independent binary losses, averaged over labels."""

import dataclasses
import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from c3r_jax.core.batch import Where, concrete, global_sum, promote, weigh
from c3r_jax.core.tasks.base import Task, check_kind, check_outputs, check_smoothing
from c3r_jax.tasks.base import TaskSpec
from c3r_jax.tasks.multilabel import MULTILABEL


@dataclasses.dataclass(frozen=True)
class MultiLabel(Task):
    r"""K labels of 0 or 1 per row, with the margin m_k = (2 y_k - 1) l_k of each label's logit.

    .. math::
       S = \tfrac1K \sum_k \log(1 + e^{-m_k}), \quad
       N = \tfrac1K \sum_k [\log \sigma(m_k) + \log 2]_+ \ \text{(hinge)},\
       \tfrac1K \sum_k \log(1 + e^{m_k}) \ \text{(log)},\
       \tfrac1K \sum_k KL(\text{prior}_k \| \sigma(l_k)) \ \text{(kl; constant: the mean probability as the prior)}

    A label is correct if m_k > 0 (a logit of 0 predicts 0); risks count (row, label) pairs. With K = 1 this is binary
    classification with logits (0, l). Counterfactuals ascend log(e^L - 1) of the row's summed loss L, the log-odds
    against all labels being correct: one direction per row, so that many labels need ``num_steps`` > 1.

    Examples:
      >>> import jax.numpy as jnp
      >>> MultiLabel().loss(jnp.zeros((1, 3)), jnp.array([[0, 1, 1]])).round(4)
      Array([0.6931], dtype=float32)
    """

    spec: ClassVar[TaskSpec] = MULTILABEL

    def prior(self, labels: np.ndarray, num_classes: int) -> tuple[float, ...]:
        """The share of ones of each label, (K,)."""
        del num_classes
        return tuple(labels.mean(0, dtype=np.float64).tolist())

    def check_labels(self, labels: Any, num_rows: int) -> Int[Array, "batch classes"]:
        """Integers (B, K)."""
        labels = jnp.asarray(labels)
        if labels.ndim != 2 or labels.shape[0] != num_rows or not jnp.issubdtype(labels.dtype, jnp.integer):
            raise ValueError(
                f"labels have shape {labels.shape} and dtype {labels.dtype}, but integers ({num_rows}, K) were "
                "expected: a 0 or 1 for each class."
            )
        return labels

    def check(self, outputs: Array, labels: Any) -> tuple[Float[Array, "batch classes"], Int[Array, "batch classes"]]:
        """Logits (B, K) and labels (B, K) of 0 and 1."""
        outputs = check_outputs(outputs, 1)
        labels = self.check_labels(labels, outputs.shape[0])
        if labels.shape != outputs.shape:
            raise ValueError(f"labels have shape {labels.shape}, but the logits have {outputs.shape}.")
        values = concrete(labels)
        if values is not None and values.size and (values.min() < 0 or values.max() > 1):
            wrong = values[(values < 0) | (values > 1)][0]
            raise ValueError(f"label {wrong} is neither 0 nor 1.")
        return outputs, labels

    def _margins(self, outputs: Array, labels: Any) -> Float[Array, "batch classes"]:
        outputs, labels = self.check(outputs, labels)
        known = (labels == 0) | (labels == 1)  # where values are traced, another number makes the loss NaN
        return jnp.where(known, jnp.where(labels > 0, outputs, -outputs), jnp.nan)

    def loss(self, outputs: Array, labels: Array, *, label_smoothing: float = 0.0) -> Float[Array, " batch"]:
        """Mean binary cross-entropy in nats; smoothing gives each label's other value the share epsilon / 2."""
        smooth = check_smoothing(label_smoothing)
        margins = self._margins(outputs, labels)
        losses = jax.nn.softplus(-margins)
        return (losses + label_smoothing / 2 * margins if smooth else losses).mean(-1)

    def necessity(
        self, outputs: Array, labels: Array, *, kind: str = "hinge", prior: Any = None
    ) -> Float[Array, " batch"]:
        """Mean over labels of hinge, log, kl or constant, in nats; ``prior``: (K,) share of ones of each label."""
        return self._necessities(outputs, labels, kind, prior).mean(-1)

    def necessity_by_rarity(
        self, outputs: Array, labels: Array, *, kind: str, prior: Array, asked: Array
    ) -> Float[Array, " batch"]:
        """As :meth:`Classification.rarity` in every label: a rare value gives up less of it; 1 on average."""
        losses = self._necessities(outputs, labels, kind, asked)
        return (_rarities(labels, prior).astype(losses.dtype) * losses).mean(-1)

    def mean_prediction(
        self,
        outputs: Array,
        labels: Array,
        prior: Array,
        *,
        by_rarity: bool,
        where: Where,
        axis_name: str | None = None,
    ) -> Float[Array, " classes"]:
        """The mean probability of each label, (K,)."""
        p = jax.lax.stop_gradient(jax.nn.sigmoid(promote(outputs)))
        rarity = _rarities(labels, prior).astype(p.dtype) if by_rarity else jnp.ones_like(p)
        sums = global_sum(weigh(where, jnp.stack([rarity, rarity * p], axis=1)).sum(0), axis_name)
        return jnp.where(sums[0] > 0, sums[1] / jnp.where(sums[0] > 0, sums[0], 1), 0.5)

    def _necessities(self, outputs: Array, labels: Array, kind: str, prior: Any) -> Float[Array, "batch classes"]:
        check_kind(kind)
        margins = self._margins(outputs, labels)
        if kind == "hinge":
            return jax.nn.relu(jax.nn.log_sigmoid(margins) + math.log(2))
        if kind == "log":
            return jax.nn.softplus(margins)
        if prior is None:
            raise ValueError(f"necessity kind {kind!r} needs prior: each label's share of ones, shape (K,).")
        self.check_prior(prior, margins.shape[1])
        prior = promote(prior).astype(margins.dtype)
        entropy = jax.scipy.special.entr(prior) + jax.scipy.special.entr(1 - prior)
        logits = promote(outputs)
        cross = prior[None, :] * jax.nn.softplus(-logits) + (1 - prior)[None, :] * jax.nn.softplus(logits)
        return cross - entropy[None, :]

    def check_prior(self, prior: Any, num_outputs: int) -> None:
        """Refuses anything but one share between 0 and 1 per label."""
        if np.shape(prior) != (num_outputs,):
            raise ValueError(
                f"prior has shape {np.shape(prior)}, but {(num_outputs,)} was expected: one share per label."
            )
        shares = concrete(prior)
        if shares is not None and not (shares.min() >= 0 and shares.max() <= 1):
            raise ValueError(f"prior {shares} was expected to hold shares between 0 and 1.")

    def excess(self, outputs: Array, labels: Array) -> Float[Array, " batch"]:
        """log(e^L - 1) of the row's summed loss L, relative to chance (one in 2^K)."""
        margins = self._margins(outputs, labels)
        # log softplus(-m) is -m where softplus underflows.
        fitted = margins > 15
        log_losses = jnp.where(fitted, -margins, jnp.log(jax.nn.softplus(-jnp.where(fitted, 0, margins))))
        log_total = jax.nn.logsumexp(log_losses, axis=-1)
        small = log_total < -8
        total = jnp.exp(jnp.where(small, 0, log_total))
        # log(e^L - 1) = log L + L/2 + O(L^2) for a small L.
        odds = jnp.where(small, log_total + jnp.exp(jnp.minimum(log_total, 0)) / 2, total + jnp.log(-jnp.expm1(-total)))
        classes = margins.shape[-1]
        return odds - (classes * math.log(2) + math.log1p(-(2.0**-classes)))

    def correct(self, outputs: Array, labels: Array) -> Bool[Array, "batch classes"]:
        """Whether (l_k > 0) = y_k, for each label."""
        return ((outputs > 0) == (labels > 0)) & jnp.isfinite(outputs)

    def probability(self, outputs: Array, labels: Array) -> Float[Array, " batch"]:
        """Mean over labels of sigma(m_k)."""
        return jax.nn.sigmoid(self._margins(outputs, labels)).mean(-1)

    def constant(self, prior: Array, num_rows: Float[Array, ""]) -> Float[Array, " classes"]:
        """Log-odds of each label's share, with half a row more on either side, so that they are finite."""
        ones = num_rows * promote(prior)
        return jnp.log((ones + 0.5) / (num_rows - ones + 0.5))

    def at_share(self, outputs: Array, constant: Array, share: Float[Array, "batch 1"]) -> Array:
        """The log-odds of the share of each label, plus ``share`` times their distance from it."""
        constant = constant.astype(outputs.dtype)[None, :]
        return constant + share.astype(outputs.dtype) * (outputs - constant)

    def out_of_range(self, labels: Array, num_outputs: int) -> Bool[Array, " batch"]:
        """Rows with a label other than 0 and 1, which ``jit`` cannot refuse."""
        del num_outputs
        return ((labels < 0) | (labels > 1)).any(-1)

    def expert_targets(self, labels: Array, num_outputs: int) -> Float[Array, "batch classes"]:
        """0 or 1 of each label."""
        del num_outputs
        return promote(labels)

    def expert_outputs(self, scores: Array, shares: Array, beta: Array) -> Float[Array, "batch classes"]:
        """Log-odds of each label: beta scores beyond those of its share; 0 for a label that is the same in all rows."""
        varies = (shares > 0) & (shares < 1)
        share = jnp.where(varies, shares, 0.5)
        return jnp.where(varies[None, :], beta * scores + jnp.log(share / (1 - share))[None, :], 0)

    def expert_losses(self, outputs: Array, targets: Array) -> Float[Array, " batch"]:
        """Mean binary cross-entropy."""
        return (jax.nn.softplus(outputs) - targets * outputs).mean(-1)

    def expert_correct(self, outputs: Array, targets: Array) -> Float[Array, " batch"]:
        """Share of correct labels."""
        return ((outputs > 0) == (targets > 0.5)).astype(outputs.dtype).mean(-1)

    def keys(self, labels: Array) -> Int[Array, " batch"]:
        """The rank of each row among the distinct rows."""
        return jnp.unique(labels, axis=0, size=labels.shape[0], return_inverse=True)[1].reshape(-1)


def _rarities(labels: Array, prior: Array) -> Float[Array, "batch classes"]:
    """The share of each label's value over the sum of squared shares of 0 and 1."""
    shares = promote(prior)[None, :]
    return jnp.where(labels > 0, shares, 1 - shares) / (jnp.square(shares) + jnp.square(1 - shares))
