"""The interface between the objective and a task: losses, correctness and the direction of counterfactuals.

The objective (:func:`c3r_jax.c3r_loss`), the counterfactuals and the risks call a :class:`Task` and are the same for
every task. Each task has its own file.
"""

import abc
from typing import Any, ClassVar, Self

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Num

from c3r_jax.core.batch import Where, check_float, expand, global_mean, promote
from c3r_jax.objective_config import NECESSITY_KINDS
from c3r_jax.tasks.base import TaskSpec


class Task(abc.ABC):
    """Pure functions of outputs (B, K) and labels, row by row; hashable, so that it can be a static argument of jit.

    Attributes:
      spec: the task as data, evaluation and reports see it.
      tolerance: labels (or their :meth:`keys`) that differ by at most this count as equal.
      adds_up: whether outputs are sums of evidence, as logits are, whose scale may be tried; otherwise they are
        estimates of the label, or have a scale of their own.
      at_once: whether outputs are small enough for those at z, z_c and z_bar to be in memory together.
    """

    spec: ClassVar[TaskSpec]
    adds_up: ClassVar[bool] = True
    at_once: ClassVar[bool] = True
    tolerance: float = 0.0

    @classmethod
    def for_labels(cls, labels: np.ndarray, num_classes: int, **settings: Any) -> Self:
        """The task for its settings and training labels.

        Args:
          labels: labels of the training set, or a sample of them.
          num_classes: K.
          **settings: the task's settings, the leaves of ``config.NAME`` if the configuration has such a part.

        Raises:
          ValueError: a setting cannot be used; the message begins with its name.
        """
        del labels, num_classes
        return cls(**settings)

    @abc.abstractmethod
    def prior(self, labels: np.ndarray, num_classes: int) -> tuple[float, ...]:
        """The prior of the training labels, for necessity "kl".

        Raises:
          DataError: nothing can be learned from these labels.
        """

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
        """Penalty of each row whose label can still be predicted; ``kind`` is one of :data:`NECESSITY_KINDS`."""

    @abc.abstractmethod
    def excess(self, outputs: Array, labels: Array) -> Float[Array, " batch"]:
        """How far each row's label is from being predicted: 0 at chance, rises with the loss without underflow."""

    @abc.abstractmethod
    def correct(self, outputs: Array, labels: Array) -> Bool[Array, "batch ..."]:
        """Whether the prediction is correct: one flag per row, or one per label of the row; False if not finite."""

    @abc.abstractmethod
    def probability(self, outputs: Array, labels: Array) -> Float[Array, " batch"]:
        """The predicted probability of the label, or the task's equivalent; for reports."""

    def batch_prior(self, labels: Array, num_outputs: int, *, where: Where, axis_name: str | None = None) -> Array:
        """What :meth:`prior` says of training labels, of the global batch's: for necessity "kl" without a prior."""
        del num_outputs
        return global_mean(promote(labels), where, axis_name)

    @abc.abstractmethod
    def constant(self, prior: Array, num_rows: Float[Array, ""]) -> Float[Array, " outputs"]:
        """Outputs of the best constant prediction, (K,), from a prior that was estimated from ``num_rows`` rows."""

    def check_prior(self, prior: Any, num_outputs: int) -> None:
        """Refuses what is no :meth:`prior` of ``num_outputs`` outputs, as far as it is known before tracing."""
        del prior, num_outputs

    def rarity(self, labels: Array, prior: Array) -> Float[Array, " batch"] | None:
        """How much of its necessity each row is asked for, 1 on average: less in rare classes. None: all equally."""
        del labels, prior
        return None

    def necessity_by_rarity(
        self, outputs: Array, labels: Array, *, kind: str, prior: Array, asked: Array
    ) -> Float[Array, " batch"]:
        """:meth:`necessity` with the prior ``asked``, times :meth:`rarity` by ``prior``."""
        losses, rarity = self.necessity(outputs, labels, kind=kind, prior=asked), self.rarity(labels, prior)
        return losses if rarity is None else rarity.astype(losses.dtype) * losses

    @abc.abstractmethod
    def mean_prediction(
        self,
        outputs: Array,
        labels: Array,
        prior: Array,
        *,
        by_rarity: bool,
        where: Where,
        axis_name: str | None = None,
    ) -> Array:
        """The mean of what outputs predict, in the form of a prior, for necessity "constant"; without gradient.

        Rows count as in the mean of the necessity losses, so that these never move a bias of the outputs.

        Args:
          outputs: (B, K).
          labels: (B, ...).
          prior: of the labels.
          by_rarity: whether rows are weighted by their :meth:`rarity`.
          where: (B,) rows that count.
          axis_name: mapped axis over which the batch is split.
        """

    def at_share(self, outputs: Array, constant: Array, share: Float[Array, "batch 1"]) -> Array:
        """Outputs whose distance from the constant ones is scaled: evidence at the share it has in a fusion.

        Outputs that are sums of evidence, such as logits, are scaled; those of a regression are not.
        """
        del constant, share
        return outputs

    def contrasts(self, outputs: Array) -> Array:
        """The part of outputs (B, K) that predictions depend on."""
        return outputs

    @abc.abstractmethod
    def expert_targets(self, labels: Array, num_outputs: int) -> Float[Array, "batch outputs"]:
        """What an expert's ridge regression predicts, (B, K)."""

    @abc.abstractmethod
    def expert_outputs(self, scores: Array, shares: Array, beta: Array) -> Float[Array, "batch outputs"]:
        """An expert's outputs: beta times its centred scores (B, K), beyond what the mean targets (K,) say.

        They are normalised where outputs are (log-probabilities), so that their distance from those at beta = 0 is
        the expert's evidence.
        """

    @abc.abstractmethod
    def expert_losses(self, outputs: Array, targets: Array) -> Float[Array, " batch"]:
        """Loss of an expert's outputs in each row, given its targets."""

    @abc.abstractmethod
    def expert_correct(self, outputs: Array, targets: Array) -> Float[Array, " batch"]:
        """Share of each row's labels that an expert's outputs predict."""

    def beyond(self, outputs: Array, evidence: Array) -> Array:
        """Outputs joined with the summed evidence of experts: for classes a product of experts."""
        return outputs + evidence.astype(outputs.dtype)

    def removable(self, along: Array, excess: Array, slope: Array) -> Float[Array, "batch 1"]:
        """For "removal": what favours the label in a row's component along the unit gradient of :meth:`excess`.

        Args:
          along: (B, 1) component of the causal part, relative to the mean.
          excess: (B, 1) at the causal part.
          slope: (B, 1) length of the gradient.

        Returns:
          ``along`` where removing it raises the linearised loss, else 0.
        """
        del excess, slope
        return jnp.minimum(0, along)

    def weights(self, labels: Array) -> Float[Array, " batch"] | None:
        """Positive weights of the rows in every mean of losses and risks; None: all equal."""
        del labels
        return None

    def out_of_range(self, labels: Array, num_outputs: int) -> Bool[Array, " batch"] | None:
        """Which rows have a label that no output stands for; None: every label is possible."""
        del labels, num_outputs
        return None

    def keys(self, labels: Array) -> Num[Array, " batch"]:
        """Numbers that are equal (up to :attr:`tolerance`) for equal labels, given the labels of the global batch."""
        return labels


