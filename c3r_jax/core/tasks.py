"""What a task's labels mean: how far outputs are from them, whether they are told, and how to climb away from them.

The objective (:func:`c3r_jax.c3r_loss`), the counterfactuals and the risks ask a :class:`Task` for all of this; they
are the same for every task. Here are the interface and classification; the other tasks are in their own files.
"""

import abc
import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int, Num

from c3r_jax.core._batch import check_float, check_labels, concrete, promote

NECESSITY_KINDS = ("hinge", "log", "kl")


class Task(abc.ABC):
    """Pure functions of outputs (B, K) and labels, row by row; hashable, so that it can be a static argument of jit.

    Attributes:
      tolerance: labels (or their :meth:`keys`) that differ by at most this are the same one.
    """

    tolerance: float = 0.0

    @abc.abstractmethod
    def check_labels(self, labels: Any, num_rows: int) -> Num[Array, "batch ..."]:
        """Returns the labels of ``num_rows`` rows, or raises ValueError if shape or dtype is wrong."""

    @abc.abstractmethod
    def check(self, outputs: Array, labels: Any) -> tuple[Float[Array, "batch outputs"], Num[Array, "batch ..."]]:
        """Returns outputs in float32 or wider and checked labels, or raises ValueError."""

    @abc.abstractmethod
    def loss(self, outputs: Array, labels: Array, *, label_smoothing: float = 0.0) -> Float[Array, " batch"]:
        """The task's loss of each row."""

    @abc.abstractmethod
    def necessity(
        self, outputs: Array, labels: Array, *, kind: str = "hinge", prior: Any = None
    ) -> Float[Array, " batch"]:
        """Penalty of each row of which the label can still be told; ``kind`` is one of :data:`NECESSITY_KINDS`."""

    @abc.abstractmethod
    def excess(self, outputs: Array, labels: Array) -> Float[Array, " batch"]:
        """How far from being told a row's label is: rises with its loss, without underflow, and is 0 at chance."""

    @abc.abstractmethod
    def right(self, outputs: Array, labels: Array) -> Bool[Array, "batch ..."]:
        """Whether the label is told: one flag a row, or one for each of the row's labels; False if not finite."""

    @abc.abstractmethod
    def probability(self, outputs: Array, labels: Array) -> Float[Array, " batch"]:
        """The probability that the outputs give the label, or what stands for it; for reports."""

    def removable(self, along: Array, excess: Array, slope: Array) -> Float[Array, "batch 1"]:
        """What of a row's component along the unit gradient of :meth:`excess` favours its label.

        Args:
          along: (B, 1) component of the causal part, relative to the mean.
          excess: (B, 1) at the causal part.
          slope: (B, 1) length of the gradient.

        Returns:
          ``along`` where taking it away raises the linearised loss, else 0.
        """
        del excess, slope
        return jnp.minimum(0, along)

    def weights(self, labels: Array) -> Float[Array, " batch"] | None:
        """Weights > 0 of the rows in every mean of losses and risks; None: all equal."""
        del labels
        return None

    def keys(self, labels: Array) -> Num[Array, " batch"]:
        """Numbers that are equal (up to :attr:`tolerance`) for equal labels, given those of the whole batch."""
        return labels


def check_outputs(outputs: Array, least: int) -> Float[Array, "batch outputs"]:
    """Returns outputs (B, K) in float32 or wider; ``least`` is the fewest K."""
    outputs = promote(check_float("logits", outputs, 2))
    if outputs.shape[1] < least:
        raise ValueError(
            f"logits have shape {outputs.shape}, but at least {least} classes were expected in the last axis."
        )
    return outputs


def check_smoothing(label_smoothing: Any) -> bool:
    """Returns whether there is smoothing to do, or raises ValueError if it is no share."""
    if isinstance(label_smoothing, Tracer):
        return True
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing is {label_smoothing}, but a share of at least 0 and below 1 was expected.")
    return label_smoothing != 0


def check_kind(kind: str) -> None:
    """Refuses an unknown kind of necessity loss."""
    if kind not in NECESSITY_KINDS:
        raise ValueError(f"necessity kind {kind!r} is unknown: expected one of {', '.join(NECESSITY_KINDS)}.")


def centred(logits: Float[Array, "batch classes"]) -> Float[Array, "batch classes"]:
    """Shifts each row's largest logit to 0: nothing changes but the rounding, which large logits would dominate."""
    return logits - jax.lax.stop_gradient(logits.max(axis=-1, keepdims=True))


