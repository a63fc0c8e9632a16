"""The interface between the objective and a task: what outputs and labels mean. Each task has its own file.

The functions are those of JAX's tasks (``c3r_jax.core.tasks``). Values are checked once, by :meth:`Task.check`, and not
in every function: to look at a value waits for the accelerator.
"""

import abc
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Num
from torch import Tensor

from c3r_jax.torch.batch import Where, check_float, expand, global_mean, promote
from c3r_jax.torch.processes import Group


class Task(abc.ABC):
    """Functions of outputs (B, K) and labels, row by row.

    Attributes:
      adds_up: whether outputs are sums of evidence, as logits are; otherwise they are estimates of the label.
      tolerance: labels (or their :meth:`keys`) that differ by at most this count as equal.
    """

    tolerance: float = 0.0
    adds_up: ClassVar[bool] = True

    @abc.abstractmethod
    def check_labels(self, labels: Any, num_rows: int) -> Num[Tensor, "batch ..."]:
        """Returns the labels of ``num_rows`` rows, or raises ValueError if shape or dtype is wrong."""

    @abc.abstractmethod
    def check(self, outputs: Any, labels: Any) -> tuple[Float[Tensor, "batch outputs"], Num[Tensor, "batch ..."]]:
        """Returns outputs in float32 or wider and checked labels, or raises ValueError."""

    @abc.abstractmethod
    def check_prior(self, prior: Tensor, num_outputs: int) -> Tensor:
        """Returns the prior of necessity "kl", or raises ValueError if it is none for so many outputs."""

    def check_smoothing(self, label_smoothing: float) -> None:
        """Refuses a smoothing that the labels do not allow."""
        if not 0 <= label_smoothing < 1:
            raise ValueError(
                f"label_smoothing is {label_smoothing}, but a share of at least 0 and below 1 was expected."
            )

    @abc.abstractmethod
    def loss(self, outputs: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Float[Tensor, " batch"]:
        """The task's loss of each row."""

    @abc.abstractmethod
    def necessity(
        self, outputs: Tensor, labels: Tensor, kind: str, prior: Tensor | None = None
    ) -> Float[Tensor, " batch"]:
        """Penalty of each row whose label can still be predicted; "kl" and "constant" need the prior."""

    @abc.abstractmethod
    def excess(self, outputs: Tensor, labels: Tensor) -> Float[Tensor, " batch"]:
        """How far each row's label is from being predicted: 0 at chance, rises with the loss without underflow."""

    @abc.abstractmethod
    def correct(self, outputs: Tensor, labels: Tensor) -> Bool[Tensor, "batch ..."]:
        """Whether the prediction is correct: one flag per row, or one per label of the row; False if not finite."""

    @abc.abstractmethod
    def probability(self, outputs: Tensor, labels: Tensor) -> Float[Tensor, " batch"]:
        """The predicted probability of the label, or the task's equivalent; for reports."""

    def batch_prior(
        self, labels: Tensor, num_outputs: int, *, where: Where, group: Group | None, dtype: torch.dtype
    ) -> Tensor:
        """What labels of the global batch say without any input: for necessity "kl" and :meth:`constant`."""
        del num_outputs
        return global_mean(labels.to(dtype), where, group)

    @abc.abstractmethod
    def constant(self, prior: Tensor, num_rows: Float[Tensor, ""]) -> Float[Tensor, " outputs"]:
        """Outputs of the best constant prediction, (K,), from a prior that was estimated from ``num_rows`` rows."""

    def rarity(self, labels: Tensor, prior: Tensor) -> Float[Tensor, " batch"] | None:
        """How much of its necessity each row is asked for, 1 on average: less in rare classes. None: all equally."""
        del labels, prior
        return None

    def necessity_by_rarity(
        self, outputs: Tensor, labels: Tensor, kind: str, prior: Tensor, asked: Tensor
    ) -> Float[Tensor, " batch"]:
        """:meth:`necessity` with the prior ``asked``, times :meth:`rarity` by ``prior``."""
        losses, rarity = self.necessity(outputs, labels, kind, asked), self.rarity(labels, prior)
        return losses if rarity is None else rarity.to(losses.dtype) * losses

    @abc.abstractmethod
    def mean_prediction(
        self, outputs: Tensor, labels: Tensor, prior: Tensor, *, by_rarity: bool, where: Where, group: Group | None
    ) -> Tensor:
        """The mean of what outputs predict, in the form of a prior, for necessity "constant"; without gradient.

        Rows count as in the mean of the necessity losses, so that these never move a bias of the outputs.

        Args:
          outputs: (B, K).
          labels: (B, ...).
          prior: of the labels.
          by_rarity: whether rows are weighted by their :meth:`rarity`.
          where: (B,) rows that count.
          group: process group over which the batch is split.
        """

    def at_share(self, outputs: Tensor, constant: Tensor, share: Float[Tensor, "batch 1"]) -> Tensor:
        """Outputs with their distance from the constant ones scaled, where outputs are sums of evidence, as logits."""
        del constant, share
        return outputs

    def contrasts(self, outputs: Tensor) -> Tensor:
        """The part of outputs (B, K) that predictions depend on."""
        return outputs

    @abc.abstractmethod
    def expert_targets(self, labels: Tensor, num_outputs: int, dtype: torch.dtype) -> Float[Tensor, "batch outputs"]:
        """What an expert's ridge regression predicts, (B, K)."""

    @abc.abstractmethod
    def expert_outputs(self, scores: Tensor, shares: Tensor, beta: float) -> Float[Tensor, "batch outputs"]:
        """An expert's outputs: beta times its centred scores (B, K), beyond what the mean targets (K,) say."""

    @abc.abstractmethod
    def expert_losses(self, outputs: Tensor, targets: Tensor) -> Float[Tensor, " batch"]:
        """Loss of an expert's outputs in each row, given its targets."""

    @abc.abstractmethod
    def expert_correct(self, outputs: Tensor, targets: Tensor) -> Float[Tensor, " batch"]:
        """Share of each row's labels that an expert's outputs predict."""

    def removable(self, along: Tensor, excess: Tensor, slope: Tensor) -> Float[Tensor, "batch 1"]:
        """For "removal": what favours the label in a row's component along the unit gradient of :meth:`excess`.

        Args:
          along: (B, 1) component of the causal part, relative to the mean.
          excess: (B, 1) at the causal part.
          slope: (B, 1) length of the gradient.
        """
        del excess, slope
        return torch.where(along < 0, along, 0)

    def keys(self, labels: Tensor) -> Num[Tensor, " batch"]:
        """Numbers that are equal (up to :attr:`tolerance`) for equal labels, given the labels of the global batch."""
        return labels


def valid_labels(labels: Any, where: Bool[Tensor, " batch"], task: Task) -> Num[Tensor, "batch ..."]:
    """Returns checked labels with 0 in the excluded rows, whose labels are arbitrary; the task is checked first."""
    if not isinstance(task, Task):
        shown = task.__name__ if isinstance(task, type) else repr(task)
        raise ValueError(
            f"task is {shown}, but a task of c3r_jax.torch was expected, such as MultiLabel() or Regression(0.5)."
        )
    labels = task.check_labels(labels, where.shape[0])
    return torch.where(expand(where, labels), labels, 0)


def check_outputs(outputs: Any, least: int) -> Float[Tensor, "batch outputs"]:
    """Returns outputs (B, K) in float32 or wider; ``least`` is the smallest K allowed."""
    outputs = promote(check_float("logits", outputs, 2))
    if outputs.shape[1] < least:
        raise ValueError(
            f"logits have shape {tuple(outputs.shape)}, but at least {least} classes were expected in the last axis."
        )
    return outputs