def valid_labels(labels: Any, where: Bool[Array, " batch"], task: Task) -> Num[Array, "batch ..."]:
    """Returns checked labels with 0 in the excluded rows, whose labels are arbitrary."""
    labels = task.check_labels(labels, where.shape[0])
    return jnp.where(expand(where, labels), labels, jnp.zeros((), labels.dtype))


def check_outputs(outputs: Array, least: int) -> Float[Array, "batch outputs"]:
    """Returns outputs (B, K) in float32 or wider; ``least`` is the smallest K allowed."""
    outputs = promote(check_float("logits", outputs, 2))
    if outputs.shape[1] < least:
        raise ValueError(
            f"logits have shape {outputs.shape}, but at least {least} classes were expected in the last axis."
        )
    return outputs


def check_smoothing(label_smoothing: Any) -> bool:
    """Returns whether labels are smoothed, or raises ValueError if the value is out of range."""
    if isinstance(label_smoothing, Tracer):
        return True
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing is {label_smoothing}, but a share of at least 0 and below 1 was expected.")
    return label_smoothing != 0


def check_kind(kind: str) -> None:
    """Refuses an unknown kind of necessity loss."""
    if kind not in NECESSITY_KINDS:
        raise ValueError(f"necessity kind {kind!r} is unknown: expected one of {', '.join(NECESSITY_KINDS)}.")
