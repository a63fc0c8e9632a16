"""Layers shared by published image and text encoders, computed in ``dtype`` from float32 parameters."""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


class FrozenBatchNorm(nn.Module):
    """Batch normalisation by the fixed statistics of pretraining.

    A row's output never depends on the other rows, so that splitting a batch over devices changes nothing and needs no
    communication. Scale and bias can be trained; ``running_mean`` and ``running_var`` are stored with the parameters,
    so that weights are written and read as one tree, but they are not trained.

    Attributes:
      epsilon: added to the variance.
    """

    epsilon: float = 1e-5
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "batch height width channels"]) -> Array:
        """Returns an array of the same shape."""
        shape = (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        mean = jax.lax.stop_gradient(self.param("running_mean", nn.initializers.zeros, shape))
        var = jax.lax.stop_gradient(self.param("running_var", nn.initializers.ones, shape))
        factor = scale / jnp.sqrt(var + self.epsilon)
        return (
            x * factor.astype(self.dtype)[None, None, None]
            + (bias - mean * factor).astype(self.dtype)[None, None, None]
        )


def convolution(
    features: int, size: int, stride: int = 1, *, padding: str | int | None = None, dtype: jnp.dtype
) -> Callable[..., nn.Conv]:
    """A constructor of a convolution without bias; it takes a name.

    Args:
      features: output channels.
      size: side of the kernel.
      stride: stride of the kernel.
      padding: pixels on each side, or "SAME" as in TensorFlow; None: half the kernel, as in PyTorch's models.
      dtype: dtype of the computation.
    """
    amount = size // 2 if padding is None else padding
    sides = amount if isinstance(amount, str) else [(amount, amount)] * 2
    return functools.partial(
        nn.Conv, features, (size, size), strides=stride, padding=sides, use_bias=False, dtype=dtype
    )


class DepthwiseConv(nn.Module):
    """A convolution of each channel by its own kernel, with TensorFlow's "SAME" padding, without bias.

    Attributes:
      size: side of the kernel.
      stride: stride of the kernel.
    """

    size: int
    stride: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "batch height width channels"]) -> Array:
        """Returns the convolved map."""
        shape = (self.size, self.size, 1, x.shape[-1])
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape).astype(self.dtype)
        # XLA's grouped convolution takes some 20 times as long on CPUs as a sum over the kernel's positions.
        return jax.lax.platform_dependent(
            x.astype(self.dtype),
            kernel,
            cpu=functools.partial(_summed_places, stride=self.stride),
            default=functools.partial(_grouped_convolution, stride=self.stride),
        )


def _grouped_convolution(x: Array, kernel: Array, *, stride: int) -> Array:
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )


def _summed_places(x: Array, kernel: Array, *, stride: int) -> Array:
    sides = jax.lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], (stride, stride), "SAME")
    padded = jnp.pad(x, ((0, 0), *sides, (0, 0)))
    rows, columns = (stride * ((size - 1) // stride) + 1 for size in x.shape[1:3])
    total = jnp.zeros((), x.dtype)
    for i in range(kernel.shape[0]):
        for j in range(kernel.shape[1]):
            total += padded[:, i : i + rows : stride, j : j + columns : stride] * kernel[i, j, 0][None, None, None]
    return total


class EncoderLayer(nn.Module):
    """Self-attention and MLP as in BERT (norms after each sum) and ViT (norms before each part).

    Attributes:
      num_heads: attention heads.
      mlp_dim: hidden width of the MLP.
      norm_first: norms before attention and MLP (ViT) instead of after the sums (BERT).
      epsilon: epsilon of the norms.
    """

    num_heads: int
    mlp_dim: int
    norm_first: bool
    epsilon: float = 1e-12
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "batch tokens dim"], mask: Bool[Array, "batch tokens"] | None = None) -> Array:
        """Returns tokens of the same shape; masked tokens are not keys."""
        dim = x.shape[-1]
        dense = functools.partial(nn.Dense, dtype=self.dtype)
        first, second = (
            nn.LayerNorm(epsilon=self.epsilon, dtype=self.dtype, name=name)
            for name in ("attention_norm", "output_norm")
        )
        y = first(x) if self.norm_first else x
        heads = (*y.shape[:2], self.num_heads, dim // self.num_heads)
        query, key, value = (dense(dim, name=name)(y).reshape(heads) for name in ("query", "key", "value"))
        keys = None if mask is None else mask[:, None, None, :]
        y = nn.dot_product_attention(query, key, value, mask=keys, dtype=self.dtype).reshape(x.shape)
        x = x + dense(dim, name="attention_output")(y)
        x = x if self.norm_first else first(x)
        y = second(x) if self.norm_first else x
        y = dense(self.mlp_dim, name="intermediate")(y)
        x = x + dense(dim, name="output")(nn.gelu(y, approximate=False))
        return x if self.norm_first else second(x)
