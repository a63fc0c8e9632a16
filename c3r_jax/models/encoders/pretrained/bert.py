"""BERT: token ids to one vector per token."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from c3r_jax.models.encoders.blocks import looked_up
from c3r_jax.models.encoders.layers_in_order import layers_in_order
from c3r_jax.models.encoders.pretrained.layers import EncoderLayer
from c3r_jax.parallel.rows import pinned


@dataclasses.dataclass(frozen=True)
class TransformerSize:
    """Width of a token, number of layers, attention heads, hidden width of the MLPs."""

    width: int
    depth: int
    num_heads: int
    mlp_dim: int


BERT_SIZES = {
    "bert_tiny": TransformerSize(128, 2, 2, 512),
    "minilm_l6": TransformerSize(384, 6, 12, 1536),
    "minilm_l12": TransformerSize(384, 12, 12, 1536),
    "bert_base": TransformerSize(768, 12, 12, 3072),
}


class Bert(nn.Module):
    """The BERT encoder for single texts, without dropout; padding has id 0.

    Attributes:
      size: the transformer's size.
      vocab_size: number of token ids.
      max_length: number of position embeddings.
      remat: recompute a layer's activations for the gradient.
      scan_layers: compile one layer and loop over them, see :func:`layers_in_order`.

    References:
      J. Devlin et al., BERT: pre-training of deep bidirectional transformers for language understanding, 2019.
      W. Wang et al., MiniLM: deep self-attention distillation, 2020.
    """

    size: TransformerSize
    vocab_size: int
    max_length: int = 512
    remat: bool = False
    scan_layers: bool = False
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, ids: Int[Array, "batch length"]) -> Float[Array, "batch length width"]:
        """Returns the last layer's tokens; those of padding are meaningless."""
        length, size = ids.shape[1], self.size
        if length > self.max_length:
            raise ValueError(f"texts have {length} ids, but BERT has {self.max_length} positions: lower text_length.")
        mask = ids != 0
        words = looked_up(nn.Embed(self.vocab_size, size.width, dtype=self.dtype, name="word_embeddings"), ids)
        places = nn.Embed(self.max_length, size.width, dtype=self.dtype, name="position_embeddings")
        kinds = nn.Embed(2, size.width, dtype=self.dtype, name="token_type_embeddings")
        x = words + places(jnp.arange(length))[None] + kinds(jnp.zeros((), jnp.int32))[None, None]
        x = nn.LayerNorm(epsilon=1e-12, dtype=self.dtype, name="embeddings_norm")(x)
        sizes: dict[str, Any] = {
            "num_heads": size.num_heads,
            "mlp_dim": size.mlp_dim,
            "norm_first": False,
            "dtype": self.dtype,
        }
        ways: dict[str, Any] = {"remat": self.remat, "scan": self.scan_layers}
        return layers_in_order(self, EncoderLayer, sizes, "layer", size.depth, pinned(x), mask, **ways)


def mean_token(x: Float[Array, "batch length width"], inside: Bool[Array, "batch length"]) -> Array:
    """The mean (B, width) of the tokens inside a text, zero for an empty one.

    Examples:
      >>> x = jnp.array([[[1.0], [3.0], [9.0]]])
      >>> print(mean_token(x, jnp.array([[True, True, False]])))
      [[2.]]
    """
    count = jnp.maximum(inside.sum(1, keepdims=True), 1).astype(x.dtype)
    return jnp.where(inside[..., None], x, jnp.zeros((), x.dtype)).sum(1) / count
