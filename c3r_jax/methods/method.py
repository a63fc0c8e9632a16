"""A training method as a configuration value: which terms count, and whether modalities are dropped."""

import dataclasses
from typing import NamedTuple

from c3r_jax.core.config import C3RConfig
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

    def without_task(self) -> "Method":
        """This method without the task's loss, for a rival that replaces it."""
        return self._replace(c3r=dataclasses.replace(self.c3r, w_task=0.0))

    @property
    def spec(self) -> TaskSpec:
        """The task's rules for labels, outputs and scores."""
        return named(self.task)

    @property
    def contrastive(self) -> bool:
        """Whether an example's modalities are matched with each other instead of predicting labels."""
        return self.spec.contrastive
