"""Fusions of per-modality representations that read only present modalities."""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from c3r_jax.core.batch import mean_of_present, zero_absent
from c3r_jax.models.encoders.blocks import TransformerBlock

Features = Mapping[str, Float[Array, "batch _"]]


class MaskedMean(nn.Module):
    """Mean of the present modalities' representations; affine in them, zero when none is present."""

    @nn.compact
    def __call__(self, h: Features, present: Bool[Array, "batch modalities"]) -> Float[Array, "batch dim"]:
        """Returns z (B, d); every modality must have width d."""
        return mean_of_present(h, present)


class ConcatAbsent(nn.Module):
    """Concatenation, with a learned embedding in place of an absent modality, projected to ``dim``.

    Attributes:
      dim: width of z.
    """

    dim: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, h: Features, present: Bool[Array, "batch modalities"]) -> Float[Array, "batch dim"]:
        """Returns z (B, dim)."""
        parts = []
        for m, (name, value) in enumerate(h.items()):
            absent = self.param(f"absent_{name}", nn.initializers.normal(0.02), (value.shape[1],))
            parts.append(jnp.where(present[:, m, None], value, absent.astype(value.dtype)[None]))
        return nn.Dense(self.dim, dtype=self.dtype, name="project")(jnp.concatenate(parts, axis=1))


class OfficialFusion(nn.Module):
    """The public code's linear fusion of two modalities, which ignores what is present, with its gate's layers.

    The gate is used only in training, see :func:`c3r_jax.methods.official.official_compat_loss`.

    Attributes:
      dim: width of z and of both representations.
    """

    dim: int

    def setup(self) -> None:
        """Declares the layers under the names of the objective's parameters."""
        self.query, self.key, self.value = (nn.Dense(self.dim) for _ in range(3))
        self.project = nn.Dense(2 * self.dim, use_bias=False)
        self.fusion = nn.Dense(self.dim)

    def __call__(self, h: Features, present: Bool[Array, "batch modalities"]) -> Float[Array, "batch dim"]:
        """Returns z (B, dim) of the first two modalities, in the order of their names."""
        if len(h) != 2:
            raise ValueError(f"The public code's objective takes 2 modalities, but {list(h)} were given.")
        image, text = h.values()
        if self.is_initializing():
            self.project(self.query(text) + self.key(image) + self.value(text))
        return self.fusion(jnp.concatenate([text, image], axis=1))


class CrossAttention(nn.Module):
    """A learned query attends over the present modalities' tokens; their mean is added.

    Attributes:
      dim: width of z.
      num_heads: attention heads.
    """

    dim: int
    num_heads: int = 4
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, h: Features, present: Bool[Array, "batch modalities"]) -> Float[Array, "batch dim"]:
        """Returns z (B, dim); zero-input tokens, hence a constant z, when no modality is present."""
        tokens = []
        for name, value in h.items():
            kind = self.param(f"kind_{name}", nn.initializers.normal(0.02), (self.dim,)).astype(self.dtype)
            tokens.append(nn.Dense(self.dim, dtype=self.dtype, name=f"token_{name}")(value) + kind[None])
        stacked = jnp.where(present[..., None], jnp.stack(tokens, axis=1), jnp.zeros((), self.dtype))
        query = self.param("query", nn.initializers.normal(0.02), (1, 1, self.dim)).astype(self.dtype)
        query = jnp.broadcast_to(query, (stacked.shape[0], 1, self.dim))
        # With nothing present every key stays visible (all zeros): softmax over an empty set would be NaN.
        visible = present | ~present.any(1, keepdims=True)
        attend = nn.MultiHeadDotProductAttention(self.num_heads, dtype=self.dtype, name="attend")
        z = attend(query, stacked, mask=visible[:, None, None, :])[:, 0]
        mean = stacked.sum(1) / jnp.maximum(present.sum(1, keepdims=True), 1).astype(self.dtype)
        return mean + z


class Gated(nn.Module):
    r"""Gated multimodal units: each feature of z is a convex combination of the present modalities', by learned gates.

    .. math::
       z = \sum_m g_m \odot \tanh(W_m h_m + b_m), \quad g = \text{softmax}_m(G_m [h_1, ..., h_M] + c_m)

    The softmax is over the present modalities, feature by feature; the gates read absent ones as zeros.
    With two modalities g_1 is the sigmoid of a difference: the published unit.

    Attributes:
      dim: width of z.

    References:
      J. Arevalo et al., Gated multimodal units for information fusion, 2017, arXiv 1702.01992.
    """

    dim: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, h: Features, present: Bool[Array, "batch modalities"]) -> Float[Array, "batch dim"]:
        """Returns z (B, dim), zero when no modality is present."""
        visible = zero_absent(h, present)
        together = jnp.concatenate(list(visible.values()), axis=1)
        layer = lambda name: nn.Dense(self.dim, dtype=self.dtype, name=name)  # noqa: E731
        values = jnp.stack([jnp.tanh(layer(f"value_{name}")(value)) for name, value in visible.items()], axis=1)
        gates = jnp.stack([layer(f"gate_{name}")(together) for name in visible], axis=1)
        share = jax.nn.softmax(gates, axis=1, where=present[..., None])  # zeros for an empty set
        return (share * values).sum(1)


class Bottleneck(nn.Module):
    r"""Attention bottlenecks: modalities exchange information only through a few shared tokens.

    In layer l every modality attends over its own tokens and the bottleneck's, with its own layers; the bottleneck's
    tokens are then averaged over the present modalities:

    .. math::
       [x_m, b_m] \leftarrow \text{Transformer}_{m,l}([x_m, b]), \quad b \leftarrow \text{mean}_m b_m

    Here a modality's representation is its only token; z is the mean of the present modalities' tokens, normalised. The
    published model averages the logits of linear heads at those tokens, which is the same for a shared head.

    Attributes:
      dim: width of z.
      num_heads: attention heads.
      tokens: number of bottleneck tokens.
      depth: layers.

    References:
      A. Nagrani et al., Attention bottlenecks for multimodal fusion, 2021, arXiv 2107.00135.
    """

    dim: int
    num_heads: int = 4
    tokens: int = 4
    depth: int = 2
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, h: Features, present: Bool[Array, "batch modalities"]) -> Float[Array, "batch dim"]:
        """Returns z (B, dim), zero when no modality is present."""
        count = jnp.maximum(present.sum(1), 1)

        def mean(parts: list[Array]) -> Array:
            stacked = jnp.stack(parts, axis=1)  # (B, M, tokens, dim)
            total = jnp.where(present[..., None, None], stacked, jnp.zeros((), stacked.dtype)).sum(1)
            return total / count[:, None, None].astype(stacked.dtype)

        x = {
            name: nn.Dense(self.dim, dtype=self.dtype, name=f"token_{name}")(value)[:, None]
            for name, value in h.items()
        }
        shared = self.param("bottleneck", nn.initializers.normal(0.02), (1, self.tokens, self.dim)).astype(self.dtype)
        shared = jnp.broadcast_to(shared, (len(count), self.tokens, self.dim))
        for layer in range(self.depth):
            updated = []
            for name in h:
                block = TransformerBlock(self.num_heads, 2 * self.dim, self.dtype, name=f"layer_{layer}_{name}")
                tokens = block(jnp.concatenate([x[name], shared], axis=1))
                x[name] = tokens[:, :1]
                updated.append(tokens[:, 1:])
            shared = mean(updated)
        norms = [nn.LayerNorm(dtype=self.dtype, name=f"norm_{name}")(value) for name, value in x.items()]
        return mean(norms)[:, 0]
