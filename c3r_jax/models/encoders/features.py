"""Feature vectors: a multi-layer perceptron."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from c3r_jax.models.encoders.blocks import ExampleDropout


class FeatureEncoder(nn.Module):
    """A multi-layer perceptron over a feature vector.

    Attributes:
      dim: width of the representation.
      hidden: widths of the hidden layers.
      dropout: rate on the last hidden layer.
    """

    dim: int
    hidden: Sequence[int] = (64,)
    dropout: float = 0.0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "batch features"], keys: PRNGKeyArray | None = None) -> Array:
        """Returns representations (B, dim); ``keys`` (B,) turn dropout on."""
        if x.ndim != 2 or not jnp.issubdtype(x.dtype, jnp.floating):
            raise ValueError(f"features have shape {x.shape} and dtype {x.dtype}: expected floats (B, features).")
        x = x.astype(self.dtype)
        for width in self.hidden:
            x = nn.relu(nn.Dense(width, dtype=self.dtype)(x))
        return nn.Dense(self.dim, dtype=self.dtype, name="project")(ExampleDropout(self.dropout)(x, keys))
