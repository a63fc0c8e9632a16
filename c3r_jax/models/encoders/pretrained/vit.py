"""ViT: an image to one vector per patch and one for the image."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from c3r_jax.models.encoders.layers_in_order import layers_in_order
from c3r_jax.models.encoders.pretrained.bert import TransformerSize
from c3r_jax.models.encoders.pretrained.layers import EncoderLayer
from c3r_jax.parallel.rows import pinned

VIT_SIZES = {
    "vit_s16": TransformerSize(384, 12, 6, 1536),
    "vit_b16": TransformerSize(768, 12, 12, 3072),
}


class ViT(nn.Module):
    """The vision transformer's encoder, with norms before each part and one at the end.

    Attributes:
      size: the transformer's size.
      patch: side of a patch in pixels.
      remat: recompute a layer's activations for the gradient.
      scan_layers: compile one layer and loop over them, see :func:`layers_in_order`.

    References:
      A. Dosovitskiy et al., An image is worth 16x16 words, 2021.
    """

    size: TransformerSize
    patch: int = 16
    remat: bool = False
    scan_layers: bool = False
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, images: Float[Array, "batch height width 3"]) -> Float[Array, "batch tokens dim"]:
        """Returns the tokens after the last norm, starting with the class token."""
        size, side = self.size, (self.patch, self.patch)
        if images.shape[1] % self.patch or images.shape[2] % self.patch:
            raise ValueError(f"images have shape {images.shape}: expected sides that the patch ({self.patch}) divides.")
        x = nn.Conv(size.width, side, strides=side, padding="VALID", dtype=self.dtype, name="patch_embeddings")(images)
        x = x.reshape(x.shape[0], -1, size.width)
        first = self.param("cls_token", nn.initializers.zeros, (1, 1, size.width)).astype(self.dtype)
        x = jnp.concatenate([jnp.broadcast_to(first, (x.shape[0], 1, size.width)), x], axis=1)
        shape = (1, *x.shape[1:])
        x = x + self.param("position_embeddings", nn.initializers.normal(0.02), shape).astype(self.dtype)
        sizes: dict[str, Any] = {
            "num_heads": size.num_heads,
            "mlp_dim": size.mlp_dim,
            "norm_first": True,
            "dtype": self.dtype,
        }
        ways: dict[str, Any] = {"remat": self.remat, "scan": self.scan_layers}
        x = layers_in_order(self, EncoderLayer, sizes, "layer", size.depth, pinned(x), **ways)
        return nn.LayerNorm(epsilon=1e-12, dtype=self.dtype, name="norm")(x)
