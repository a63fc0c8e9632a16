"""Videos: frames through an image encoder, averaged over time."""

import flax.linen as nn
import jax
from jaxtyping import Array, Float, PRNGKeyArray, UInt8


class VideoEncoder(nn.Module):
    """An image encoder on each frame, averaged over the frames.

    Attributes:
      frame: the image encoder; its dropout differs between frames.
    """

    frame: nn.Module

    def __call__(
        self, frames: UInt8[Array, "batch frames height width channels"], keys: PRNGKeyArray | None = None
    ) -> Float[Array, "batch dim"]:
        """Returns representations; ``keys`` (B,) turn dropout on."""
        if frames.ndim != 5:
            raise ValueError(f"a video has shape {frames.shape}: expected (B, frames, height, width, channels).")
        batch, count = frames.shape[:2]
        if keys is not None:
            keys = jax.vmap(lambda key: jax.random.split(key, count))(keys).reshape(-1)
        h = self.frame(frames.reshape(-1, *frames.shape[2:]), keys)
        return h.reshape(batch, count, *h.shape[1:]).mean(1)
