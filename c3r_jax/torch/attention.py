"""The attention instrument: one modality attends to the others, calibrated to the scale of z."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from c3r_jax.torch.batch import promote
from c3r_jax.torch.moments import Moments


def attend(
    features: Mapping[str, Float[Tensor, "batch d"]],
    present: Bool[Tensor, "batch modalities"],
    *,
    num_heads: int = 1,
    keys: str = "others",
) -> tuple[Float[Tensor, "batch d"], Bool[Tensor, " batch"]]:
    """The instrument as attention, as in the paper: each modality's token attends to the other modalities' tokens.

    Scaled dot products with identity projections; v is the mean over the modalities that had a key to attend to.

    Args:
      features: {name: (B, d)}, all of equal width.
      present: (B, M) bool; absent tokens are not keys.
      num_heads: heads, each over d / num_heads features.
      keys: "others" (leave-one-out) or "all".

    Returns:
      v (B, d) in float32 or wider, and which rows have a v (B,).

    Raises:
      ValueError: if widths differ, d is not a multiple of num_heads, or ``keys`` is unknown.
    """
    widths = {name: h.shape[1] for name, h in features.items()}
    d = next(iter(widths.values()))
    if len(set(widths.values())) != 1:
        raise ValueError(f"instrument 'attention' needs modalities of equal width, but the features have {widths}.")
    if d % num_heads:
        raise ValueError(f"num_heads is {num_heads}, but a divisor of the feature width {d} was expected.")
    if keys not in ("others", "all"):
        raise ValueError(f"attention keys {keys!r} are unknown: expected 'others' or 'all'.")
    tokens = torch.stack([promote(h) for h in features.values()], dim=1)  # (B, M, d)
    batch, modalities, _ = tokens.shape
    split = tokens.reshape(batch, modalities, num_heads, d // num_heads)
    scores = torch.einsum("bqhc,bkhc->bhqk", split, split) * (d // num_heads) ** -0.5
    visible = present[:, None, :].expand(batch, modalities, modalities)
    if keys == "others":
        visible = visible & ~torch.eye(modalities, dtype=torch.bool, device=present.device)[None]
    weights = scores.masked_fill(~visible[:, None], torch.finfo(scores.dtype).min).softmax(-1)
    attended = torch.einsum("bhqk,bkhc->bqhc", weights, split).reshape(tokens.shape)
    has_key = visible.any(-1)
    count = has_key.sum(1)
    v = torch.where(has_key[..., None], attended, 0).sum(1) / count.clamp(min=1)[:, None]
    return v, count > 0


class Calibration(NamedTuple):
    """Per-feature least squares of z on v: z_c = mean_z + slope * (v - mean_v).

    Attributes:
      mean_v: (d,). mean_z: (d,). slope: (d,), 0 where v does not vary.
    """

    mean_v: Float[Tensor, " d"]
    mean_z: Float[Tensor, " d"]
    slope: Float[Tensor, " d"]

    def apply(self, v: Float[Tensor, "rows d"]) -> Float[Tensor, "rows d"]:
        """Maps v to the mean and scale of z."""
        return self.mean_z[None, :] + self.slope[None, :] * (v - self.mean_v[None, :])


def calibration(moments: Moments) -> Calibration:
    """Reads the per-feature least squares of z on v from the joint moments of their columns [v, z].

    Examples:
      >>> from c3r_jax.torch.moments import batch_moments
      >>> v = torch.tensor([[0.0], [1.0], [2.0]])
      >>> line = calibration(batch_moments(torch.cat([v, 3 * v + 1], dim=1)))
      >>> line.slope, line.apply(torch.tensor([[4.0]]))
      (tensor([3.]), tensor([[13.]]))
    """
    d = moments.mean.shape[0] // 2
    mean_v, mean_z = moments.mean[:d], moments.mean[d:]
    variance, covariance = moments.cov.diagonal()[:d], moments.cov.diagonal(offset=d)
    varies = variance > (8 * torch.finfo(variance.dtype).eps * mean_v).square()
    slope = torch.where(varies, covariance / torch.where(varies, variance, 1), 0)
    return Calibration(mean_v, mean_z, slope)
