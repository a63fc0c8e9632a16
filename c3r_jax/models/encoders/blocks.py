"""Building blocks of encoders: per-example dropout and normalisation, transformer and mixer blocks, patches."""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from c3r_jax.models.encoders.layers_in_order import layers_in_order
from c3r_jax.parallel.rows import pinned, whole

BLOCKS = ("mixer", "transformer")


class ExampleDropout(nn.Module):
    """Dropout drawn from one key per example, so that a batch split over devices drops exactly the same units.

    Attributes:
      rate: share of units set to zero; the others are scaled by 1 / (1 - rate).
    """

    rate: float

    @nn.compact
    def __call__(self, x: Float[Array, "batch ..."], keys: PRNGKeyArray | None) -> Float[Array, "batch ..."]:
        """Drops units by ``keys`` (B,); without keys (evaluation) x is returned."""
        if keys is None or self.rate == 0:
            return x
        mask = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - self.rate, x.shape[1:]))(keys)
        return jnp.where(mask, x / (1 - self.rate), jnp.zeros((), x.dtype))


def looked_up(table: nn.Embed, ids: Int[Array, "batch length"]) -> Float[Array, "batch length width"]:
    """The rows of a table for each id, laid out by example whatever the layout of the table.

    Args:
      table: of a compact or bound module.
      ids: token ids.
    """
    return pinned(jnp.take(whole(table.embedding.astype(table.dtype)), ids, axis=0))


class ExampleNorm(nn.Module):
    """Group normalisation: per-example statistics, for convolutions trained from scratch.

    A row's output depends on that row alone, as with the fixed statistics of published weights. Batch statistics would
    need sums over all devices and a mutable state, and chunks of a batch could not be encoded one by one.

    Attributes:
      groups: number of groups; their greatest common divisor with the channels is used.
      epsilon: added to the variance.

    References:
      Y. Wu and K. He, Group normalization, 2018.
    """

    groups: int = 32
    epsilon: float = 1e-5
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "batch ... channels"]) -> Array:
        """Returns an array of the same shape."""
        groups = math.gcd(self.groups, x.shape[-1])
        return nn.GroupNorm(groups, epsilon=self.epsilon, dtype=self.dtype, name="group")(x)


class TransformerBlock(nn.Module):
    """Pre-norm self-attention and MLP; masked tokens are not keys.

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


def through_blocks(
    owner: nn.Module,
    x: Float[Array, "batch tokens dim"],
    *,
    block: str,
    depth: int,
    num_heads: int,
    mlp_ratio: int,
    remat: bool,
    scan: bool,
    dtype: jnp.dtype,
    mask: Bool[Array, "batch tokens"] | None = None,
) -> Float[Array, "batch tokens dim"]:
    """Applies ``depth`` blocks to tokens; the blocks become submodules of the calling module.

    Args:
      owner: the calling module.
      x: tokens.
      block: "mixer" or "transformer".
      depth: number of blocks.
      num_heads: heads of a transformer block.
      mlp_ratio: hidden width of a block's MLP over the token width.
      remat: recompute activations for the gradient.
      scan: loop over the blocks, see :func:`layers_in_order`.
      dtype: dtype of the computation.
      mask: tokens that count; other tokens have no effect.
    """
    if block not in BLOCKS:
        raise ValueError(f"block {block!r} is unknown: expected {' or '.join(map(repr, BLOCKS))}.")
    width = x.shape[-1]
    kind, first = (
        (MixerBlock, {"token_dim": width}) if block == "mixer" else (TransformerBlock, {"num_heads": num_heads})
    )
    sizes: dict[str, Any] = {**first, "mlp_dim": mlp_ratio * width, "dtype": dtype}
    masked = () if mask is None or block == "mixer" else (mask,)

    def inside(x: Array) -> Array:  # a mixer has no other way to exclude tokens
        return x if mask is None else jnp.where(mask[..., None], x, jnp.zeros((), x.dtype))

    return layers_in_order(
        owner, kind, sizes, f"{block.capitalize()}Block", depth, x, *masked, remat=remat, scan=scan, before=inside
    )


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
