"""Contrastive pretraining: the label of an example is the example itself, seen through its other modalities."""

from typing import ClassVar

from c3r_jax.tasks.base import TaskSpec


class ContrastiveSpec(TaskSpec):
    """A contrastive loss; labels are ignored.

    Attributes:
      first_scale: initial factor of every similarity.
      first_offset: initial offset of every logit.
    """

    contrastive = True
    scores = ("accuracy", "retrieval", "zero_shot")
    first_scale: ClassVar[float]
    first_offset: ClassVar[float] = 0.0


class SoftmaxSpec(ContrastiveSpec):
    """Each example chooses among all keys of the batch, as in CLIP, with its first temperature of .07."""

    name = "softmax"
    first_scale = 1 / 0.07


class SigmoidSpec(ContrastiveSpec):
    """Each pair is classified alone, as in SigLIP, with its first scale and offset; nearly all pairs are negative."""

    name = "sigmoid"
    first_scale = 10.0
    first_offset = -10.0


SOFTMAX = SoftmaxSpec()
SIGMOID = SigmoidSpec()
