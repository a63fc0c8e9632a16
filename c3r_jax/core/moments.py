"""Centred moments for the first stage, of the global batch and merged over batches."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

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

WIDE = 128  # columns from which half a covariance is sent


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
    products = jnp.matmul(weigh(rows, centred).T, centred, precision=HIGHEST)
    return Moments(count, mean, symmetric_mean(products, not_zero(count), axis_name))


def symmetric_mean(x: Float[Array, "p p"], count: Float[Array, ""], axis_name: str | None) -> Float[Array, "p p"]:
    """The sum of symmetric matrices over devices, divided by ``count``; half is sent, the rest is its mirror image.

    Small matrices are sent as they are: there the number of operations counts, and not the bytes.

    Args:
      x: symmetric up to rounding.
      count: what to divide by.
      axis_name: mapped axis; None: ``x`` itself, divided.
    """
    if not axis_name or x.shape[0] < WIDE:
        return global_sum(x, axis_name) / count
    spare = x.shape[0] % 2
    half = global_sum(folded(jnp.pad(x, (0, spare))), axis_name) / count
    return unfolded(half)[: x.shape[0], : x.shape[0]]


def folded(x: Float[Array, "p p"]) -> Float[Array, "half p"]:
    """The numbers of a symmetric matrix that differ, as (p / 2 + 1, p), for even p.

    Of its blocks ((A, B^T), (B, C)), B is whole; beside it are the lower triangle of A, with its diagonal, and the
    upper one of C; the last row has C's diagonal. Numbers keep their column of a block: a TPU moves them slowly.

    Examples:
      >>> import jax.numpy as jnp
      >>> print(folded(jnp.array([[1, 2, 3, 4], [2, 5, 6, 7], [3, 6, 8, 9], [4, 7, 9, 10]])))
      [[ 3  6  1  9]
       [ 4  7  2  5]
       [ 8 10  0  0]]
    """
    k = x.shape[0] // 2
    last, first = x[k:, k:], x[:k, :k]
    triangles = jnp.where(_lower(k), first, last)
    ends = jnp.pad(diagonal(last), (0, k))
    return jnp.concatenate([jnp.concatenate([x[k:, :k], triangles], axis=1), ends[None, :]], axis=0)


def unfolded(numbers: Float[Array, "half p"]) -> Float[Array, "p p"]:
    """The symmetric matrix that :func:`folded` made ``numbers`` of.

    Examples:
      >>> import jax.numpy as jnp
      >>> print(unfolded(jnp.array([[2, 1], [3, 0]])))
      [[1 2]
       [2 3]]
    """
    k = numbers.shape[0] - 1
    between, triangles, ends = numbers[:k, :k], numbers[:k, k:], numbers[k, :k]
    lower, mirrored = _lower(k), triangles.T
    first = jnp.where(lower, triangles, mirrored)
    last = jnp.where(jnp.eye(k, dtype=bool), ends[None, :], jnp.where(lower, mirrored, triangles))
    return jnp.concatenate(
        [jnp.concatenate([first, between.T], axis=1), jnp.concatenate([between, last], axis=1)], axis=0
    )


def _lower(k: int) -> Bool[Array, "k k"]:
    return jnp.arange(k)[:, None] >= jnp.arange(k)[None, :]


def diagonal(square: Float[Array, "p p"]) -> Float[Array, " p"]:
    """The diagonal of a matrix. ``jnp.diagonal`` gathers, and scatters for the gradient: more to compile and to run."""
    return jnp.where(jnp.eye(square.shape[0], dtype=bool), square, 0).sum(0)


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
