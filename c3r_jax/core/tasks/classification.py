"""One of K classes per row."""

import dataclasses
import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from c3r_jax.core.batch import Where, check_labels, concrete, promote, weighted_mean
from c3r_jax.core.tasks.base import Task, check_kind, check_outputs, check_smoothing
from c3r_jax.tasks.base import TaskSpec
from c3r_jax.tasks.classification import CLASSIFICATION as SPEC

# A logit so far below the largest is of a masked class: from 104 on a probability is 0 in float32, so that training
# has no reason to push a class further.
MASKED = 1e3


def centred(logits: Float[Array, "batch classes"]) -> Float[Array, "batch classes"]:
    """Shifts each row's largest logit to 0: this only reduces the rounding errors of large logits."""
    return logits - jax.lax.stop_gradient(logits.max(axis=-1, keepdims=True))


def label_mask(logits: Float[Array, "batch classes"], labels: Int[Array, " batch"]) -> Bool[Array, "batch classes"]:
    """Marks each row's label among its classes."""
    return labels[:, None] == jnp.arange(logits.shape[1])[None, :]


def label_logit(logits: Float[Array, "batch classes"], labels: Int[Array, " batch"]) -> Float[Array, " batch"]:
    """Picks l_y; NaN for a label outside [0, K), which ``jit`` cannot refuse earlier."""
    picked = jnp.where(label_mask(logits, labels), logits, 0).sum(-1)
    in_range = (labels >= 0) & (labels < logits.shape[1])
    return jnp.where(in_range, picked, jnp.nan)


def odds_against(logits: Float[Array, "batch classes"], labels: Int[Array, " batch"]) -> Float[Array, " batch"]:
    """Log-odds of not being the label, logsumexp_{k != y} l_k - l_y: linear where cross-entropy underflows."""
    logits = centred(logits)
    others = jnp.where(label_mask(logits, labels), jnp.finfo(logits.dtype).min, logits)
    return jax.nn.logsumexp(others, axis=-1) - label_logit(logits, labels)


