"""Contrastive pretraining: the label of an example is the example itself, seen through its other modalities."""

from typing import ClassVar

from c3r_jax.tasks.base import TaskSpec


class ContrastiveSpec(TaskSpec):
    """A contrastive loss; labels are ignored.

    Attributes:
      first_offset: initial offset of every logit.
    """

    contrastive = True
    first_offset: ClassVar[float] = 0.0


class SoftmaxSpec(ContrastiveSpec):
    """Each example chooses among all keys of the batch, as in CLIP."""

    name = "softmax"


class SigmoidSpec(ContrastiveSpec):
    """Each pair is classified alone, as in SigLIP; nearly all pairs are negative."""

    name = "sigmoid"
    first_offset = -10.0


SOFTMAX = SoftmaxSpec()
SIGMOID = SigmoidSpec()
