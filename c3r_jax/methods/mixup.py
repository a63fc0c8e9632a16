"""Mixup: training on weighted means of pairs of examples and of their labels."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Num, PRNGKeyArray

from c3r_jax.core.batch import all_rows, first_row, global_mean
from c3r_jax.core.counterfactual import Predict
from c3r_jax.core.instruments import Features, Fuse
from c3r_jax.methods.encoded_batch import EncodedBatch
from c3r_jax.methods.rival import ONE_OUTPUT, Rival, RivalTerms
from c3r_jax.settings.fields import setting


def mixup_loss(
    predict: Predict,
    fuse: Fuse,
    features: Features,
    labels: Num[Array, "batch ..."],
    loss: Callable[[Array, Array], Float[Array, " batch"]],
    *,
    alpha: Float[Array, ""] | float,
    key: PRNGKeyArray,
    present: Bool[Array, "batch modalities"],
    where: Bool[Array, " batch"],
    axis_name: str | None = None,
) -> Float[Array, ""]:
    r"""The loss at mixed examples with mixed labels.

    .. math::
       \tilde h_i = \lambda h_i + (1 - \lambda) h_j, \quad \lambda \sim \text{Beta}(\alpha, \alpha), \quad
       L = \lambda\, \ell(\tilde h, y_i) + (1 - \lambda)\, \ell(\tilde h, y_j)

    j is a permutation of the global batch. Representations are mixed, not inputs, so that images, texts and signals
    are mixed in the same way (manifold mixup at the encoders' outputs). A pair uses the modalities that both examples
    have; a pair with none in common does not count.

    Args:
      predict: z (B, d) -> outputs (B, K).
      fuse: ({name: (B, d_name)}, present (B, M)) -> z.
      features: {name: (B, d_name)}, zero where absent.
      labels: (B, ...).
      loss: (outputs, labels) -> (B,).
      alpha: parameter of the Beta distribution.
      key: PRNG key of the draw and the permutation, the same on every device.
      present: (B, M) bool.
      where: (B,) bool, rows that count.
      axis_name: mapped axis over which the batch is split; partners are gathered over it.

    Returns:
      The mean over the global batch.

    References:
      H. Zhang et al., mixup: beyond empirical risk minimization, 2018, arXiv 1710.09412.
      V. Verma et al., Manifold mixup, 2019, arXiv 1806.05236.
    """
    draw_key, order_key = jax.random.split(key)
    share = jax.random.beta(draw_key, alpha, alpha)
    columns = all_rows((dict(features), labels, present, where), axis_name)
    order = jax.random.permutation(order_key, len(columns[3]))
    partner = order[first_row(len(where), axis_name) + jnp.arange(len(where))]
    other, other_labels, other_present, other_where = jax.tree.map(lambda x: x[partner], columns)
    mixed = {
        name: share.astype(h.dtype) * h + (1 - share).astype(h.dtype) * other[name] for name, h in features.items()
    }
    both = present & other_present
    outputs = predict(fuse(mixed, both))
    losses = share * loss(outputs, labels) + (1 - share) * loss(outputs, other_labels)
    return global_mean(losses, where & other_where & both.any(1), axis_name)


@dataclass(frozen=True)
class Mixup(Rival):
    """Replaces the task's loss by :func:`mixup_loss`.

    Raises:
      ValueError: on strength 0, which is not a valid Beta parameter.
    """

    name: ClassVar[str] = "mixup"
    tasks: ClassVar[tuple[str, ...]] = ONE_OUTPUT

    strength: float = setting(1.0, "alpha of the Beta distribution of the shares, > 0", least=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.strength, Tracer) and self.strength == 0:
            raise ValueError("Rival.strength is 0, but mixup draws from Beta(strength, strength): use name 'none'.")

    def terms(self, batch: EncodedBatch, *, step: Array, state: Mapping[str, Array], key: PRNGKeyArray) -> RivalTerms:
        """See :meth:`Rival.terms`."""
        del step, state
        task = mixup_loss(
            batch.predict,
            batch.fuse,
            batch.h,
            batch.labels,
            batch.loss,
            alpha=self.strength,
            key=key,
            present=batch.present,
            **batch.masks,
        )
        return RivalTerms(task, jnp.zeros(()))
