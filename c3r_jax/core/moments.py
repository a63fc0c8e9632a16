"""Centred moments for the first stage, of the global batch and merged over batches."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from c3r_jax.core.batch import (
    HIGHEST,
    Where,
    check_counts,
    global_count,
    global_mean,
    global_sum,
    keep,
    not_zero,
    promote,
    weigh,
)


class Moments(NamedTuple):
    """Count, mean and centred (population) covariance of rows: all that a first stage needs.

    Attributes:
      count: number of rows, as a float.
      mean: (p,).
      cov: (p, p).

    With three or more modalities, of which some may be missing, every field has one more axis in front, of modalities:
    each has its own rows (:func:`c3r_jax.core.available.available_moments`).
    """

    count: Float[Array, "*modalities"]
    mean: Float[Array, "*modalities p"]
    cov: Float[Array, "*modalities p p"]


def batch_moments(x: Float[Array, "batch p"], *, where: Where | None = None, axis_name: str | None = None) -> Moments:
    """Moments of the valid rows of the global batch: two sums over devices, the second centred (no cancellation).

    Args:
      x: (B, p) rows.
      where: (B,) bool, rows that count; None: all.
      axis_name: mapped axis over which the batch is split.

    Returns:
      :class:`Moments` in float32 or wider; zeros when no row counts.
    """
    rows = check_counts(where, x.shape[0])
    x = keep(rows, promote(x))
    count = global_count(rows, axis_name, x.dtype)
    mean = global_mean(x, rows, axis_name)
    centred = keep(rows, x - mean[None, :])
    cov = global_sum(jnp.matmul(weigh(rows, centred).T, centred, precision=HIGHEST), axis_name) / not_zero(count)
    return Moments(count, mean, cov)


def merge_moments(a: Moments, b: Moments) -> Moments:
    """Moments of the rows of ``a`` and ``b`` together, exactly (Chan's formula); forget by shrinking ``a.count`` first.

    Examples:
      >>> import jax.numpy as jnp
      >>> x = jnp.array([[1.0], [3.0], [5.0], [7.0]])
      >>> merged = merge_moments(batch_moments(x[:2]), batch_moments(x[2:]))
      >>> print(merged.count, merged.mean, merged.cov)
      4.0 [4.] [[5.]]
    """
    count = a.count + b.count
    share = b.count / jnp.where(count > 0, count, 1)
    delta = b.mean - a.mean
    part = share[..., None, None]
    cov = a.cov * (1 - part) + b.cov * part + part * (1 - part) * delta[..., :, None] * delta[..., None, :]
    return Moments(count, a.mean + share[..., None] * delta, cov)
