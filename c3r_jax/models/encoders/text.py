"""Texts: hashed n-grams of token ids, and transformer blocks over them."""

import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Integer, PRNGKeyArray, Shaped, UInt32

from c3r_jax.models.encoders.blocks import ExampleDropout, TransformerBlock, looked_up
from c3r_jax.models.encoders.layers_in_order import layers_in_order


def hashed_ngrams(ids: Int[Array, "batch length"], order: int, buckets: int) -> Int[Array, "batch length"]:
    """Hashes the ``order`` ids that start at each position into buckets (FNV-1a on 32 bits, with a final mix).

    Args:
      ids: (B, L) token ids; positions past the end read as 0.
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
    """Hashes the word that contains each position into buckets.

    A word's code is the sum of hashes of its letters, each hashed with its index in the word: no loop over letters.

    Args:
      ids: (B, L) token ids.
      outside: (B, L) whether a position is outside words, as the first and the last are.
      buckets: number of hash values.

    Returns:
      (B, L) in [0, buckets); arbitrary outside words.

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
    """FNV-1a over the values at each position, with a final mix."""
    code = jnp.full(values[0].shape, 0x811C9DC5, jnp.uint32)
    for value in values:
        code = (code ^ value.astype(jnp.uint32)) * jnp.uint32(0x01000193)
    code = (code ^ (code >> 15)) * jnp.uint32(0x2C1B3C6D)
    return code ^ (code >> 13)


def _next_places(x: Shaped[Array, "batch length"], count: int) -> list[Shaped[Array, "batch length"]]:
    """The values at each position and at the ``count - 1`` after it; 0 past the end."""
    padded = jnp.pad(x, ((0, 0), (0, count - 1)))
    return [padded[:, j : j + x.shape[1]] for j in range(count)]


def _within_word(outside: Bool[Array, "batch length"], order: int) -> Bool[Array, "batch length"]:
    """Whether the n-gram that starts at a position is within one word; it may include the break at either end."""
    at = _next_places(outside, order)
    return ~functools.reduce(jnp.logical_or, at[1:-1], at[0] & at[-1])


class TextEncoder(nn.Module):
    """Token ids and hashed n-grams of them, through transformer blocks, averaged and projected to ``dim``.

    The embedding of a position is the sum of the embeddings of its token, of the n-grams that start there and,
    optionally, of its word. On short texts byte n-grams carry most of what can be learned from little data; blocks
    model order. Without blocks this is a bag of n-grams.

    Attributes:
      dim: width of the representation.
      vocab_size: number of token ids; 0 is padding.
      width: width of a token.
      depth: number of blocks (0: a bag of tokens and n-grams).
      orders: n-gram lengths above 1 to add; empty: tokens alone.
      buckets: hash table size per order.
      word_break: token id that separates words, such as 34, the space of bytes: n-grams then stay within words, and
        every position also gets the embedding of its complete word, hashed like n-grams; -1: no words.
      num_heads: heads of a block.
      mlp_ratio: hidden width of a block's MLP over the token width.
      dropout: rate on the averaged token.
      remat: recompute the blocks' activations for the gradient: less memory, a third more work.
      scan_layers: compile one block and loop over them, see :func:`layers_in_order`.

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
    scan_layers: bool = False
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, ids: Int[Array, "batch length"], keys: PRNGKeyArray | None = None) -> Array:
        """Returns representations (B, dim); ``keys`` (B,) turn dropout on."""
        if ids.ndim != 2 or not jnp.issubdtype(ids.dtype, jnp.integer):
            raise ValueError(f"token ids have shape {ids.shape} and dtype {ids.dtype}: expected integers (B, length).")
        if self.word_break >= self.vocab_size:
            raise ValueError(
                f"word_break is {self.word_break}, but there are {self.vocab_size} token ids: expected the id that "
                "separates words, or -1."
            )
        # Padding at both ends distinguishes "ring" from "spring": one more position on each side, without a token.
        inside = ids != 0
        length = inside.sum(1, keepdims=True)
        ids = jnp.pad(ids, ((0, 0), (1, 1)))
        inside = jnp.pad(inside, ((0, 0), (1, 1)))
        place = jnp.arange(ids.shape[1])[None, :]
        zero = jnp.zeros((), self.dtype)
        # Embeddings start near zero, so that unseen n-grams have no effect (instead of a random one).
        embed = functools.partial(
            nn.Embed, features=self.width, dtype=self.dtype, embedding_init=nn.initializers.normal(0.01)
        )
        x = jnp.where(inside[..., None], looked_up(embed(self.vocab_size, name="embed"), ids), zero)
        if self.word_break >= 0:
            outside = (ids < 2) | (ids == self.word_break)  # 0 pads, 1 masks
            ids = jnp.where(outside, self.word_break, ids)  # both ends and masked words are breaks, too
            words = looked_up(embed(self.buckets, name="embed_word"), hashed_words(ids, outside, self.buckets))
            x = x + jnp.where(outside[..., None], zero, words)
        for order in self.orders:
            table = embed(self.buckets, name=f"embed_{order}")
            complete = place + order <= length + 2
            if self.word_break >= 0:
                complete &= _within_word(outside, order)
            x = x + jnp.where(complete[..., None], looked_up(table, hashed_ngrams(ids, order, self.buckets)), zero)
        if self.depth:
            shape = (ids.shape[1], self.width)
            x = x + self.param("position", nn.initializers.normal(0.02), shape).astype(self.dtype)[None]
            sizes: dict[str, Any] = {
                "num_heads": self.num_heads,
                "mlp_dim": self.mlp_ratio * self.width,
                "dtype": self.dtype,
            }
            ways: dict[str, Any] = {"remat": self.remat, "scan": self.scan_layers}
            x = layers_in_order(self, TransformerBlock, sizes, "TransformerBlock", self.depth, x, inside, **ways)
            x = nn.LayerNorm(dtype=self.dtype)(x)
        # A sum over sqrt(count) keeps the scale of a bag of independent n-grams.
        x = jnp.where((place < length + 1)[..., None], x, zero).sum(1) / jnp.sqrt(length + 1).astype(x.dtype)
        x = ExampleDropout(self.dropout)(x, keys)
        return nn.Dense(self.dim, dtype=self.dtype, name="project")(x)