def label_mask(logits: Float[Array, "batch classes"], labels: Int[Array, " batch"]) -> Bool[Array, "batch classes"]:
    """Marks each row's label among its classes."""
    return labels[:, None] == jnp.arange(logits.shape[1])[None, :]


def label_logit(logits: Float[Array, "batch classes"], labels: Int[Array, " batch"]) -> Float[Array, " batch"]:
    """Picks l_y; NaN for a label outside [0, K), which under ``jit`` cannot be refused earlier."""
    picked = jnp.where(label_mask(logits, labels), logits, 0).sum(-1)
    in_range = (labels >= 0) & (labels < logits.shape[1])
    return jnp.where(in_range, picked, jnp.nan)


def odds_against(logits: Float[Array, "batch classes"], labels: Int[Array, " batch"]) -> Float[Array, " batch"]:
    """Log-odds of not being the label, logsumexp_{k != y} l_k - l_y: linear where cross-entropy underflows."""
    logits = centred(logits)
    others = jnp.where(label_mask(logits, labels), jnp.finfo(logits.dtype).min, logits)
    return jax.nn.logsumexp(others, axis=-1) - label_logit(logits, labels)


@dataclasses.dataclass(frozen=True)
class Classification(Task):
    """One of K classes per row: cross-entropy; told if it is the arg max.

    Attributes:
      class_weights: one positive number per class, the weight of its rows in every mean of losses and risks (for
        voxels, of which nearly all are background); None: all rows alike.

    Raises:
      ValueError: if a weight is not positive and finite.
    """

    class_weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.class_weights is not None and not all(0 < w < math.inf for w in self.class_weights):
            raise ValueError(f"class_weights are {self.class_weights}, but positive finite numbers were expected.")

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
            return losses  # so that a class masked by a logit of -inf costs nothing
        return losses + label_smoothing * (label_logit(logits, labels) - logits.mean(axis=-1))

    def necessity(
        self, outputs: Array, labels: Array, *, kind: str = "hinge", prior: Any = None
    ) -> Float[Array, " batch"]:
        """hinge, log or kl in nats, see :func:`c3r_jax.necessity_loss`; ``prior``: (K,) shares."""
        check_kind(kind)
        logits, labels = self.check(outputs, labels)
        if kind == "hinge":
            logits = centred(logits)
            log_p = label_logit(logits, labels) - jax.nn.logsumexp(logits, axis=-1)
            return jax.nn.relu(log_p + jnp.log(jnp.asarray(logits.shape[1], logits.dtype)))
        if kind == "log":
            return jax.nn.softplus(-odds_against(logits, labels))
        if prior is None:
            raise ValueError("necessity kind 'kl' needs prior: the label shares of the training set, shape (K,).")
        prior = promote(prior).astype(logits.dtype)
        if prior.shape != logits.shape[1:]:
            raise ValueError(f"prior has shape {prior.shape}, but {logits.shape[1:]} was expected: one share a class.")
        shares = concrete(prior)
        if shares is not None and (shares.min() < 0 or abs(shares.sum() - 1) > 1e-3):
            raise ValueError(f"prior {shares} was expected to hold shares >= 0 that sum to 1.")
        entropy = jnp.where(prior > 0, prior * jnp.log(jnp.where(prior > 0, prior, 1)), 0).sum()
        return entropy - (prior[None, :] * jax.nn.log_softmax(logits, axis=-1)).sum(-1)

    def excess(self, outputs: Array, labels: Array) -> Float[Array, " batch"]:
        """Log-odds against the label, relative to those of one in K."""
        logits, labels = self.check(outputs, labels)
        odds = odds_against(logits, labels)
        return odds + jnp.log(1 / (jnp.asarray(logits.shape[-1], odds.dtype) - 1))

    def right(self, outputs: Array, labels: Array) -> Bool[Array, " batch"]:
        """Whether argmax l = y."""
        return (jnp.argmax(outputs, axis=-1) == labels) & jnp.isfinite(outputs).all(axis=-1)

    def probability(self, outputs: Array, labels: Array) -> Float[Array, " batch"]:
        """p_y."""
        return jnp.exp(label_logit(jax.nn.log_softmax(promote(outputs)), labels))

    def weights(self, labels: Array) -> Float[Array, " batch"] | None:
        """The weight of each row's class."""
        if self.class_weights is None:
            return None
        return jnp.asarray(self.class_weights, jnp.float32)[labels]


CLASSIFICATION = Classification()
