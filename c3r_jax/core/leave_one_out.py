"""Leave-one-out ridge regression in closed form: what each row's prediction would be, had the fit not seen the row."""

from typing import Any, NamedTuple

import jax
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
from c3r_jax.core.first_stage import diagonal, f_statistic, penalised, varying_covariance
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
    v, h, rows = _checked(instrument, regressor, where)
    p, d = v.shape[1], h.shape[1]
    moments = batch_moments(jnp.concatenate([v, h], axis=1), where=rows, axis_name=axis_name)
    count, mean_v, mean_h = moments.count, moments.mean[:p], moments.mean[p:]
    cov = varying_covariance(moments)
    a, condition = penalised(cov[:p, :p], ridge)
    spread = keep(rows, v - mean_v[None, :])
    # One solve for the coefficients and for the leverages.
    solved = solve_spd(a, jnp.concatenate([cov[:p, p:], spread.T], axis=1), condition=condition)
    coef, whitened = solved[:, :d], solved[:, d:].T
    leverage = _leverage(rows, (spread * whitened).sum(1), count)
    residual = _left_out(rows, h, mean_h[None, :] + jnp.matmul(spread, coef, precision=HIGHEST), leverage)
    press = global_sum(weigh(rows, jnp.square(residual)).sum(0), axis_name)
    grown = count / jnp.maximum(count - 1, 1)  # a row's distance from the mean of the others
    total = jnp.square(grown) * count * jnp.diagonal(cov)[p:]
    r2 = jnp.where(total > 0, 1 - press / jnp.where(total > 0, total, 1), 0)
    f_stat = f_statistic(jnp.clip(r2, 0), p, count)
    return LeaveOneOut(keep(rows, h - residual), residual, leverage, r2, f_stat, count)


def press_by_ridge(
    instrument: Float[Array, "rows p"],
    regressor: Float[Array, "rows d"],
    ridges: Float[Array, " r"],
    *,
    where: Where | None = None,
) -> Float[Array, " r"]:
    r"""The sum of all squared residuals of :func:`leave_one_out` for each ridge, from one eigendecomposition.

    With :math:`\mathrm{Cov}(v) = U \,\mathrm{diag}(s)\, U^T` every :math:`A^{-1}` is
    :math:`U \,\mathrm{diag}(1 / (s + \text{penalty}))\, U^T`.

    Args:
      instrument: (n, p) v.
      regressor: (n, d) h.
      ridges: (r,) penalties relative to the mean variance of v, above 0.
      where: (n,) bool, rows that count; None: all.

    Returns:
      (r,) sums.

    Raises:
      ValueError: on wrong shapes or dtypes.

    Examples:
      >>> import jax.numpy as jnp
      >>> v, h = jnp.array([[0.0], [1.0], [2.0], [3.0]]), jnp.array([[0.0], [1.0], [2.0], [6.0]])
      >>> [round(float(x), 1) for x in press_by_ridge(v, h, jnp.array([1e-6, 1.0]))]
      [16.1, 24.2]
    """
    v, h, rows = _checked(instrument, regressor, where)
    p = v.shape[1]
    moments = batch_moments(jnp.concatenate([v, h], axis=1), where=rows)
    cov, mean_v, mean_h = varying_covariance(moments), moments.mean[:p], moments.mean[p:]
    values, directions = jnp.linalg.eigh(cov[:p, :p])
    spectrum = jnp.maximum(values, 0)  # rounding can take a 0 below 0
    turned = jnp.matmul(keep(rows, v - mean_v[None, :]), directions, precision=HIGHEST)
    between = jnp.matmul(directions.T, cov[:p, p:], precision=HIGHEST)

    def press(ridge: Array) -> Array:
        size = spectrum + ridge * diagonal(cov[:p, :p]).sum() / p
        inverse = jnp.where(size > 0, 1 / jnp.where(size > 0, size, 1), 0)
        leverage = _leverage(rows, jnp.matmul(jnp.square(turned), inverse, precision=HIGHEST), moments.count)
        coef = inverse[:, None] * between
        fitted = mean_h[None, :] + jnp.matmul(turned, coef, precision=HIGHEST)
        return jnp.square(_left_out(rows, h, fitted, leverage)).sum()

    return jax.lax.map(press, ridges)


def _checked(instrument: Any, regressor: Any, where: Where | None) -> tuple[Array, Array, Any]:
    """V and h, 0 in excluded rows, and which rows count."""
    v, h = promote(check_float("instrument", instrument, 2)), promote(check_float("regressor", regressor, 2))
    if v.shape[0] != h.shape[0]:
        raise ValueError(f"instrument has shape {v.shape}, but regressor {h.shape}: the rows must agree.")
    rows = check_counts(where, v.shape[0])
    return keep(rows, v), keep(rows, h), rows


def _leverage(rows: Any, distance: Float[Array, " batch"], count: Float[Array, ""]) -> Float[Array, " batch"]:
    """The diagonal of the hat matrix, from (v - mean)^T A^-1 (v - mean) of each row."""
    leverage = keep(rows, (1 + distance) / not_zero(count))
    return leverage * jnp.minimum(counted(rows, leverage.dtype), 1) if isinstance(rows, Weighted) else leverage


def _left_out(rows: Any, h: Array, fitted: Array, leverage: Array) -> Float[Array, "batch d"]:
    """Residuals of each row by the fit to the others."""
    spare = 1 - leverage
    return keep(rows, (h - fitted) / jnp.where(spare > 0, spare, jnp.inf)[:, None])
