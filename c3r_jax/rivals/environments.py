"""Training on several environments: what is asked of a predictor is that it does as well in each of them."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from c3r_jax.core._batch import global_sum, keep


def environment_means(
    x: Float[Array, " batch"],
    environment: Int[Array, " batch"],
    count: int,
    *,
    where: Bool[Array, " batch"],
    axis_name: str | None = None,
) -> tuple[Float[Array, " environments"], Bool[Array, " environments"]]:
    """Means over the rows of each environment in the global batch.

    Args:
      x: (B,) numbers.
      environment: (B,) ids from 0.
      count: E.
      where: (B,) bool, rows that count.
      axis_name: mapped axis over which the batch is split.

    Returns:
      (E,) means, 0 where the batch has no row of an environment, and which environments it has.

    Examples:
      >>> import jax.numpy as jnp
      >>> environment, where = jnp.array([0, 1, 0]), jnp.ones(3, bool)
      >>> print(environment_means(jnp.array([1.0, 5.0, 3.0]), environment, 3, where=where)[0])
      [2. 5. 0.]
    """
    member = (environment[:, None] == jnp.arange(count)[None]) & where[:, None]
    sums = global_sum(jnp.where(member, keep(where, x)[:, None], 0).sum(0), axis_name)
    rows = global_sum(member.astype(x.dtype).sum(0), axis_name)
    return sums / jnp.maximum(rows, 1), rows > 0


def irm_penalty(
    loss: Callable[[Array], Float[Array, " batch"]],
    logits: Float[Array, "batch classes"],
    environment: Int[Array, " batch"],
    count: int,
    *,
    where: Bool[Array, " batch"],
    axis_name: str | None = None,
) -> Float[Array, ""]:
    r"""IRMv1: how far the best scale of the logits is from 1 in any one environment.

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
    one = jnp.ones((), logits.dtype)
    slopes = jax.jvp(lambda scale: loss(scale * logits), (one,), (one,))[1]
    means, exist = environment_means(slopes, environment, count, where=where, axis_name=axis_name)
    return jnp.square(means).sum() / jnp.maximum(exist.sum(), 1)


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
    apart = jnp.where(exist, risks - risks.sum() / number, 0)
    return jnp.square(apart).sum() / number


def group_dro_loss(
    losses: Float[Array, " batch"],
    environment: Int[Array, " batch"],
    weights: Float[Array, " environments"],
    step_size: Float[Array, ""] | float,
    *,
    where: Bool[Array, " batch"],
    axis_name: str | None = None,
) -> tuple[Float[Array, ""], Float[Array, " environments"]]:
    r"""Group DRO: environments weighted by exponentiated gradient ascent, towards the worst one.

    .. math::
       q_e \leftarrow q_e e^{\eta R_e} / \sum_j q_j e^{\eta R_j}, \quad L = \sum_e q_e R_e

    Args:
      losses: (B,).
      environment: (B,) ids.
      weights: (E,) q of the step before, summing to 1.
      step_size: eta.
      where: (B,) bool, rows that count.
      axis_name: mapped axis over which the batch is split.

    Returns:
      L, whose gradient does not go through q, and the new q.

    Examples:
      >>> import jax.numpy as jnp
      >>> losses, environment, q = jnp.array([0.0, jnp.log(3.0)]), jnp.array([0, 1]), jnp.array([0.5, 0.5])
      >>> print(group_dro_loss(losses, environment, q, 1.0, where=jnp.ones(2, bool))[1].round(4))
      [0.25 0.75]

    References:
      S. Sagawa et al., Distributionally robust neural networks for group shifts, 2020, arXiv 1911.08731, algorithm 1.
    """
    risks, _ = environment_means(losses, environment, len(weights), where=where, axis_name=axis_name)
    raised = jax.lax.stop_gradient(jnp.log(weights) + step_size * risks)
    weights = jax.nn.softmax(raised)
    return (weights * risks).sum(), weights
