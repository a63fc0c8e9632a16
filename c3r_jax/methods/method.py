"""A training method as a configuration value: which terms count, and whether modalities are dropped."""

import dataclasses
from typing import Any, NamedTuple

from c3r_jax.core.config import C3RConfig
from c3r_jax.core.gate import at_most_one, is_zero
from c3r_jax.core.tasks.base import Task
from c3r_jax.core.tasks.classification import CLASSIFICATION
from c3r_jax.methods.rival import NO_RIVAL, Rival
from c3r_jax.tasks.base import TaskSpec
from c3r_jax.tasks.registry import named

METHODS = ("plain", "modality_dropout", "c3r")


class Method(NamedTuple):
    """A training method, built by :func:`c3r_jax.methods.build.make_method`.

    Attributes:
      name: "plain", "dropout", "c3r" or "c3r+dropout", after the name of a rival, as in tables.
      regularised: whether C3R terms are trained on.
      c3r: weights and modes; the instrument is also measured by methods that do not train on it.
      dropout_rate: share of training examples that lose some of their modalities.
      task: name of the task, see :attr:`spec`.
      target: what outputs and labels of a labelled task mean.
      rival: a rival to train with, alone or combined with C3R's terms.
      official: train on the public PyTorch code's objective instead, see :func:`official_compat_loss`; the model's
        fusion is then :class:`OfficialFusion`.
    """

    name: str
    regularised: bool
    c3r: C3RConfig
    dropout_rate: float
    task: str = CLASSIFICATION.spec.name
    target: Task = CLASSIFICATION
    official: bool = False
    rival: Rival = NO_RIVAL

    @property
    def own_share(self) -> Any:
        """The share of the task term that a rival's own task loss takes.

        Without C3R's terms it is all there is. With them it takes the plain half of the task term; the other half
        trains modalities alone and beyond the experts, without which ``mixup`` with C3R loses accuracy on emoji. A task
        term that has neither of these is plain training, and is replaced whole, as it is at strength 0.
        """
        more_than_plain = self.c3r.subsets or not is_zero(self.c3r.expert)
        return 1 - 0.5 * at_most_one(self.c3r.strength) if self.regularised and more_than_plain else 1.0

    def beside_own_loss(self) -> "Method":
        """This method with what is left of its task term, for a rival that has a task loss of its own."""
        left = 1 - self.own_share
        return self._replace(c3r=dataclasses.replace(self.c3r, w_task=0.0 if is_zero(left) else left * self.c3r.w_task))

    @property
    def spec(self) -> TaskSpec:
        """The task's rules for labels, outputs and scores."""
        return named(self.task)

    @property
    def contrastive(self) -> bool:
        """Whether an example's modalities are matched with each other instead of predicting labels."""
        return self.spec.contrastive
