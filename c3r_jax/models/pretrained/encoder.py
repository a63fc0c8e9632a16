"""A published encoder inside the twin network: one vector per example, projected to the width of the others."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from c3r_jax.models.encoders import ExampleDropout
from c3r_jax.models.pretrained.architectures import ARCHITECTURES, pixels
from c3r_jax.models.pretrained.bert import mean_token
from c3r_jax.models.pretrained.layers import ExampleNorm


class PretrainedEncoder(nn.Module):
    """The backbone's mean token or mean place, normalised, through one hidden layer with dropout, projected to ``dim``.

    A frozen backbone's vectors can be given in place of the raw inputs, computed once for all. A video is its frames,
    folded into the batch, and the mean of their vectors; a spectrogram is an image of one channel. Frames of zeros
    alone are missing or padding, and count in no mean.

    Attributes:
      dim: width of the representation.
      architecture: a name of :data:`ARCHITECTURES`.
      width: of the hidden layer.
      vocab_size: number of token ids, of texts.
      frozen: whether the backbone keeps its weights.
      scratch: no weights are read: convolutions are normalised by :class:`ExampleNorm`, not by fixed statistics.
      dropout: rate on the hidden layer.
      remat: compute the backbone's activations again for the gradient.

    References:
      X. Peng et al., Balanced multimodal learning via on-the-fly gradient modulation, 2022 (ResNet-18 on both).
    """

    dim: int
    architecture: str
    width: int = 64
    vocab_size: int = 0
    frozen: bool = True
    scratch: bool = False
    dropout: float = 0.0
    remat: bool = False
    dtype: jnp.dtype = jnp.float32

    def setup(self) -> None:
        """Names the parts."""
        backbone = ARCHITECTURES[self.architecture].make(self.vocab_size, self.remat, self.dtype)
        by_example = self.scratch and hasattr(backbone, "norm")
        self.backbone = backbone.clone(parent=None, norm=ExampleNorm) if by_example else backbone
        self.norm = nn.LayerNorm(dtype=self.dtype)
        self.hidden = nn.Dense(self.width, dtype=self.dtype)
        self.drop = ExampleDropout(self.dropout)
        self.project = nn.Dense(self.dim, dtype=self.dtype)

    def features(self, inputs: Array) -> Float[Array, "batch width"]:
        """The backbone's vectors of token ids (B, L), uint8 images (B, H, W, 3), videos or spectrograms (B, T, F)."""
        known = ARCHITECTURES[self.architecture]
        if known.kind == "text":
            x = mean_token(self.backbone(inputs), inputs != 0)
        elif known.kind == "sequence":
            x = mean_place(self.backbone(inputs[..., None].astype(self.dtype)), inputs.any(-1))
        else:
            x = self._of_pixels(inputs)
        return jax.lax.stop_gradient(x) if self.frozen else x

    def _of_pixels(self, inputs: Array) -> Float[Array, "batch width"]:
        if inputs.ndim == 5:
            frames = self._of_pixels(inputs.reshape(-1, *inputs.shape[2:])).reshape(*inputs.shape[:2], -1)
            return mean_token(frames, inputs.any((2, 3, 4)))
        x = self.backbone(pixels(inputs, ARCHITECTURES[self.architecture], self.dtype))
        # Of tokens the first stands for the image, of maps the mean over places.
        return x[:, 0] if x.ndim == 3 else x.mean((1, 2))

    def __call__(self, inputs: Array, keys: PRNGKeyArray | None = None) -> Float[Array, "batch dim"]:
        """Returns representations (B, dim) of raw inputs, or of a frozen backbone's vectors; ``keys`` (B,): dropout."""
        given = self.frozen and inputs.ndim == 2 and jnp.issubdtype(inputs.dtype, jnp.floating)
        x = inputs.astype(self.dtype) if given else self.features(inputs)
        return self.project(self.drop(nn.relu(self.hidden(self.norm(x))), keys))


def mean_place(x: Float[Array, "batch rows columns width"], inside: Bool[Array, "batch time"]) -> Array:
    """The mean (B, width) of the places of a map whose stretch of frames has any that is inside, zero if none has.

    Examples:
      >>> x = jnp.array([2.0, 4.0, 9.0]).reshape(1, 3, 1, 1)
      >>> print(mean_place(x, jnp.array([[True, True, True, False, False, False]])))
      [[3.]]
    """
    rows = x.shape[1]
    stretch = -(-inside.shape[1] // rows)
    seen = jnp.pad(inside, ((0, 0), (0, rows * stretch - inside.shape[1]))).reshape(-1, rows, stretch).any(2)
    return mean_token(x.mean(2), seen)
