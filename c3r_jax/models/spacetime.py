"""Encoders of what has more axes than an image: sequences, videos and volumes."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, UInt8

from c3r_jax.models.blocks import ExampleDropout, through_blocks


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
      remat: compute the blocks' activations again for the gradient: less memory, a third more work.
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
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch time features"], keys: PRNGKeyArray | None = None
    ) -> Float[Array, "batch dim"]:
        """Returns representations; ``keys`` (B,) switch dropout on."""
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
            x,
            block=self.block,
            depth=self.depth,
            num_heads=self.num_heads,
            mlp_ratio=self.mlp_ratio,
            remat=self.remat,
            dtype=self.dtype,
            mask=mask,
        )
        x = jnp.where(mask[..., None], nn.LayerNorm(dtype=self.dtype)(x), jnp.zeros((), self.dtype))
        x = x.sum(1) / jnp.maximum(mask.sum(1, keepdims=True), 1).astype(x.dtype)
        return nn.Dense(self.dim, dtype=self.dtype, name="project")(ExampleDropout(self.dropout)(x, keys))


class VideoEncoder(nn.Module):
    """An image encoder on each frame, averaged over the frames.

    Attributes:
      frame: the encoder of images; it drops other units in every frame.
    """

    frame: nn.Module

    def __call__(
        self, frames: UInt8[Array, "batch frames height width channels"], keys: PRNGKeyArray | None = None
    ) -> Float[Array, "batch dim"]:
        """Returns representations; ``keys`` (B,) switch dropout on."""
        if frames.ndim != 5:
            raise ValueError(f"a video has shape {frames.shape}: expected (B, frames, height, width, channels).")
        batch, count = frames.shape[:2]
        if keys is not None:
            keys = jax.vmap(lambda key: jax.random.split(key, count))(keys).reshape(-1)
        h = self.frame(frames.reshape(-1, *frames.shape[2:]), keys)
        return h.reshape(batch, count, *h.shape[1:]).mean(1)


def checked_volume(x: Array) -> Float[Array, "batch depth height width channels"]:
    """A volume (B, D, H, W) or (B, D, H, W, C) with an axis of channels."""
    if x.ndim not in (4, 5) or not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(
            f"a volume has shape {x.shape} and dtype {x.dtype}: expected floats (B, D, H, W) or (B, D, H, W, C)."
        )
    return x if x.ndim == 5 else x[..., None]


class ResidualBlock(nn.Module):
    """Two pre-normalised 3 x 3 x 3 convolutions and the input; every norm is of one example.

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

    Block i has dilation 2^i, so that few blocks see far at full resolution.

    Attributes:
      dim: width of the representation.
      width: channels of the convolutions.
      depth: number of residual blocks.
      stride: of the first convolution; a map of voxels always has 1.
      dropout: rate before the projection.
      dense: return a vector per voxel, for segmentation.
      remat: compute the blocks' activations again for the gradient: less memory, a third more work.
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
        """Returns (B, dim), or (B, D, H, W, dim) if ``dense``; ``keys`` (B,) switch dropout on."""
        x = checked_volume(x).astype(self.dtype)
        stride = 1 if self.dense else self.stride
        x = nn.Conv(self.width, (3, 3, 3), strides=stride, dtype=self.dtype, name="stem")(x)
        block = nn.remat(ResidualBlock) if self.remat else ResidualBlock
        for i in range(self.depth):
            x = block(dilation=2**i, dtype=self.dtype, name=f"ResidualBlock_{i}")(x)
        x = nn.relu(nn.GroupNorm(num_groups=1, dtype=self.dtype)(x))
        x = x if self.dense else x.mean((1, 2, 3))
        return nn.Dense(self.dim, dtype=self.dtype, name="project")(ExampleDropout(self.dropout)(x, keys))
