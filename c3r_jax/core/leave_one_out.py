"""Leave-one-out ridge regression in closed form: what each row's prediction would be, had the fit not seen the row."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from c3r_jax.core.batch import (
    HIGHEST,
    Weighted,
    Where,
    check_counts,
    check_float,
    counted,
    global_sum,
    keep,
    not_zero,
    promote,
    weigh,
)
from c3r_jax.core.first_stage import f_statistic, penalised, varying_covariance
from c3r_jax.core.linear_solve import solve_spd
from c3r_jax.core.moments import batch_moments


class LeaveOneOut(NamedTuple):
    """Predictions of each row by a fit to all the others.

    Attributes:
      predicted: (B, d); 0 in excluded rows.
      residual: (B, d) regressor minus prediction; 0 in excluded rows.
      leverage: (B,) diagonal of the hat matrix, intercept included; 0 in excluded rows.
      r2: (d,) 1 - PRESS / TSS, both leave-one-out: about 0, or below, where nothing is explained; 0 for a constant.
      f_stat: (d,) F statistics of ``r2`` (p and n - p - 1 degrees of freedom), at least 0; NaN when n <= p + 1.
      count: number of rows fitted.
    """

    predicted: Float[Array, "batch d"]
    residual: Float[Array, "batch d"]
    leverage: Float[Array, " batch"]
    r2: Float[Array, " d"]
    f_stat: Float[Array, " d"]
    count: Float[Array, ""]


def leave_one_out(
    instrument: Float[Array, "batch p"],
    regressor: Float[Array, "batch d"],
    *,
    ridge: float | Array = 1e-2,
    where: Where | None = None,
    axis_name: str | None = None,
) -> LeaveOneOut:
    r"""Ridge regression with an intercept, each row predicted by the fit to the others; exact, at the cost of one fit.

    .. math::
       H_{ii} = \tfrac1n \left(1 + (v_i - \bar v)^T A^{-1} (v_i - \bar v)\right), \quad
       h_i - \hat h_i^{(-i)} = \frac{h_i - \hat h_i}{1 - H_{ii}}

    with A of :func:`c3r_jax.first_stage`. It is the fit to the other rows with the penalty n ridge tr(Cov v) / p of all
    rows. Only moments are summed over devices; the leverage needs this device's rows alone.

    Args:
      instrument: (B, p) v.
      regressor: (B, d) h.
      ridge: penalty relative to the mean variance of v.
      where: (B,) bool, rows that count; None: all. Of a :class:`Weighted` row, what is left out counts at most 1: of a
        row of weight 2 one of two copies.
      axis_name: mapped axis over which the batch is split.

    Returns:
      :class:`LeaveOneOut`.

    Raises:
      ValueError: on wrong shapes or dtypes.

    Examples:
      >>> import numpy as np, jax.numpy as jnp
      >>> v = jnp.array([[0.0], [1.0], [2.0], [3.0]])
      >>> found = leave_one_out(v, jnp.array([[0.0], [1.0], [2.0], [6.0]]), ridge=0.0)
      >>> print(np.asarray(found.predicted[3]).round(3), np.asarray(found.leverage).round(3))  # 0, 1, 2 go on to 3
      [3.] [0.7 0.3 0.3 0.7]

    References:
      D. M. Allen, The relationship between variable selection and data augmentation and a method for prediction, 1974.
    """
    v, h = promote(check_float("instrument", instrument, 2)), promote(check_float("regressor", regressor, 2))
    if v.shape[0] != h.shape[0]:
        raise ValueError(f"instrument has shape {v.shape}, but regressor {h.shape}: the rows must agree.")
    rows = check_counts(where, v.shape[0])
    v, h = keep(rows, v), keep(rows, h)
    p, d = v.shape[1], h.shape[1]
    moments = batch_moments(jnp.concatenate([v, h], axis=1), where=rows, axis_name=axis_name)
    count, mean_v, mean_h = moments.count, moments.mean[:p], moments.mean[p:]
    cov = varying_covariance(moments)
    a, condition = penalised(cov[:p, :p], ridge)
    spread = keep(rows, v - mean_v[None, :])
    # One solve for the coefficients and for the leverages.
    solved = solve_spd(a, jnp.concatenate([cov[:p, p:], spread.T], axis=1), condition=condition)
    coef, whitened = solved[:, :d], solved[:, d:].T
    leverage = keep(rows, (1 + (spread * whitened).sum(1)) / not_zero(count))
    if isinstance(rows, Weighted):
        leverage = leverage * jnp.minimum(counted(rows, leverage.dtype), 1)
    fitted = mean_h[None, :] + jnp.matmul(spread, coef, precision=HIGHEST)
    spare = 1 - leverage
    residual = keep(rows, (h - fitted) / jnp.where(spare > 0, spare, jnp.inf)[:, None])
    press = global_sum(weigh(rows, jnp.square(residual)).sum(0), axis_name)
    grown = count / jnp.maximum(count - 1, 1)  # a row's distance from the mean of the others
    total = jnp.square(grown) * count * jnp.diagonal(cov)[p:]
    r2 = jnp.where(total > 0, 1 - press / jnp.where(total > 0, total, 1), 0)
    f_stat = f_statistic(jnp.clip(r2, 0), p, count)
    return LeaveOneOut(keep(rows, h - residual), residual, leverage, r2, f_stat, count)
