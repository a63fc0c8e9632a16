"""One number per row: correct if the error is within a tolerance, which is also the unit of every loss."""

import dataclasses
import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from c3r_jax.core.batch import Where, check_float, concrete, global_mean, promote
from c3r_jax.core.tasks.base import Task, check_kind, check_smoothing
from c3r_jax.errors import DataError
from c3r_jax.tasks.base import TaskSpec
from c3r_jax.tasks.regression import REGRESSION


@dataclasses.dataclass(frozen=True)
class Regression(Task):
    r"""One number per row; e = output - label, t = |e| / tolerance.

    .. math::
       S = \begin{cases} t^2 / 2 & t \le 1 \\ t - 1/2 & t > 1 \end{cases}, \quad
       N = [1 - t]_+ \ \text{(hinge)},\ \log(1 + e^{1 - t}) \ \text{(log)},\
       \tfrac{(f(\bar z) - \mu)^2}{2 \sigma^2} \ \text{(kl; constant: the mean output as}\ \mu \text{)}

    S is Huber's loss. ``hinge`` is zero once the error leaves the tolerance; ``kl`` is the divergence of two normal
    distributions of standard deviation sigma, one at the mean mu of the training labels, the other at the output. The
    label is correct if t <= 1. Scaling labels, outputs and tolerance by one number changes nothing.

    Attributes:
      tolerance: largest error of a correct prediction, in units of the labels.

    Raises:
      ValueError: if the tolerance is not positive and finite.

    Examples:
      >>> import jax.numpy as jnp
      >>> Regression(tolerance=0.5).loss(jnp.array([[1.0], [3.0]]), jnp.array([1.5, 1.0]))
      Array([0.5, 3.5], dtype=float32)

    References:
      P. Huber, Robust estimation of a location parameter, 1964.
    """

    spec: ClassVar[TaskSpec] = REGRESSION
    adds_up: ClassVar[bool] = False
    tolerance: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.tolerance < math.inf:
            raise ValueError(f"tolerance is {self.tolerance}, but a positive finite number was expected.")

    def prior(self, labels: np.ndarray, num_classes: int) -> tuple[float, ...]:
        """Mean and standard deviation."""
        del num_classes
        mean, sd = float(labels.mean(dtype=np.float64)), float(labels.std(dtype=np.float64))
        if not sd > 0:
            raise DataError(f"all training labels are {mean}: a regression needs labels that vary.")
        return mean, sd

    def batch_prior(
        self, labels: Array, num_outputs: int, *, where: Where, axis_name: str | None = None
    ) -> Float[Array, "2"]:
        """Mean and standard deviation of the global batch; a standard deviation of 1 where its labels do not vary."""
        del num_outputs
        labels = promote(labels)
        mean = global_mean(labels, where, axis_name)
        variance = global_mean(jnp.square(labels - mean), where, axis_name)
        return jnp.stack([mean, jnp.where(variance > 0, jnp.sqrt(jnp.where(variance > 0, variance, 1)), 1)])

    def mean_prediction(
        self,
        outputs: Array,
        labels: Array,
        prior: Array,
        *,
        by_rarity: bool,
        where: Where,
        axis_name: str | None = None,
    ) -> Float[Array, "2"]:
        """The mean output, and the labels' standard deviation."""
        del labels, by_rarity
        mean = global_mean(jax.lax.stop_gradient(promote(outputs)[:, 0]), where, axis_name)
        return jnp.stack([mean, jnp.asarray(prior, mean.dtype)[1]])

    def check_labels(self, labels: Any, num_rows: int) -> Float[Array, " batch"]:
        """Numbers (B,)."""
        labels = jnp.asarray(labels)
        if labels.shape != (num_rows,) or not jnp.issubdtype(labels.dtype, jnp.floating):
            raise ValueError(
                f"labels have shape {labels.shape} and dtype {labels.dtype}, but floats ({num_rows},) were expected: "
                "convert whole numbers by astype(float); of several targets, take the mean of one c3r_loss each."
            )
        return labels

    def check(self, outputs: Array, labels: Any) -> tuple[Float[Array, "batch 1"], Float[Array, " batch"]]:
        """Outputs (B, 1) and labels (B,)."""
        outputs = promote(check_float("outputs", outputs, 2))
        if outputs.shape[1] != 1:
            raise ValueError(
                f"outputs have shape {outputs.shape}, but ({outputs.shape[0]}, 1) was expected: of several targets, "
                "take the mean of one c3r_loss each."
            )
        return outputs, self.check_labels(labels, outputs.shape[0])

    def _error(self, outputs: Array, labels: Any) -> Float[Array, " batch"]:
        """t, with gradient +1 at an error of 0, so that a perfectly fitted row has a direction, too."""
        outputs, labels = self.check(outputs, labels)
        error = (outputs[:, 0] - labels) / self.tolerance
        return jnp.where(error >= 0, error, -error)

    def loss(self, outputs: Array, labels: Array, *, label_smoothing: float = 0.0) -> Float[Array, " batch"]:
        """Huber's loss in units of the tolerance."""
        if check_smoothing(label_smoothing):
            raise ValueError(f"label_smoothing is {label_smoothing}, but numbers have no classes to smooth: use 0.")
        t = self._error(outputs, labels)
        return jnp.where(t <= 1, jnp.square(jnp.minimum(t, 1)) / 2, t - 0.5)

    def necessity(
        self, outputs: Array, labels: Array, *, kind: str = "hinge", prior: Any = None
    ) -> Float[Array, " batch"]:
        """hinge, log, kl or constant; ``prior``: mean and standard deviation."""
        check_kind(kind)
        t = self._error(outputs, labels)
        if kind == "hinge":
            return jax.nn.relu(1 - t)
        if kind == "log":
            return jax.nn.softplus(1 - t)
        if prior is None:
            raise ValueError(f"necessity kind {kind!r} needs prior: mean and standard deviation of the labels.")
        self.check_prior(prior, 1)
        prior = promote(prior).astype(t.dtype)
        return jnp.square((promote(outputs)[:, 0] - prior[0]) / prior[1]) / 2

    def check_prior(self, prior: Any, num_outputs: int) -> None:
        """Refuses anything but a mean and a standard deviation above 0."""
        del num_outputs
        if np.shape(prior) != (2,):
            raise ValueError(f"prior has shape {np.shape(prior)}, but (2,) was expected: mean and standard deviation.")
        known = concrete(prior)
        if known is not None and not (known[1] > 0 and np.isfinite(known).all()):
            raise ValueError(f"prior is {known}, but a mean and a standard deviation above 0 were expected.")

    def excess(self, outputs: Array, labels: Array) -> Float[Array, " batch"]:
        """How far the error exceeds the tolerance: t - 1."""
        return self._error(outputs, labels) - 1

    def correct(self, outputs: Array, labels: Array) -> Bool[Array, " batch"]:
        """Whether t <= 1."""
        return self._error(outputs, labels) <= 1

    def probability(self, outputs: Array, labels: Array) -> Float[Array, " batch"]:
        """exp(-t): 1 at the label, 1/e at the tolerance."""
        return jnp.exp(-self._error(outputs, labels))

    def constant(self, prior: Array, num_rows: Float[Array, ""]) -> Float[Array, " 1"]:
        """The mean label."""
        del num_rows
        return promote(prior)[:1]

    def expert_targets(self, labels: Array, num_outputs: int) -> Float[Array, "batch 1"]:
        """The label."""
        del num_outputs
        return promote(labels)[:, None]

    def expert_outputs(self, scores: Array, shares: Array, beta: Array) -> Float[Array, "batch 1"]:
        """The mean label plus beta times the centred scores."""
        return beta * scores + shares[None, :]

    def expert_losses(self, outputs: Array, targets: Array) -> Float[Array, " batch"]:
        """The loss of each row."""
        return self.loss(outputs, targets[:, 0])

    def expert_correct(self, outputs: Array, targets: Array) -> Float[Array, " batch"]:
        """Whether each row's error is within the tolerance."""
        return self.correct(outputs, targets[:, 0]).astype(outputs.dtype)

    def removable(self, along: Array, excess: Array, slope: Array) -> Float[Array, "batch 1"]:
        """Also an overshooting component: removing it gives a larger error of the other sign."""
        beyond = (along > 0) & (along * slope > 2 * (excess + 1))
        return jnp.where(beyond, along, jnp.minimum(0, along))
