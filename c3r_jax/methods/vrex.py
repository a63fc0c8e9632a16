"""V-REx: the environments' risks must be equal."""

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from c3r_jax.methods.encoded_batch import EncodedBatch
from c3r_jax.methods.environments import PenaltyRival, environment_means


def vrex_penalty(
    losses: Float[Array, " batch"],
    environment: Int[Array, " batch"],
    count: int,
    *,
    where: Bool[Array, " batch"],
    axis_name: str | None = None,
) -> Float[Array, ""]:
    r"""V-REx: the variance of the environments' risks, :math:`\text{mean}_e (R_e - \bar R)^2`.

    Args:
      losses: (B,).
      environment: (B,) ids.
      count: E.
      where: (B,) bool, rows that count.
      axis_name: mapped axis over which the batch is split.

    Returns:
      The variance over the environments of the batch.

    Examples:
      >>> import jax.numpy as jnp
      >>> losses, environment = jnp.array([1.0, 1.0, 3.0]), jnp.array([0, 0, 1])
      >>> vrex_penalty(losses, environment, 2, where=jnp.ones(3, bool))
      Array(1., dtype=float32)

    References:
      D. Krueger et al., Out-of-distribution generalization via risk extrapolation, 2021, arXiv 2003.00688.
    """
    risks, exist = environment_means(losses, environment, count, where=where, axis_name=axis_name)
    number = jnp.maximum(exist.sum(), 1)
    deviations = jnp.where(exist, risks - risks.sum() / number, 0)
    return jnp.square(deviations).sum() / number


@dataclass(frozen=True)
class VREx(PenaltyRival):
    """Adds :func:`vrex_penalty` to the loss."""

    name: ClassVar[str] = "vrex"

    def penalty(
        self, batch: EncodedBatch, logits: Float[Array, "batch classes"], environment: Int[Array, " batch"]
    ) -> Float[Array, ""]:
        """The variance of the risks."""
        return vrex_penalty(batch.losses(logits), environment, self.environments, **batch.masks)
