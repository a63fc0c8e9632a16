"""What encoders are built of: dropout by example, transformer and mixer blocks, patches."""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

BLOCKS = ("mixer", "transformer")


class ExampleDropout(nn.Module):
    """Dropout drawn from one key per example, so that a batch split over devices drops exactly the same units.

    Attributes:
      rate: share of units set to zero; the others are scaled by 1 / (1 - rate).
    """

    rate: float

    @nn.compact
    def __call__(self, x: Float[Array, "batch ..."], keys: PRNGKeyArray | None) -> Float[Array, "batch ..."]:
        """Drops units where ``keys`` (B,) are given; without keys (evaluation) x is returned."""
        if keys is None or self.rate == 0:
            return x
        kept = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - self.rate, x.shape[1:]))(keys)
        return jnp.where(kept, x / (1 - self.rate), jnp.zeros((), x.dtype))


class Intervener(nn.Module):
    """A hidden layer and a linear one, which propose a change of z."""

    @nn.compact
    def __call__(self, z: Float[Array, "batch dim"]) -> Float[Array, "batch dim"]:
        """Returns a direction (B, d)."""
        return nn.Dense(z.shape[-1])(nn.relu(nn.Dense(max(16, z.shape[-1]))(z)))


class TransformerBlock(nn.Module):
    """Pre-norm self-attention and MLP; masked tokens are no keys.

    Attributes:
      num_heads: attention heads.
      mlp_dim: hidden width of the MLP.
    """

    num_heads: int
    mlp_dim: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "batch tokens dim"], mask: Bool[Array, "batch tokens"] | None = None) -> Array:
        """Returns tokens of the same shape."""
        attention_mask = None if mask is None else mask[:, None, None, :]
        y = nn.LayerNorm(dtype=self.dtype)(x)
        x = x + nn.MultiHeadDotProductAttention(self.num_heads, dtype=self.dtype)(y, y, mask=attention_mask)
        y = nn.LayerNorm(dtype=self.dtype)(x)
        y = nn.Dense(self.mlp_dim, dtype=self.dtype)(y)
        return x + nn.Dense(x.shape[-1], dtype=self.dtype)(nn.gelu(y))


class MixerBlock(nn.Module):
    """Pre-norm MLP over tokens, then over channels.

    Attributes:
      token_dim: hidden width of the MLP over tokens.
      mlp_dim: hidden width of the MLP over channels.
    """

    token_dim: int
    mlp_dim: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "batch tokens dim"]) -> Array:
        """Returns tokens of the same shape."""
        y = nn.LayerNorm(dtype=self.dtype)(x).swapaxes(1, 2)
        y = nn.Dense(x.shape[1], dtype=self.dtype)(nn.gelu(nn.Dense(self.token_dim, dtype=self.dtype)(y)))
        x = x + y.swapaxes(1, 2)
        y = nn.Dense(self.mlp_dim, dtype=self.dtype)(nn.LayerNorm(dtype=self.dtype)(x))
        return x + nn.Dense(x.shape[-1], dtype=self.dtype)(nn.gelu(y))


def block_of(kind: type[nn.Module], remat: bool, *sizes: int) -> Callable[..., nn.Module]:
    """A block of these sizes; with ``remat`` its activations are computed again for the gradient instead of kept."""
    return functools.partial(nn.remat(kind) if remat else kind, *sizes)


def through_blocks(
    x: Float[Array, "batch tokens dim"],
    *,
    block: str,
    depth: int,
    num_heads: int,
    mlp_ratio: int,
    remat: bool,
    dtype: jnp.dtype,
    mask: Bool[Array, "batch tokens"] | None = None,
) -> Float[Array, "batch tokens dim"]:
    """Sends tokens through ``depth`` blocks, which become submodules of the module that calls this.

    Args:
      x: tokens.
      block: "mixer" or "transformer".
      depth: number of blocks.
      num_heads: heads of a transformer block.
      mlp_ratio: hidden width of a block's MLP over the token width.
      remat: compute activations again for the gradient.
      dtype: of the computation.
      mask: tokens that count; what the others hold changes nothing.
    """
    if block not in BLOCKS:
        raise ValueError(f"block {block!r} is unknown: expected {' or '.join(map(repr, BLOCKS))}.")
    width = x.shape[-1]
    if block == "mixer":
        made = block_of(MixerBlock, remat, width, mlp_ratio * width)
    else:
        made = block_of(TransformerBlock, remat, num_heads, mlp_ratio * width)
    masked = () if mask is None or block == "mixer" else (mask,)
    for i in range(depth):
        if mask is not None:  # a mixer has no other way to leave tokens out
            x = jnp.where(mask[..., None], x, jnp.zeros((), x.dtype))
        x = made(dtype=dtype, name=f"{block.capitalize()}Block_{i}")(x, *masked)
    return x


def patches(images: Float[Array, "batch height width channels"], size: int) -> Float[Array, "batch tokens values"]:
    """Cuts images into non-overlapping squares, row by row.

    Examples:
      >>> import jax.numpy as jnp
      >>> print(patches(jnp.arange(16.0).reshape(1, 4, 4, 1), 2)[0, 1])
      [2. 3. 6. 7.]
    """
    b, h, w, c = images.shape
    if h % size or w % size:
        raise ValueError(f"images have shape {images.shape}, but height and width that {size} divides were expected.")
    x = images.reshape(b, h // size, size, w // size, size, c).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(b, (h // size) * (w // size), size * size * c)
