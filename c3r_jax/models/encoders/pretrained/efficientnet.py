"""EfficientNet-Lite0: an image to a map of features, by inverted bottlenecks without squeeze and excitation."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from c3r_jax.models.encoders.pretrained.layers import DepthwiseConv, FrozenBatchNorm, convolution


class Stage(NamedTuple):
    """Blocks of one form: number, kernel, stride of the first, expansion of the channels inside, channels."""

    count: int
    kernel: int
    stride: int
    expand: int
    channels: int


LITE0 = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)
STEM, HEAD = 32, 1280


class InvertedBottleneck(nn.Module):
    """Wide 1x1 convolution, depthwise convolution, narrow 1x1 convolution; the input is added if its shape is the same.

    Attributes:
      stage: the block's form.
      stride: this block's stride.
      norm: norm after each convolution.
    """

    stage: Stage
    stride: int
    norm: Callable[..., nn.Module] = FrozenBatchNorm
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "batch height width channels"]) -> Array:
        """Returns the next map."""
        conv = functools.partial(convolution, padding="SAME", dtype=self.dtype)
        norm = functools.partial(self.norm, epsilon=1e-3, dtype=self.dtype)
        inside = x.shape[-1] * self.stage.expand
        y = x
        if self.stage.expand > 1:
            y = nn.relu6(norm(name="expand_norm")(conv(inside, 1)(name="expand")(y)))
        y = DepthwiseConv(self.stage.kernel, self.stride, dtype=self.dtype, name="depthwise")(y)
        y = nn.relu6(norm(name="depthwise_norm")(y))
        y = norm(name="project_norm")(conv(self.stage.channels, 1)(name="project")(y))
        return x + y if x.shape == y.shape else y


class EfficientNetLite(nn.Module):
    """EfficientNet-Lite0 with TensorFlow's padding, without its classifier.

    Attributes:
      stages: stages of blocks.
      stem: channels of the first map.
      head: channels of the last map.
      remat: recompute a block's activations for the gradient.
      norm: norm after each convolution; :class:`ExampleNorm` without published weights.

    References:
      M. Tan and Q. Le, EfficientNet: rethinking model scaling for convolutional neural networks, 2019; the Lite
      variants were published in 2020 with TensorFlow's TPU models.
    """

    stages: tuple[Stage, ...] = LITE0
    stem: int = STEM
    head: int = HEAD
    remat: bool = False
    norm: Callable[..., nn.Module] = FrozenBatchNorm
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, images: Float[Array, "batch height width 3"]) -> Float[Array, "batch rows columns channels"]:
        """Returns the last map."""
        conv = functools.partial(convolution, padding="SAME", dtype=self.dtype)
        norm = functools.partial(self.norm, epsilon=1e-3, dtype=self.dtype)
        x = nn.relu6(norm(name="stem_norm")(conv(self.stem, 3, 2)(name="stem")(images)))
        block = nn.remat(InvertedBottleneck) if self.remat else InvertedBottleneck
        strides = [(stage, stage.stride if i == 0 else 1) for stage in self.stages for i in range(stage.count)]
        for i, (stage, stride) in enumerate(strides):
            x = block(stage, stride, norm=self.norm, dtype=self.dtype, name=f"block_{i}")(x)
        return nn.relu6(norm(name="head_norm")(conv(self.head, 1)(name="head")(x)))
