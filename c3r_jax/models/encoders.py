"""Encoders from raw input to one vector per example, made of matrix products (fast on TPUs and under XLA on CPUs)."""

import functools
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Integer, PRNGKeyArray, Shaped, UInt8, UInt32

from c3r_jax.models.blocks import ExampleDropout, TransformerBlock, block_of, patches, through_blocks


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
      remat: compute the blocks' activations again for the gradient: less memory, a third more work.
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
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, images: UInt8[Array, "batch height width 3"], keys: PRNGKeyArray | None = None) -> Array:
        """Returns representations (B, dim); ``keys`` (B,) switch dropout on."""
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
            x,
            block=self.block,
            depth=self.depth,
            num_heads=self.num_heads,
            mlp_ratio=self.mlp_ratio,
            remat=self.remat,
            dtype=self.dtype,
        )
        x = ExampleDropout(self.dropout)(nn.LayerNorm(dtype=self.dtype)(x).mean(1), keys)
        return nn.Dense(self.dim, dtype=self.dtype, name="project")(x)


def hashed_ngrams(ids: Int[Array, "batch length"], order: int, buckets: int) -> Int[Array, "batch length"]:
    """Hashes the ``order`` ids that begin at each place into buckets (FNV-1a on 32 bits, with a final mix).

    Args:
      ids: (B, L) token ids; places past the end read 0.
      order: length of an n-gram.
      buckets: number of hash values.

    Returns:
      (B, L) in [0, buckets).
    """
    code = _hashed(*_next_places(ids, order))
    return (code % jnp.uint32(buckets)).astype(jnp.int32)


def hashed_words(
    ids: Int[Array, "batch length"], outside: Bool[Array, "batch length"], buckets: int
) -> Int[Array, "batch length"]:
    """Hashes the word that each place is part of into buckets.

    A word's code is the sum over its letters of each letter's hash together with its place in the word: no loop over
    letters.

    Args:
      ids: (B, L) token ids.
      outside: (B, L) whether a place is outside words; the first and the last are.
      buckets: number of hash values.

    Returns:
      (B, L) in [0, buckets); places outside words hold anything.

    Examples:
      >>> import jax.numpy as jnp
      >>> ids = jnp.array([[0, 7, 8, 0, 7, 8, 0, 8, 7, 0]])
      >>> code = hashed_words(ids, ids == 0, 100)[0]
      >>> print(bool(code[1] == code[2] == code[4]), bool(code[1] == code[7]))
      True False
    """
    place = jnp.broadcast_to(jnp.arange(ids.shape[1]), ids.shape)
    before = jax.lax.cummax(jnp.where(outside, place, 0), axis=1)
    after = jax.lax.cummin(jnp.where(outside, place, ids.shape[1] - 1), axis=1, reverse=True)
    letters = jnp.where(outside, jnp.uint32(0), _hashed(ids, place - before))
    total = jnp.cumsum(letters, axis=1, dtype=jnp.uint32)
    code = _hashed(jnp.take_along_axis(total, after, 1) - jnp.take_along_axis(total, before, 1))
    return (code % jnp.uint32(buckets)).astype(jnp.int32)


def _hashed(*values: Integer[Array, "batch length"]) -> UInt32[Array, "batch length"]:
    """FNV-1a over the values of each place, with a final mix."""
    code = jnp.full(values[0].shape, 0x811C9DC5, jnp.uint32)
    for value in values:
        code = (code ^ value.astype(jnp.uint32)) * jnp.uint32(0x01000193)
    code = (code ^ (code >> 15)) * jnp.uint32(0x2C1B3C6D)
    return code ^ (code >> 13)


def _next_places(x: Shaped[Array, "batch length"], count: int) -> list[Shaped[Array, "batch length"]]:
    """What is at each place and at the ``count - 1`` after it; past the end 0."""
    padded = jnp.pad(x, ((0, 0), (0, count - 1)))
    return [padded[:, j : j + x.shape[1]] for j in range(count)]


def _within_word(outside: Bool[Array, "batch length"], order: int) -> Bool[Array, "batch length"]:
    """Whether the n-gram that begins at a place is of one word, of which it may hold the break at either end."""
    at = _next_places(outside, order)
    return ~functools.reduce(jnp.logical_or, at[1:-1], at[0] & at[-1])


