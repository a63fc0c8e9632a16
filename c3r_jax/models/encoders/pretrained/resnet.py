"""ResNet: an image or spectrogram to a map of features, by basic or bottleneck blocks."""

import dataclasses
import functools
from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from c3r_jax.models.encoders.pretrained.layers import FrozenBatchNorm, convolution


@dataclasses.dataclass(frozen=True)
class ResNetSize:
    """Blocks per stage, whether they are bottlenecks, channels of the first stage's blocks and of the first map."""

    blocks: tuple[int, ...]
    bottleneck: bool
    channels: int = 64
    stem: int = 64

    @property
    def width(self) -> int:
        """Channels of the last map."""
        return self.channels * 2 ** (len(self.blocks) - 1) * (4 if self.bottleneck else 1)


RESNET_SIZES = {
    "resnet18": ResNetSize((2, 2, 2, 2), bottleneck=False),
    "resnet50": ResNetSize((3, 4, 6, 3), bottleneck=True),
    "resnet152": ResNetSize((3, 8, 36, 3), bottleneck=True),
}


class ResNetBlock(nn.Module):
    """Two 3x3 convolutions, or a 3x3 one between two 1x1 ones, with a residual connection.

    Attributes:
      channels: channels of the 3x3 convolutions.
      bottleneck: three convolutions, the last with four times the channels; the second has the stride.
      stride: 2 halves the map.
      norm: norm after each convolution.
    """

    channels: int
    bottleneck: bool
    stride: int
    norm: Callable[..., nn.Module] = FrozenBatchNorm
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "batch height width channels"]) -> Array:
        """Returns the next map."""
        conv = functools.partial(convolution, dtype=self.dtype)
        norm = functools.partial(self.norm, dtype=self.dtype)
        if self.bottleneck:
            parts = [(self.channels, 1, 1), (self.channels, 3, self.stride), (4 * self.channels, 1, 1)]
        else:
            parts = [(self.channels, 3, self.stride), (self.channels, 3, 1)]
        y = x
        for i, part in enumerate(parts, start=1):
            y = norm(name=f"bn{i}")(conv(*part)(name=f"conv{i}")(y))
            y = nn.relu(y) if i < len(parts) else y
        if x.shape != y.shape:
            x = norm(name="downsample_norm")(conv(y.shape[-1], 1, self.stride)(name="downsample_conv")(x))
        return nn.relu(x + y)


class ResNet(nn.Module):
    """ResNet with the stride in the 3x3 convolution, without its classifier.

    Attributes:
      size: the network's size.
      remat: recompute a block's activations for the gradient.
      norm: norm after each convolution; :class:`ExampleNorm` without published weights.

    References:
      K. He et al., Deep residual learning for image recognition, 2016.
    """

    size: ResNetSize
    remat: bool = False
    norm: Callable[..., nn.Module] = FrozenBatchNorm
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch rows columns features"]:
        """Returns the last map."""
        x = convolution(self.size.stem, 7, 2, dtype=self.dtype)(name="conv1")(images)
        x = nn.relu(self.norm(dtype=self.dtype, name="bn1")(x))
        # After a ReLU, zeros at the border do not change a maximum.
        x = nn.max_pool(jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), (3, 3), strides=(2, 2))
        block = nn.remat(ResNetBlock) if self.remat else ResNetBlock
        for stage, count in enumerate(self.size.blocks):
            for i in range(count):
                x = block(
                    channels=self.size.channels * 2**stage,
                    bottleneck=self.size.bottleneck,
                    stride=2 if stage and not i else 1,
                    norm=self.norm,
                    dtype=self.dtype,
                    name=f"layer{stage + 1}_{i}",
                )(x)
        return x
