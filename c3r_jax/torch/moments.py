"""Centred moments for the first stage, of the global batch and merged over batches."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from c3r_jax.torch.batch import Where, check_counts, global_count, global_mean, keep, not_zero, promote, weigh
from c3r_jax.torch.processes import Group, global_sum


class Moments(NamedTuple):
    """Count, mean and centred (population) covariance of rows: all that a first stage needs.

    Attributes:
      count: number of rows, as a float.
      mean: (p,).
      cov: (p, p).

    With three or more modalities, of which some may be missing, every field has one more axis in front, of modalities:
    each has its own rows (:func:`c3r_jax.torch.available.available_moments`).
    """

    count: Float[Tensor, "*modalities"]
    mean: Float[Tensor, "*modalities p"]
    cov: Float[Tensor, "*modalities p p"]

    def detach(self) -> "Moments":
        """The same numbers as constants."""
        return Moments(*(value.detach() for value in self))


def batch_moments(x: Float[Tensor, "batch p"], *, where: Where | None = None, group: Group | None = None) -> Moments:
    """Moments of the valid rows of the global batch: two sums over processes, the second centred (no cancellation).

    Args:
      x: (B, p) rows.
      where: (B,) bool, rows that count; None: all.
      group: process group over which the batch is split.

    Returns:
      :class:`Moments` in float32 or wider; zeros when no row counts.
    """
    where = check_counts(where, x.shape[0], x.device)
    x = keep(where, promote(x))
    count = global_count(where, group, x.dtype)
    mean = global_mean(x, where, group)
    centred = keep(where, x - mean[None, :])
    return Moments(count, mean, global_sum(weigh(where, centred).T @ centred, group) / not_zero(count))


def merge_moments(a: Moments, b: Moments) -> Moments:
    """Moments of the rows of ``a`` and ``b`` together, exactly (Chan's formula); forget by shrinking ``a.count`` first.

    Examples:
      >>> x = torch.tensor([[1.0], [3.0], [5.0], [7.0]])
      >>> merged = merge_moments(batch_moments(x[:2]), batch_moments(x[2:]))
      >>> merged.count.item(), merged.mean.item(), merged.cov.item()
      (4.0, 4.0, 5.0)
    """
    count = a.count + b.count
    share = b.count / torch.where(count > 0, count, 1)
    delta = b.mean - a.mean
    part = share[..., None, None]
    cov = a.cov * (1 - part) + b.cov * part + part * (1 - part) * delta[..., :, None] * delta[..., None, :]
    return Moments(count, a.mean + share[..., None] * delta, cov)
