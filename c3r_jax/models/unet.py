"""3-D U-Net: a volume to one vector, or to a map with one vector per voxel that has seen the whole of it."""

import functools

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from c3r_jax.models.blocks import ExampleDropout
from c3r_jax.models.pretrained.layers import ExampleNorm
from c3r_jax.models.spacetime import checked_volume


class ConvBlock(nn.Module):
    """Two 3 x 3 x 3 convolutions, each followed by a norm of one example and a ReLU.

    Attributes:
      width: channels.
      stride: of the first convolution; 2 halves every side, rounded up.
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

    Level l has sides of ceil(n / 2^l) voxels and ``width`` 2^l channels, at most ``max_width``. The way up doubles a
    map by a transposed convolution, cuts it to the size of the way down's map (so volumes of any size do) and puts
    the two side by side. Norms are of one example (:class:`ExampleNorm`).

    Attributes:
      dim: width of the representation.
      width: channels at full resolution.
      depth: levels below full resolution.
      dropout: rate before the projection.
      dense: return a vector per voxel, for segmentation; else the mean over the lowest level, which has no decoder.
      remat: compute the levels' activations again for the gradient: less memory, a third more work.
      max_width: channels at most.

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
        """Returns (B, dim), or (B, D, H, W, dim) if ``dense``; ``keys`` (B,) switch dropout on."""
        x = checked_volume(x).astype(self.dtype)
        widths = [min(self.width * 2**level, self.max_width) for level in range(self.depth + 1)]
        block = functools.partial(nn.remat(ConvBlock) if self.remat else ConvBlock, dtype=self.dtype)
        passed = []
        for level, width in enumerate(widths):
            x = block(width, stride=2 if level else 1, name=f"down_{level}")(x)
            passed.append(x)
        if self.dense:
            for level in reversed(range(self.depth)):
                x = nn.ConvTranspose(widths[level], (2, 2, 2), (2, 2, 2), dtype=self.dtype, name=f"double_{level}")(x)
                depth, height, width = passed[level].shape[1:4]
                x = jnp.concatenate([passed[level], x[:, :depth, :height, :width]], axis=-1)
                x = block(widths[level], name=f"up_{level}")(x)
        else:
            x = x.mean((1, 2, 3))
        return nn.Dense(self.dim, dtype=self.dtype, name="project")(ExampleDropout(self.dropout)(x, keys))
