"""Invariant risk minimisation (IRM): the same classifier must be the best one in every environment."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from c3r_jax.methods.encoded_batch import EncodedBatch
from c3r_jax.methods.environments import PenaltyRival, environment_means


def irm_penalty(
    loss: Callable[[Array], Float[Array, " batch"]],
    logits: Float[Array, "batch classes"],
    environment: Int[Array, " batch"],
    count: int,
    *,
    where: Bool[Array, " batch"],
    axis_name: str | None = None,
) -> Float[Array, ""]:
    r"""IRMv1: the squared gradient of each environment's risk with respect to the scale of the logits.

    .. math::
       \text{mean}_e \left( \frac{d}{dw} R_e(w \cdot l) \Big|_{w=1} \right)^2

    Args:
      loss: logits (B, K) -> losses (B,) of the same rows.
      logits: (B, K).
      environment: (B,) ids.
      count: E.
      where: (B,) bool, rows that count.
      axis_name: mapped axis over which the batch is split.

    Returns:
      The mean over the environments of the batch.

    References:
      M. Arjovsky et al., Invariant risk minimization, 2019, arXiv 1907.02893.
    """
    scale = jnp.ones((), logits.dtype)
    slopes = jax.jvp(lambda w: loss(w * logits), (scale,), (scale,))[1]
    means, exist = environment_means(slopes, environment, count, where=where, axis_name=axis_name)
    return jnp.square(means).sum() / jnp.maximum(exist.sum(), 1)


@dataclass(frozen=True)
class IRM(PenaltyRival):
    """Adds :func:`irm_penalty` to the loss."""

    name: ClassVar[str] = "irm"

    def penalty(
        self, batch: EncodedBatch, logits: Float[Array, "batch classes"], environment: Int[Array, " batch"]
    ) -> Float[Array, ""]:
        """The mean of the squared slopes."""
        return irm_penalty(batch.losses, logits, environment, self.environments, **batch.masks)
