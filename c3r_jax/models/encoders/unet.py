"""3-D U-Net: a volume to one vector, or to a map with one vector per voxel with global context."""

import functools

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from c3r_jax.models.encoders.blocks import ExampleDropout, ExampleNorm
from c3r_jax.models.encoders.volume import checked_volume


class ConvBlock(nn.Module):
    """Two 3 x 3 x 3 convolutions, each followed by a per-example norm and a ReLU.

    Attributes:
      width: channels.
      stride: stride of the first convolution; 2 halves every side, rounded up.
    """

    width: int
    stride: int = 1
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "batch depth height width channels"]) -> Array:
        """Returns the next map."""
        for i, stride in enumerate((self.stride, 1)):
            x = nn.Conv(self.width, (3, 3, 3), stride, use_bias=False, dtype=self.dtype, name=f"conv_{i}")(x)
            x = nn.relu(ExampleNorm(groups=8, dtype=self.dtype, name=f"norm_{i}")(x))
        return x


class UNetEncoder(nn.Module):
    """Encoder and decoder of 3-D convolutions, joined level by level; channels double where sides are halved.

    Level l has sides of ceil(n / 2^l) voxels and ``width`` 2^l channels, at most ``max_width``. The decoder doubles a
    map by a transposed convolution, crops it to the size of the encoder's map (so that any volume size works) and
    concatenates the two. Norms are per example (:class:`ExampleNorm`).

    Attributes:
      dim: width of the representation.
      width: channels at full resolution.
      depth: levels below full resolution.
      dropout: rate before the projection.
      dense: return a vector per voxel, for segmentation; else the mean over the lowest level, which has no decoder.
      remat: recompute the levels' activations for the gradient: less memory, a third more work.
      max_width: largest number of channels.

    References:
      O. Cicek et al., 3D U-Net: learning dense volumetric segmentation from sparse annotation, 2016.
    """

    dim: int
    width: int = 16
    depth: int = 3
    dropout: float = 0.0
    dense: bool = False
    remat: bool = False
    max_width: int = 320
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "batch depth height width ..."], keys: PRNGKeyArray | None = None) -> Array:
        """Returns (B, dim), or (B, D, H, W, dim) if ``dense``; ``keys`` (B,) turn dropout on."""
        x = checked_volume(x).astype(self.dtype)
        widths = [min(self.width * 2**level, self.max_width) for level in range(self.depth + 1)]
        block = functools.partial(nn.remat(ConvBlock) if self.remat else ConvBlock, dtype=self.dtype)
        skips = []
        for level, width in enumerate(widths):
            x = block(width, stride=2 if level else 1, name=f"down_{level}")(x)
            skips.append(x)
        if self.dense:
            for level in reversed(range(self.depth)):
                x = nn.ConvTranspose(widths[level], (2, 2, 2), (2, 2, 2), dtype=self.dtype, name=f"double_{level}")(x)
                depth, height, width = skips[level].shape[1:4]
                x = jnp.concatenate([skips[level], x[:, :depth, :height, :width]], axis=-1)
                x = block(widths[level], name=f"up_{level}")(x)
        else:
            x = x.mean((1, 2, 3))
        return nn.Dense(self.dim, dtype=self.dtype, name="project")(ExampleDropout(self.dropout)(x, keys))
