"""First stages of three or more modalities where some are missing: moments of the rows that each stage can use.

The stage of modality m is fitted on the rows that have m and at least one other; an absent block of the instrument
counts as its mean over those rows, as it does in prediction (:func:`c3r_jax.core.first_stage.apply_modalities`). The
mean is not known before all rows are seen. The moments are therefore those of the columns, 0 where absent, and of the
indicators of presence: an absent value replaced by any constant is linear in both, so that batches and devices still
merge exactly.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from c3r_jax.core.batch import HIGHEST, Where, keep, like, mask_of, promote
from c3r_jax.core.moments import Moments, batch_moments, diagonal


def available_rows(
    present: Bool[Array, "batch modalities"], where: Bool[Array, " batch"]
) -> Bool[Array, "modalities batch"]:
    """Rows of each modality's first stage: those that have it and another one.

    Examples:
      >>> import jax.numpy as jnp
      >>> present = jnp.array([[True, True, False], [True, False, False]])
      >>> print(available_rows(present, jnp.array([True, True])).sum(1))
      [1 1 0]
    """
    known = present & where[:, None]
    return (known & (known.sum(1, keepdims=True) > 1)).T


def stage_rows(present: Bool[np.ndarray, "rows modalities"], kind: str) -> Bool[np.ndarray, "modalities rows"]:
    """Rows of each modality's first stage, by ``C3RConfig.stage_rows``: "available" or "complete"; nothing is compiled.

    Examples:
      >>> present = np.array([[True, True, False], [True, True, True]])
      >>> print(stage_rows(present, "complete").sum(1), stage_rows(present, "available").sum(1))
      [1 1 1] [2 2 1]
    """
    if kind == "available":
        return (present & (present.sum(1, keepdims=True) > 1)).T
    return np.repeat(present.all(1, keepdims=True).T, present.shape[1], axis=0)


def available_moments(
    blocks: Mapping[str, Float[Array, "batch _"]],
    present: Bool[Array, "batch modalities"],
    where: Where,
    axis_name: str | None = None,
) -> Moments:
    """Moments of every modality's rows, (M,), (M, p + M) and (M, p + M, p + M); the last M columns are indicators.

    Args:
      blocks: {name: (B, d_name)} in the order of ``present``.
      present: (B, M) bool.
      where: (B,) bool, rows that count.
      axis_name: mapped axis over which the batch is split.
    """
    values = [keep(present[:, m], promote(h)) for m, h in enumerate(blocks.values())]
    x = jnp.concatenate([*values, present.astype(values[0].dtype)], axis=1)
    usable = available_rows(present, mask_of(where))
    return jax.vmap(lambda rows: batch_moments(x, where=like(where, rows), axis_name=axis_name))(usable)


def imputed_moments(moments: Moments, blocks: Mapping[str, slice]) -> Moments:
    r"""Moments of the columns in the rows of one modality's stage, absent blocks at their mean.

    .. math::
       \mu_b = E[x_b] / E[a_b], \quad x_b + (1 - a_b) \mu_b = (I, -\mu_b) (x_b, a_b)^T + \mu_b

    Args:
      moments: one modality's of :func:`available_moments`, of one or more batches: (), (p + M,) and (p + M, p + M).
      blocks: {name: columns} from :func:`c3r_jax.core.first_stage.columns`.

    Returns:
      :class:`Moments` of width p.
    """
    p = moments.mean.shape[0] - len(blocks)
    mean, cov = moments.mean, moments.cov
    widths = [columns.stop - columns.start for columns in blocks.values()]
    block = np.repeat(np.arange(len(blocks)), widths)
    shares = [jnp.broadcast_to(mean[p + b], width) for b, width in enumerate(widths)]
    share = jnp.concatenate(shares)  # of the rows that have each column
    centre = jnp.where(share > 0, mean[:p] / jnp.where(share > 0, share, 1), 0)
    of_indicators = -centre[:, None] * jax.nn.one_hot(block, len(blocks), dtype=cov.dtype)
    crossed = jnp.matmul(of_indicators, cov[p:, :p], precision=HIGHEST)
    between = jnp.matmul(jnp.matmul(of_indicators, cov[p:, p:], precision=HIGHEST), of_indicators.T, precision=HIGHEST)
    imputed = cov[:p, :p] + crossed + crossed.T + between
    # What is left of a constant column after this difference is rounding, relative to the variance that presence adds.
    noise = 32 * jnp.finfo(cov.dtype).eps * jnp.square(centre) * share * (1 - share)
    varying = diagonal(imputed) > noise
    return Moments(moments.count, centre, jnp.where(varying[:, None] & varying[None, :], imputed, 0))
