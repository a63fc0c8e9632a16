"""The head of contrastive models: a learned scale and offset of similarities."""

import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from c3r_jax.core.batch import HIGHEST, promote
from c3r_jax.models.twin import TwinNetwork, apply

MAX_SCALE = 100.0  # of similarities of unit vectors, as in CLIP: above it, training becomes unstable


class PairHead(nn.Module):
    """Queries for :func:`match`: scaled z, with the logits' offset as one more column.

    Attributes:
      offset: initial value; far below 0 for "sigmoid", whose pairs are nearly all negative.
    """

    offset: float = 0.0

    @nn.compact
    def __call__(self, z: Float[Array, "batch d"]) -> Float[Array, "batch d+1"]:
        """Returns (B, d + 1)."""
        log_scale = self.param("log_scale", nn.initializers.constant(math.log(10.0)), ())
        offset = self.param("offset", nn.initializers.constant(self.offset), ())
        scale = jnp.exp(jnp.minimum(log_scale, math.log(MAX_SCALE)))
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
    keys = jnp.concatenate([promote(keys), jnp.ones((keys.shape[0], 1))], axis=1)
    return jnp.matmul(apply(model, variables, model.predict, queries), keys.T, precision=HIGHEST)
