"""Images: patches and mixer or transformer blocks."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray, UInt8

from c3r_jax.models.encoders.blocks import ExampleDropout, patches, through_blocks
from c3r_jax.parallel.rows import pinned


class ImageEncoder(nn.Module):
    """Patches of uint8 images through mixer or transformer blocks, averaged, projected to ``dim``.

    Attributes:
      dim: width of the representation.
      patch: side of a patch in pixels.
      width: width of a token.
      depth: number of blocks.
      block: "mixer" or "transformer".
      num_heads: heads of a transformer block.
      mlp_ratio: hidden width of a block's MLP over the token width.
      dropout: rate on the averaged token.
      token_dropout: share of patches that a training example loses.
      remat: recompute the blocks' activations for the gradient: less memory, a third more work.
      scan_layers: compile one block and loop over them, see :func:`layers_in_order`.
    """

    dim: int
    patch: int = 4
    width: int = 64
    depth: int = 2
    block: str = "mixer"
    num_heads: int = 4
    mlp_ratio: int = 2
    dropout: float = 0.0
    token_dropout: float = 0.0
    remat: bool = False
    scan_layers: bool = False
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, images: UInt8[Array, "batch height width 3"], keys: PRNGKeyArray | None = None) -> Array:
        """Returns representations (B, dim); ``keys`` (B,) turn dropout on."""
        if images.ndim != 4 or images.dtype != jnp.uint8:
            raise ValueError(f"images have shape {images.shape} and dtype {images.dtype}: expected uint8 (B, H, W, C).")
        x = patches((images.astype(self.dtype) - 127.5) / 63.75, self.patch)
        x = nn.Dense(self.width, dtype=self.dtype, name="embed")(x)
        if keys is not None and self.token_dropout:
            lost = jax.vmap(
                lambda key: jax.random.bernoulli(jax.random.fold_in(key, 1), self.token_dropout, x.shape[1:2])
            )
            x = jnp.where(lost(keys)[..., None], jnp.zeros((), x.dtype), x)
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
        )
        x = ExampleDropout(self.dropout)(nn.LayerNorm(dtype=self.dtype)(x).mean(1), keys)
        return nn.Dense(self.dim, dtype=self.dtype, name="project")(x)