class TextEncoder(nn.Module):
    """Token ids and hashed n-grams of them, through transformer blocks, averaged and projected to ``dim``.

    The embedding of a place is the sum of its token's, of the n-grams that begin there and, if asked for, of the word
    it is in. On short texts the n-grams of bytes carry most of what can be learned from little data; blocks on top
    model order. Without blocks this is a bag of n-grams.

    Attributes:
      dim: width of the representation.
      vocab_size: number of token ids; 0 is padding.
      width: width of a token.
      depth: number of blocks (0: a bag of tokens and n-grams).
      orders: n-gram lengths above 1 to add; empty: tokens alone.
      buckets: hash table size per order.
      word_break: token id that parts words, such as 34, the space of bytes: n-grams then stay within words, and every
        place also has its whole word's embedding, hashed as n-grams are; -1: words are not looked for.
      num_heads: heads of a block.
      mlp_ratio: hidden width of a block's MLP over the token width.
      dropout: rate on the averaged token.
      remat: compute the blocks' activations again for the gradient: less memory, a third more work.

    References:
      P. Bojanowski et al., Enriching word vectors with subword information, 2017 (hashed n-grams).
    """

    dim: int
    vocab_size: int
    width: int = 64
    depth: int = 1
    orders: Sequence[int] = ()
    buckets: int = 4096
    word_break: int = -1
    num_heads: int = 4
    mlp_ratio: int = 2
    dropout: float = 0.0
    remat: bool = False
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, ids: Int[Array, "batch length"], keys: PRNGKeyArray | None = None) -> Array:
        """Returns representations (B, dim); ``keys`` (B,) switch dropout on."""
        if ids.ndim != 2 or not jnp.issubdtype(ids.dtype, jnp.integer):
            raise ValueError(f"token ids have shape {ids.shape} and dtype {ids.dtype}: expected integers (B, length).")
        if self.word_break >= self.vocab_size:
            raise ValueError(
                f"word_break is {self.word_break}, but there are {self.vocab_size} token ids: expected the id that "
                "parts words, or -1."
            )
        # A mark at either end tells "ring" from "spring": one more place on both sides, with n-grams but no token.
        inside = ids != 0
        length = inside.sum(1, keepdims=True)
        ids = jnp.pad(ids, ((0, 0), (1, 1)))
        inside = jnp.pad(inside, ((0, 0), (1, 1)))
        place = jnp.arange(ids.shape[1])[None, :]
        zero = jnp.zeros((), self.dtype)
        # Embeddings start near zero, so that what training never saw says nothing (instead of something random).
        embed = functools.partial(
            nn.Embed, features=self.width, dtype=self.dtype, embedding_init=nn.initializers.normal(0.01)
        )
        x = jnp.where(inside[..., None], embed(self.vocab_size, name="embed")(ids), zero)
        if self.word_break >= 0:
            outside = (ids < 2) | (ids == self.word_break)  # 0 pads, 1 hides
            ids = jnp.where(outside, self.word_break, ids)  # either end and hidden words are breaks like any other
            words = embed(self.buckets, name="embed_word")(hashed_words(ids, outside, self.buckets))
            x = x + jnp.where(outside[..., None], zero, words)
        for order in self.orders:
            table = embed(self.buckets, name=f"embed_{order}")
            whole = place + order <= length + 2
            if self.word_break >= 0:
                whole &= _within_word(outside, order)
            x = x + jnp.where(whole[..., None], table(hashed_ngrams(ids, order, self.buckets)), zero)
        if self.depth:
            shape = (ids.shape[1], self.width)
            x = x + self.param("position", nn.initializers.normal(0.02), shape).astype(self.dtype)[None]
            block = block_of(TransformerBlock, self.remat, self.num_heads, self.mlp_ratio * self.width)
            for i in range(self.depth):
                x = block(dtype=self.dtype, name=f"TransformerBlock_{i}")(x, inside)
            x = nn.LayerNorm(dtype=self.dtype)(x)
        # A sum over sqrt(count) keeps the scale of a bag of independent n-grams.
        x = jnp.where((place < length + 1)[..., None], x, zero).sum(1) / jnp.sqrt(length + 1).astype(x.dtype)
        x = ExampleDropout(self.dropout)(x, keys)
        return nn.Dense(self.dim, dtype=self.dtype, name="project")(x)


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
        """Returns representations (B, dim); ``keys`` (B,) switch dropout on."""
        if x.ndim != 2 or not jnp.issubdtype(x.dtype, jnp.floating):
            raise ValueError(f"features have shape {x.shape} and dtype {x.dtype}: expected floats (B, features).")
        x = x.astype(self.dtype)
        for width in self.hidden:
            x = nn.relu(nn.Dense(width, dtype=self.dtype)(x))
        return nn.Dense(self.dim, dtype=self.dtype, name="project")(ExampleDropout(self.dropout)(x, keys))
