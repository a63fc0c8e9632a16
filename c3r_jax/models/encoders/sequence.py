"""Feature sequences: stretches of frames through transformer or mixer blocks."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from c3r_jax.models.encoders.blocks import ExampleDropout, through_blocks
from c3r_jax.parallel.rows import pinned


class SequenceEncoder(nn.Module):
    """Stretches of a feature sequence through transformer or mixer blocks, averaged, projected to ``dim``.

    Frames of zeros alone are padding: nothing depends on how they got there, and a stretch of nothing else is no
    token. (The pipeline's standardisation leaves them zero.)

    Attributes:
      dim: width of the representation.
      patch: frames per token; the last one is filled up with zeros.
      width: width of a token.
      depth: number of blocks.
      block: "transformer" or "mixer".
      num_heads: heads of a transformer block.
      mlp_ratio: hidden width of a block's MLP over the token width.
      dropout: rate on the averaged token.
      remat: recompute the blocks' activations for the gradient: less memory, a third more work.
      scan_layers: compile one block and loop over them, see :func:`layers_in_order`.
    """

    dim: int
    patch: int = 4
    width: int = 64
    depth: int = 2
    block: str = "transformer"
    num_heads: int = 4
    mlp_ratio: int = 2
    dropout: float = 0.0
    remat: bool = False
    scan_layers: bool = False
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch time features"], keys: PRNGKeyArray | None = None
    ) -> Float[Array, "batch dim"]:
        """Returns representations; ``keys`` (B,) turn dropout on."""
        if x.ndim != 3 or not jnp.issubdtype(x.dtype, jnp.floating):
            raise ValueError(
                f"a sequence has shape {x.shape} and dtype {x.dtype}: expected floats (B, time, features)."
            )
        if self.patch < 1:
            raise ValueError(f"patch is {self.patch}: expected at least 1 frame per token.")
        batch, time, features = x.shape
        x = jnp.pad(x, ((0, 0), (0, -time % self.patch), (0, 0)))
        x = x.reshape(batch, -1, self.patch * features)
        mask = (x != 0).any(-1)
        x = nn.Dense(self.width, dtype=self.dtype, name="embed")(x.astype(self.dtype))
        x = x + self.param("position", nn.initializers.normal(0.02), x.shape[1:]).astype(self.dtype)[None]
        x = through_blocks(
            self,
            pinned(x),
            block=self.block,
            depth=self.depth,
            num_heads=self.num_heads,
            mlp_ratio=self.mlp_ratio,
            remat=self.remat,
            scan=self.scan_layers,
            dtype=self.dtype,
            mask=mask,
        )
        x = jnp.where(mask[..., None], nn.LayerNorm(dtype=self.dtype)(x), jnp.zeros((), self.dtype))
        x = x.sum(1) / jnp.maximum(mask.sum(1, keepdims=True), 1).astype(x.dtype)
        return nn.Dense(self.dim, dtype=self.dtype, name="project")(ExampleDropout(self.dropout)(x, keys))
