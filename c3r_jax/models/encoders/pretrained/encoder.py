"""A published encoder inside the twin network: one vector per example, projected to the width of the others."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from c3r_jax.models.encoders.blocks import ExampleDropout, ExampleNorm
from c3r_jax.models.encoders.pretrained.architectures import ARCHITECTURES, Architecture, pixels
from c3r_jax.models.encoders.pretrained.bert import mean_token

_INPUTS = {  # numbers of axes, dtype, in words
    "text": ((2,), jnp.integer, "token ids, integers (B, length)"),
    "sequence": ((3,), jnp.floating, "spectrograms, floats (B, time, features)"),
    "image": ((4, 5), jnp.uint8, "images, uint8 (B, height, width, 3), or videos (B, frames, height, width, 3)"),
}


class PretrainedEncoder(nn.Module):
    """The backbone's output, averaged and normalised, through one hidden layer with dropout, projected to ``dim``.

    A frozen backbone's vectors can replace the raw inputs, computed once. The frames of a video are folded into the
    batch and their vectors averaged; a spectrogram is an image of one channel. Frames of zeros are missing or padding
    and count in no mean.

    Attributes:
      dim: width of the representation.
      architecture: a name of :data:`ARCHITECTURES`.
      width: width of the hidden layer.
      vocab_size: number of token ids, for texts.
      frozen: whether the backbone is not trained.
      scratch: without published weights: convolutions are normalised by :class:`ExampleNorm`, not fixed statistics.
      dropout: rate on the hidden layer.
      remat: recompute the backbone's activations for the gradient.
      scan_layers: compile one layer and loop over them, where the backbone's are equal.

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
    scan_layers: bool = False
    dtype: jnp.dtype = jnp.float32

    def setup(self) -> None:
        """Names the parts."""
        backbone = ARCHITECTURES[self.architecture].make(self.vocab_size, self.remat, self.dtype)
        by_example = self.scratch and hasattr(backbone, "norm")
        changed: dict[str, Any] = {"norm": ExampleNorm} if by_example else {}
        if self.scan_layers and hasattr(backbone, "scan_layers"):
            changed["scan_layers"] = True
        self.backbone = backbone.clone(parent=None, **changed) if changed else backbone
        self.norm = nn.LayerNorm(dtype=self.dtype)
        self.hidden = nn.Dense(self.width, dtype=self.dtype)
        self.drop = ExampleDropout(self.dropout)
        self.project = nn.Dense(self.dim, dtype=self.dtype)

    def features(self, inputs: Array) -> Float[Array, "batch width"]:
        """The backbone's vectors of token ids (B, L), uint8 images (B, H, W, 3), videos or spectrograms (B, T, F).

        Raises:
          ValueError: the inputs have another shape or dtype.
        """
        known = ARCHITECTURES[self.architecture]
        _check_inputs(inputs, known)
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
        # The first token represents the image; maps are averaged over positions.
        return x[:, 0] if x.ndim == 3 else x.mean((1, 2))

    def __call__(self, inputs: Array, keys: PRNGKeyArray | None = None) -> Float[Array, "batch dim"]:
        """Returns representations (B, dim) of raw inputs, or of a frozen backbone's vectors; ``keys`` (B,): dropout."""
        is_vectors = self.frozen and inputs.ndim == 2 and jnp.issubdtype(inputs.dtype, jnp.floating)
        width = ARCHITECTURES[self.architecture].width
        if is_vectors and inputs.shape[1] != width:
            raise ValueError(f"vectors have shape {inputs.shape}: {self.architecture} has (B, {width}).")
        x = inputs.astype(self.dtype) if is_vectors else self.features(inputs)
        return self.project(self.drop(nn.relu(self.hidden(self.norm(x))), keys))


def _check_inputs(inputs: Array, known: Architecture) -> None:
    """Refuses inputs that would be computed with, but mean something else, such as pixels from 0 to 1."""
    axes, dtype, expected = _INPUTS[known.kind]
    fits = inputs.ndim in axes and jnp.issubdtype(inputs.dtype, dtype)
    if not fits or (known.kind == "image" and inputs.shape[-1] != len(known.mean)):
        raise ValueError(f"inputs have shape {inputs.shape} and dtype {inputs.dtype}: expected {expected}.")


def mean_place(x: Float[Array, "batch rows columns width"], inside: Bool[Array, "batch time"]) -> Array:
    """The mean (B, width) over the rows of a map that cover any frame inside, zero if none does.

    Examples:
      >>> x = jnp.array([2.0, 4.0, 9.0]).reshape(1, 3, 1, 1)
      >>> print(mean_place(x, jnp.array([[True, True, True, False, False, False]])))
      [[3.]]
    """
    rows = x.shape[1]
    stretch = -(-inside.shape[1] // rows)
    seen = jnp.pad(inside, ((0, 0), (0, rows * stretch - inside.shape[1]))).reshape(-1, rows, stretch).any(2)
    return mean_token(x.mean(2), seen)
