"""The scale at which the evidence of one modality alone counts, in a fusion of several."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Num

from c3r_jax.core.batch import Where, global_sum, over, promote, weigh
from c3r_jax.core.tasks.base import Task

POINTS = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the way from the least scale to the largest, in logarithms
MORE = 2.0  # how much surer all modalities together may ask each alone to be
FLAT = 1e-4  # nats: a mean loss that changes less over the way does not depend on the scale


def evidence_scales(
    joint: Float[Array, "batch outputs"],
    alone: Float[Array, "modalities batch outputs"],
    share: Float[Array, " batch"],
    present: Bool[Array, "batch modalities"],
    constant: Float[Array, " outputs"],
    *,
    labels: Num[Array, "batch ..."],
    where: Where,
    axis_name: str | None,
    task: Task,
    loss: Callable[[Array, Array], Float[Array, " batch"]],
) -> Float[Array, "modalities batch 1"]:
    r"""The scale at which the evidence of each modality alone counts; without gradient.

    .. math::
       s_{m,i} = \max\left(c_i,\ c_i^{1 - u_m} / \beta\right), \quad
       u_m = \arg\min_{0 \le u \le 1} \text{mean}_i\, \ell(l_0 + c_i^{1 - u} (l_{m,i} - l_0), y_i), \quad
       \beta = \arg\min_{1 \le \beta \le 2} \text{mean}_i\, \ell(l_0 + \beta (l_i - l_0), y_i)

    over the rows of the global batch with several modalities; c is the share of ``core.alone.alone_in_joint``. At the
    scale at which its loss is least, the loss asks a modality alone for no size, and rows count by how wrong they are.
    At the scale c it would ask for 1/c times the size from the start: until logits are that large all rows count as
    much, and a mean of six modalities learns slowly. At the scale 1 a mean would have to be as sure with one modality
    as with all: together they would not be sure enough, and rare classes would pay for that. So as far as all together
    are too unsure, up to a factor of 2, each alone is asked for more. Each least value is where the slope of the mean
    loss, linear between five points, is 0.

    Args:
      joint: (B, K) outputs l of all modalities.
      alone: (M, B, K) outputs of each alone; anything where absent.
      share: (B,) c.
      present: (B, M) bool.
      constant: (K,) l_0.
      labels: (B, ...).
      where: (B,) bool, rows that count.
      axis_name: mapped axis over which the batch is split.
      task: what outputs mean.
      loss: (outputs, labels) -> (B,).

    Returns:
      (M, B, 1) s.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from c3r_jax.core.tasks.classification import CLASSIFICATION
      >>> labels = jnp.arange(8) % 2
      >>> right = jnp.where(jnp.arange(8) < 6, 1.0, -1.0)  # six rows of eight
      >>> sure = (jax.nn.one_hot(labels, 2) * 2 - 1) * right[:, None] * jnp.log(3) / 2
      >>> settings = {"labels": labels, "where": labels >= 0, "axis_name": None, "task": CLASSIFICATION}
      >>> present, c, zero = jnp.ones((8, 2), bool), jnp.full(8, 0.25), jnp.zeros(2)
      >>> alone = jnp.stack([sure, 2 * sure])  # the second is twice as sure as it should be
      >>> s = evidence_scales(sure, alone, c, present, zero, loss=CLASSIFICATION.loss, **settings)
      >>> print(s[:, 0, 0].round(2))
      [1.  0.5]
    """
    joint, alone = jax.lax.stop_gradient((promote(joint), promote(alone)))
    share, constant = jax.lax.stop_gradient((share[:, None], constant))
    log_share = jnp.log(share)

    def slopes(
        values: Float[Array, "batch outputs"], has: Bool[Array, " batch"], start: Array, end: Array
    ) -> Float[Array, " _"]:
        """Slopes of the summed loss at each of the points, and the sum of the weights of its rows."""
        weights, rows = task.weights(labels), where & has

        def total(losses: Float[Array, " batch"]) -> Float[Array, ""]:
            return weigh(rows, losses if weights is None else weights * losses).sum()

        def at(point: Float[Array, ""]) -> Float[Array, ""]:
            return total(loss(task.at_share(values, constant, jnp.exp(start + point * (end - start))), labels))

        def slope(point: Float[Array, ""]) -> Float[Array, ""]:
            return jax.jvp(at, (point,), (jnp.ones_like(point),))[1]

        found = over(slope, jnp.asarray(POINTS, values.dtype), at_once=task.at_once)
        return jnp.append(found, total(jnp.ones_like(values[:, 0])))

    def slopes_alone(values: Float[Array, "batch outputs"], has: Bool[Array, " batch"]) -> Float[Array, " _"]:
        return slopes(values, has, log_share, jnp.zeros_like(log_share))

    several = present.sum(1) > 1
    together = slopes(joint, several, jnp.zeros_like(share), jnp.full_like(share, math.log(MORE)))
    each = over(slopes_alone, alone, (present & several[:, None]).T, at_once=task.at_once)
    found = jax.lax.stop_gradient(global_sum(jnp.concatenate([together[None], each]), axis_name))
    # Where outputs say nothing the slope is noise around 0: then one modality counts fully, and all are sure enough.
    flat = FLAT * found[:, -1:]
    more = MORE ** first_zero(found[:1, :-1] + flat[:1])[:, None, None]
    u = first_zero(found[1:, :-1] - flat[1:])[:, None, None]
    return jnp.maximum(share[None], jnp.exp((1 - u) * log_share[None]) / more)


def first_zero(slopes: Float[Array, "functions points"]) -> Float[Array, " functions"]:
    """Where slopes at :data:`POINTS`, linear between them, first are no longer negative; the last point if nowhere."""
    points = jnp.asarray(POINTS, slopes.dtype)
    up = slopes >= 0
    after = jnp.maximum(jnp.argmax(up, axis=1), 1)
    low, high = (jnp.take_along_axis(slopes, at[:, None], 1)[:, 0] for at in (after - 1, after))
    rise = jnp.where(high > low, high - low, 1)
    between = points[after - 1] + (points[after] - points[after - 1]) * jnp.clip(-low / rise, 0, 1)
    return jnp.where(up[:, 0], points[0], jnp.where(up.any(1), between, points[-1]))
