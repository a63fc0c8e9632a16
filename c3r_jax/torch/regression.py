"""One number per row: correct if the error is within a tolerance, which is also the unit of every loss."""

import dataclasses
import math
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from c3r_jax.torch.batch import Where, check_float, global_mean, promote
from c3r_jax.torch.processes import Group
from c3r_jax.torch.task import Task


@dataclasses.dataclass(frozen=True)
class Regression(Task):
    r"""One number per row; e = output - label, t = |e| / tolerance.

    .. math::
       S = \begin{cases} t^2 / 2 & t \le 1 \\ t - 1/2 & t > 1 \end{cases}, \quad
       N = [1 - t]_+ \ \text{(hinge)},\ \log(1 + e^{1 - t}) \ \text{(log)},\
       \tfrac{(f(\bar z) - \mu)^2}{2 \sigma^2} \ \text{(kl; constant: the mean output as}\ \mu \text{)}

    S is Huber's loss; the label is correct if t <= 1. Outputs are (B, 1), labels floats (B,). ``prior`` is the mean and
    the standard deviation of the training labels.

    Attributes:
      tolerance: largest error of a correct prediction, in units of the labels.

    Raises:
      ValueError: if the tolerance is not positive and finite.

    Examples:
      >>> Regression(tolerance=0.5).loss(torch.tensor([[1.0], [3.0]]), torch.tensor([1.5, 1.0]))
      tensor([0.5000, 3.5000])

    References:
      P. Huber, Robust estimation of a location parameter, 1964.
    """

    tolerance: float = 0.5
    adds_up: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 0 < self.tolerance < math.inf:
            raise ValueError(f"tolerance is {self.tolerance}, but a positive finite number was expected.")

    def check_labels(self, labels: Any, num_rows: int) -> Float[Tensor, " batch"]:
        """Numbers (B,)."""
        labels = torch.as_tensor(labels)
        if tuple(labels.shape) != (num_rows,) or not labels.dtype.is_floating_point:
            raise ValueError(
                f"labels have shape {tuple(labels.shape)} and dtype {labels.dtype}, but floats ({num_rows},) were "
                "expected."
            )
        return labels

    def check(self, outputs: Any, labels: Any) -> tuple[Float[Tensor, "batch 1"], Float[Tensor, " batch"]]:
        """Outputs (B, 1) and labels (B,)."""
        outputs = promote(check_float("outputs", outputs, 2))
        if outputs.shape[1] != 1:
            raise ValueError(f"outputs have shape {tuple(outputs.shape)}, but ({outputs.shape[0]}, 1) was expected.")
        return outputs, self.check_labels(labels, outputs.shape[0])

    def check_prior(self, prior: Tensor, num_outputs: int) -> Tensor:
        """Mean and standard deviation."""
        del num_outputs
        if tuple(prior.shape) != (2,):
            raise ValueError(
                f"prior has shape {tuple(prior.shape)}, but (2,) was expected: mean and standard deviation."
            )
        if not (prior[1] > 0 and prior.isfinite().all()):
            raise ValueError(f"prior is {prior.tolist()}, but a mean and a standard deviation above 0 were expected.")
        return prior

    def check_smoothing(self, label_smoothing: float) -> None:
        """There is nothing to smooth."""
        if label_smoothing:
            raise ValueError(f"label_smoothing is {label_smoothing}, but numbers have no classes to smooth: use 0.")

    def loss(self, outputs: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Float[Tensor, " batch"]:
        """Huber's loss in units of the tolerance."""
        del label_smoothing
        t = self._error(outputs, labels)
        return torch.where(t <= 1, t.clamp(max=1).square() / 2, t - 0.5)

    def necessity(
        self, outputs: Tensor, labels: Tensor, kind: str, prior: Tensor | None = None
    ) -> Float[Tensor, " batch"]:
        """hinge, log, kl or constant."""
        t = self._error(outputs, labels)
        if kind == "hinge":
            return F.relu(1 - t)
        if kind == "log":
            return F.softplus(1 - t)
        assert prior is not None
        mean, spread = prior.to(t.dtype)
        return ((promote(outputs)[:, 0] - mean) / spread).square() / 2

    def mean_prediction(
        self, outputs: Tensor, labels: Tensor, prior: Tensor, *, by_rarity: bool, where: Where, group: Group | None
    ) -> Float[Tensor, "2"]:
        """The mean output, and the labels' standard deviation."""
        del labels, by_rarity
        mean = global_mean(promote(outputs).detach()[:, 0], where, group)
        return torch.stack([mean, prior[1].to(mean)])

    def excess(self, outputs: Tensor, labels: Tensor) -> Float[Tensor, " batch"]:
        """How far the error exceeds the tolerance: t - 1."""
        return self._error(outputs, labels) - 1

    def correct(self, outputs: Tensor, labels: Tensor) -> Bool[Tensor, " batch"]:
        """Whether t <= 1."""
        return self._error(outputs, labels) <= 1

    def probability(self, outputs: Tensor, labels: Tensor) -> Float[Tensor, " batch"]:
        """exp(-t): 1 at the label, 1/e at the tolerance."""
        return (-self._error(outputs, labels)).exp()

    def batch_prior(
        self, labels: Tensor, num_outputs: int, *, where: Where, group: Group | None, dtype: torch.dtype
    ) -> Float[Tensor, "2"]:
        """Mean and standard deviation of the global batch; a standard deviation of 1 where its labels do not vary."""
        del num_outputs
        labels = labels.to(dtype)
        mean = global_mean(labels, where, group)
        variance = global_mean((labels - mean).square(), where, group)
        return torch.stack([mean, torch.where(variance > 0, variance, 1).sqrt()])

    def constant(self, prior: Tensor, num_rows: Float[Tensor, ""]) -> Float[Tensor, " 1"]:
        """The mean label."""
        del num_rows
        return prior[:1]

    def expert_targets(self, labels: Tensor, num_outputs: int, dtype: torch.dtype) -> Float[Tensor, "batch 1"]:
        """The label."""
        del num_outputs
        return labels.to(dtype)[:, None]

    def expert_outputs(self, scores: Tensor, shares: Tensor, beta: float) -> Float[Tensor, "batch 1"]:
        """The mean label plus beta times the centred scores."""
        return beta * scores + shares[None, :]

    def expert_losses(self, outputs: Tensor, targets: Tensor) -> Float[Tensor, " batch"]:
        """The loss of each row."""
        return self.loss(outputs, targets[:, 0])

    def expert_correct(self, outputs: Tensor, targets: Tensor) -> Float[Tensor, " batch"]:
        """Whether each row's error is within the tolerance."""
        return self.correct(outputs, targets[:, 0]).to(outputs.dtype)

    def removable(self, along: Tensor, excess: Tensor, slope: Tensor) -> Float[Tensor, "batch 1"]:
        """Also an overshooting component: removing it gives a larger error of the other sign."""
        beyond = (along > 0) & (along * slope > 2 * (excess + 1))
        return torch.where(beyond | (along < 0), along, 0)

    def _error(self, outputs: Tensor, labels: Tensor) -> Float[Tensor, " batch"]:
        """t, with gradient +1 at an error of 0, so that a perfectly fitted row has a direction, too."""
        error = (promote(outputs)[:, 0] - labels) / self.tolerance
        return torch.where(error >= 0, error, -error)
