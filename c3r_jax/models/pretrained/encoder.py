"""A published encoder inside the twin network: one vector per example, projected to the width of the others."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from c3r_jax.models.encoders import ExampleDropout
from c3r_jax.models.pretrained.architectures import ARCHITECTURES, pixels
from c3r_jax.models.pretrained.bert import mean_token


class PretrainedEncoder(nn.Module):
    """The backbone's mean token or mean pixel, normalised, through one hidden layer with dropout, projected to ``dim``.

    A frozen backbone's vectors can be given in place of the raw inputs, computed once for all.

    Attributes:
      dim: width of the representation.
      architecture: a name of :data:`ARCHITECTURES`.
      width: of the hidden layer.
      vocab_size: number of token ids, of texts.
      frozen: whether the backbone keeps its weights.
      dropout: rate on the hidden layer.
      remat: compute the backbone's activations again for the gradient.
    """

    dim: int
    architecture: str
    width: int = 64
    vocab_size: int = 0
    frozen: bool = True
    dropout: float = 0.0
    remat: bool = False
    dtype: jnp.dtype = jnp.float32

    def setup(self) -> None:
        """Names the parts."""
        self.backbone = ARCHITECTURES[self.architecture].make(self.vocab_size, self.remat, self.dtype)
        self.norm = nn.LayerNorm(dtype=self.dtype)
        self.hidden = nn.Dense(self.width, dtype=self.dtype)
        self.drop = ExampleDropout(self.dropout)
        self.project = nn.Dense(self.dim, dtype=self.dtype)

    def features(self, inputs: Array) -> Float[Array, "batch width"]:
        """The backbone's vectors of uint8 images (B, H, W, 3) or token ids (B, L)."""
        known = ARCHITECTURES[self.architecture]
        if known.kind == "text":
            x = mean_token(self.backbone(inputs), inputs != 0)
        else:
            x = self.backbone(pixels(inputs, known, self.dtype))
            # Of tokens the first stands for the image, of maps the mean over places.
            x = x[:, 0] if x.ndim == 3 else x.mean((1, 2))
        return jax.lax.stop_gradient(x) if self.frozen else x

    def __call__(self, inputs: Array, keys: PRNGKeyArray | None = None) -> Float[Array, "batch dim"]:
        """Returns representations (B, dim) of raw inputs, or of a frozen backbone's vectors; ``keys`` (B,): dropout."""
        given = self.frozen and inputs.ndim == 2 and jnp.issubdtype(inputs.dtype, jnp.floating)
        x = inputs.astype(self.dtype) if given else self.features(inputs)
        return self.project(self.drop(nn.relu(self.hidden(self.norm(x))), keys))
