"""The head of contrastive models: a learned scale and offset of similarities."""

import functools
import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from c3r_jax.core.batch import HIGHEST, promote
from c3r_jax.models.twin import TwinNetwork, apply

MAX_SCALE = 100.0  # of similarities of unit vectors, as in CLIP: above it, training becomes unstable


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def at_most(x: Float[Array, ""], limit: float) -> Float[Array, ""]:
    """The smaller of x and the limit; beyond it a loss can still ask for less, but not for more.

    With the gradient of a minimum, which is 0 there, a parameter that once overshoots would never come back.

    Examples:
      >>> import jax
      >>> [float(jax.grad(lambda x: sign * at_most(x, 1.0))(3.0)) for sign in (1, -1)]
      [1.0, 0.0]
    """
    return jnp.minimum(x, limit)


def _at_most_forward(x: Float[Array, ""], limit: float) -> tuple[Array, Array]:
    return at_most(x, limit), x > limit


def _at_most_backward(limit: float, beyond: Array, slope: Array) -> tuple[Array]:
    del limit
    return (jnp.where(beyond & (slope < 0), 0, slope),)


at_most.defvjp(_at_most_forward, _at_most_backward)


class PairHead(nn.Module):
    """Queries for :func:`match`: scaled z, with the logits' offset as one more column; both are learned.

    Attributes:
      scale: initial factor of similarities, the inverse of the temperature; at most :data:`MAX_SCALE` is used.
      offset: initial value; far below 0 for "sigmoid", whose pairs are nearly all negative.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> head = PairHead(scale=10.0, offset=-10.0)
      >>> rows, _ = head.init_with_output(jax.random.key(0), jnp.array([[0.6, 0.8]]))
      >>> print(rows.round(4))
      [[  6.   8. -10.]]
    """

    scale: float = 10.0
    offset: float = 0.0

    @nn.compact
    def __call__(self, z: Float[Array, "batch d"]) -> Float[Array, "batch d+1"]:
        """Returns (B, d + 1)."""
        log_scale = self.param("log_scale", nn.initializers.constant(math.log(self.scale)), ())
        offset = self.param("offset", nn.initializers.constant(self.offset), ())
        scale = jnp.exp(at_most(log_scale, math.log(MAX_SCALE)))
        return jnp.concatenate([scale * promote(z), jnp.full((z.shape[0], 1), offset)], axis=1)


def match(
    model: TwinNetwork, variables: Mapping[str, Any], queries: Float[Array, "batch d"], keys: Float[Array, "keys d"]
) -> Float[Array, "batch keys"]:
    """Logits of queries against unit keys, from the model's :class:`PairHead`.

    Args:
      model: a twin network whose head is a :class:`PairHead`.
      variables: its variables.
      queries: (B, d).
      keys: (N, d).

    Returns:
      (B, N) scale * <query, key> + offset.
    """
    rows = apply(model, variables, model.predict, queries)
    # The offset is added, not multiplied with a column of ones: widths stay those that matrix units are made for.
    return jnp.matmul(rows[:, :-1], promote(keys).T, precision=HIGHEST) + rows[:, -1:]