def class_shares(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """The share of each class (K,) among class ids of any shape."""
    return np.bincount(labels.ravel(), minlength=num_classes) / labels.size


@dataclasses.dataclass(frozen=True)
class Classification(Task):
    """One of K classes per row: cross-entropy; correct if it is the arg max.

    Attributes:
      class_weights: one positive number per class, the weight of its rows in every mean of losses and risks; None:
        all equal.

    Raises:
      ValueError: if a weight is not positive and finite.
    """

    spec: ClassVar[TaskSpec] = SPEC
    class_weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.class_weights is not None and not all(0 < w < math.inf for w in self.class_weights):
            raise ValueError(f"class_weights are {self.class_weights}, but positive finite numbers were expected.")

    def prior(self, labels: np.ndarray, num_classes: int) -> tuple[float, ...]:
        """The shares of the classes, (K,)."""
        return tuple(class_shares(labels, num_classes).tolist())

    def check_labels(self, labels: Any, num_rows: int) -> Int[Array, " batch"]:
        """Class ids (B,)."""
        return check_labels(labels, num_rows)

    def check(self, outputs: Array, labels: Any) -> tuple[Float[Array, "batch classes"], Int[Array, " batch"]]:
        """Logits (B, K), K >= 2, and class ids (B,) in [0, K)."""
        outputs = check_outputs(outputs, 2)
        if self.class_weights is not None and len(self.class_weights) != outputs.shape[1]:
            raise ValueError(
                f"class_weights are {len(self.class_weights)} numbers, but the logits have {outputs.shape[1]} classes."
            )
        return outputs, check_labels(labels, outputs.shape[0], outputs.shape[1])

    def loss(self, outputs: Array, labels: Array, *, label_smoothing: float = 0.0) -> Float[Array, " batch"]:
        """Cross-entropy in nats, see :func:`c3r_jax.sufficiency_loss`."""
        smooth = check_smoothing(label_smoothing)
        logits, labels = self.check(outputs, labels)
        logits = centred(logits)
        losses = jax.nn.logsumexp(logits, axis=-1) - label_logit(logits, labels)
        if not smooth:
            return losses  # so that a class masked by a logit of -inf adds nothing
        return losses + label_smoothing * (label_logit(logits, labels) - logits.mean(axis=-1))

    def necessity(
        self, outputs: Array, labels: Array, *, kind: str = "hinge", prior: Any = None
    ) -> Float[Array, " batch"]:
        """hinge, log, kl or constant in nats, see :func:`c3r_jax.necessity_loss`; ``prior``: (K,) shares."""
        check_kind(kind)
        logits, labels = self.check(outputs, labels)
        if kind == "hinge":
            logits = centred(logits)
            log_p = label_logit(logits, labels) - jax.nn.logsumexp(logits, axis=-1)
            return jax.nn.relu(log_p + jnp.log(jnp.asarray(logits.shape[1], logits.dtype)))
        if kind == "log":
            return jax.nn.softplus(-odds_against(logits, labels))
        if prior is None:
            raise ValueError(f"necessity kind {kind!r} needs prior: shares of the classes, shape (K,).")
        self.check_prior(prior, logits.shape[1])
        prior = promote(prior).astype(logits.dtype)
        entropy = jnp.where(prior > 0, prior * jnp.log(jnp.where(prior > 0, prior, 1)), 0).sum()
        log_p = jax.nn.log_softmax(logits, axis=-1)  # -infinity for a class that is masked, of which prior asks nothing
        return entropy - jnp.where(prior[None, :] > 0, prior[None, :] * log_p, 0).sum(-1)

    def check_prior(self, prior: Any, num_outputs: int) -> None:
        """Refuses anything but one share per class that sum to 1."""
        if np.shape(prior) != (num_outputs,):
            raise ValueError(
                f"prior has shape {np.shape(prior)}, but {(num_outputs,)} was expected: one share per class."
            )
        shares = concrete(prior)
        if shares is not None and not (shares.min() >= 0 and abs(shares.sum() - 1) <= 1e-3):
            raise ValueError(f"prior {shares} was expected to hold shares >= 0 that sum to 1.")

    def excess(self, outputs: Array, labels: Array) -> Float[Array, " batch"]:
        """Log-odds against the label, relative to those at chance (1/K)."""
        logits, labels = self.check(outputs, labels)
        odds = odds_against(logits, labels)
        return odds + jnp.log(1 / (jnp.asarray(logits.shape[-1], odds.dtype) - 1))

    def correct(self, outputs: Array, labels: Array) -> Bool[Array, " batch"]:
        """Whether argmax l = y; not where a logit is NaN or infinity (-infinity masks a class)."""
        return (jnp.argmax(outputs, axis=-1) == labels) & jnp.isfinite(outputs.max(axis=-1))

    def probability(self, outputs: Array, labels: Array) -> Float[Array, " batch"]:
        """p_y."""
        return jnp.exp(label_logit(jax.nn.log_softmax(promote(outputs)), labels))

    def batch_prior(
        self, labels: Array, num_outputs: int, *, where: Where, axis_name: str | None = None
    ) -> Float[Array, " classes"]:
        """Label shares of the global batch, each row by its weight; even ones where no row counts."""
        shares = weighted_mean(self.expert_targets(labels, num_outputs), where, self.weights(labels), axis_name)
        return jnp.where(shares.sum() > 0, shares, 1 / num_outputs)

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
        """The mean of p, (K,)."""
        p, weights = jax.lax.stop_gradient(jax.nn.softmax(promote(outputs))), self.weights(labels)
        if by_rarity:
            rarity = self.rarity(labels, prior)
            weights = rarity if weights is None else weights * rarity
        mean = weighted_mean(p, where, weights, axis_name)
        return jnp.where(mean.sum() > 0, mean, 1 / p.shape[1])

    def contrasts(self, outputs: Array) -> Array:
        """Logits minus their mean, which a softmax ignores; 0 for classes that are masked by a very small logit."""
        possible = ~(outputs < outputs.max(1, keepdims=True) - MASKED)  # NaN stays
        count = jnp.maximum(possible.sum(1, keepdims=True), 1)
        mean = jnp.where(possible, outputs, 0).sum(1, keepdims=True) / count
        mean = jnp.where(possible.all(1, keepdims=True), outputs.mean(1, keepdims=True), mean)
        return jnp.where(possible, outputs - mean, 0)

    def rarity(self, labels: Array, prior: Array) -> Float[Array, " batch"]:
        """p_y / sum_k p_k^2: evidence must outweigh a small share before a rare class is predicted."""
        own = jnp.where(label_mask(prior[None, :], labels), prior[None, :], 0).sum(-1)
        return own / jnp.square(prior).sum()

    def expert_targets(self, labels: Array, num_outputs: int) -> Float[Array, "batch classes"]:
        """One-hot labels (B, K)."""
        return jax.nn.one_hot(labels, num_outputs)

    def constant(self, prior: Array, num_rows: Float[Array, ""]) -> Float[Array, " classes"]:
        """Log shares, with half a row more in every class, so that a class without rows has a logarithm."""
        prior = promote(prior)
        return jnp.log((num_rows * prior + 0.5) / (num_rows + 0.5 * prior.shape[0]))

    def at_share(self, outputs: Array, constant: Array, share: Float[Array, "batch 1"]) -> Array:
        """Log p + share (l - log p)."""
        constant = constant.astype(outputs.dtype)[None, :]
        scaled = constant + share.astype(outputs.dtype) * (outputs - constant)
        return jnp.where(jnp.isneginf(outputs), outputs, scaled)  # a masked class stays so, at a share of 0 too

    def expert_outputs(self, scores: Array, shares: Array, beta: Array) -> Float[Array, "batch classes"]:
        """Log q, where q = softmax(beta scores + log shares); the smallest number for a class without rows."""
        seen, least = (shares > 0)[None, :], jnp.finfo(scores.dtype).min
        log_shares = jnp.log(jnp.where(shares > 0, shares, 1))
        logits = jnp.where(seen, beta * scores + log_shares[None, :], least)
        return jnp.where(seen, jax.nn.log_softmax(logits, axis=1), least)

    def expert_losses(self, outputs: Array, targets: Array) -> Float[Array, " batch"]:
        """-log q(y); ``targets`` may be shares."""
        return -(targets * outputs).sum(1)

    def expert_correct(self, outputs: Array, targets: Array) -> Float[Array, " batch"]:
        """Whether q's most probable class is the target's."""
        return (jnp.argmax(outputs, axis=1) == jnp.argmax(targets, axis=1)).astype(outputs.dtype)

    def out_of_range(self, labels: Array, num_outputs: int) -> Bool[Array, " batch"]:
        """Class ids outside [0, K): ``jit`` cannot refuse them, and their loss is NaN."""
        return (labels < 0) | (labels >= num_outputs)

    def weights(self, labels: Array) -> Float[Array, " batch"] | None:
        """The weight of each row's class."""
        if self.class_weights is None:
            return None
        return jnp.asarray(self.class_weights, jnp.float32)[labels]


CLASSIFICATION = Classification()
