"""Volumes: residual blocks of dilated convolutions."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from c3r_jax.models.encoders.blocks import ExampleDropout


def checked_volume(x: Array) -> Float[Array, "batch depth height width channels"]:
    """A volume (B, D, H, W) or (B, D, H, W, C) with an axis of channels."""
    if x.ndim not in (4, 5) or not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(
            f"a volume has shape {x.shape} and dtype {x.dtype}: expected floats (B, D, H, W) or (B, D, H, W, C)."
        )
    return x if x.ndim == 5 else x[..., None]


class ResidualBlock(nn.Module):
    """Two pre-normalised 3 x 3 x 3 convolutions plus the input; norms are per example.

    Attributes:
      dilation: voxels from one tap of the kernel to the next.
    """

    dilation: int = 1
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "batch depth height width dim"]) -> Array:
        """Returns an array of the same shape."""
        y = x
        for _ in range(2):
            y = nn.relu(nn.GroupNorm(num_groups=1, dtype=self.dtype)(y))
            y = nn.Conv(x.shape[-1], (3, 3, 3), kernel_dilation=self.dilation, dtype=self.dtype)(y)
        return x + y


class VolumeEncoder(nn.Module):
    """A small residual network of 3-D convolutions: one vector per volume, or one per voxel.

    Block i has dilation 2^i, so that few blocks have a large receptive field at full resolution.

    Attributes:
      dim: width of the representation.
      width: channels of the convolutions.
      depth: number of residual blocks.
      stride: stride of the first convolution; always 1 for maps of voxels.
      dropout: rate before the projection.
      dense: return a vector per voxel, for segmentation.
      remat: recompute the blocks' activations for the gradient: less memory, a third more work.
    """

    dim: int
    width: int = 16
    depth: int = 3
    stride: int = 2
    dropout: float = 0.0
    dense: bool = False
    remat: bool = False
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "batch depth height width ..."], keys: PRNGKeyArray | None = None) -> Array:
        """Returns (B, dim), or (B, D, H, W, dim) if ``dense``; ``keys`` (B,) turn dropout on."""
        x = checked_volume(x).astype(self.dtype)
        stride = 1 if self.dense else self.stride
        x = nn.Conv(self.width, (3, 3, 3), strides=stride, dtype=self.dtype, name="stem")(x)
        block = nn.remat(ResidualBlock) if self.remat else ResidualBlock
        for i in range(self.depth):
            x = block(dilation=2**i, dtype=self.dtype, name=f"ResidualBlock_{i}")(x)
        x = nn.relu(nn.GroupNorm(num_groups=1, dtype=self.dtype)(x))
        x = x if self.dense else x.mean((1, 2, 3))
        return nn.Dense(self.dim, dtype=self.dtype, name="project")(ExampleDropout(self.dropout)(x, keys))
