"""Leave-one-out ridge regression in closed form: what each row's prediction would be, had the fit not seen the row."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from c3r_jax.torch.batch import Weighted, Where, check_counts, check_float, counted, keep, not_zero, promote, weigh
from c3r_jax.torch.first_stage import f_statistic, penalised, varying_covariance
from c3r_jax.torch.linear_solve import solve_spd
from c3r_jax.torch.moments import batch_moments
from c3r_jax.torch.processes import Group, global_sum


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

    predicted: Float[Tensor, "batch d"]
    residual: Float[Tensor, "batch d"]
    leverage: Float[Tensor, " batch"]
    r2: Float[Tensor, " d"]
    f_stat: Float[Tensor, " d"]
    count: Float[Tensor, ""]


def leave_one_out(
    instrument: Float[Tensor, "batch p"],
    regressor: Float[Tensor, "batch d"],
    *,
    ridge: float = 1e-2,
    where: Where | None = None,
    group: Group | None = None,
) -> LeaveOneOut:
    r"""Ridge regression with an intercept, each row predicted by the fit to the others; exact, at the cost of one fit.

    .. math::
       H_{ii} = \tfrac1n \left(1 + (v_i - \bar v)^T A^{-1} (v_i - \bar v)\right), \quad
       h_i - \hat h_i^{(-i)} = \frac{h_i - \hat h_i}{1 - H_{ii}}

    with A of :func:`c3r_jax.torch.first_stage`. It is the fit to the other rows with the penalty n ridge tr(Cov v) / p
    of all rows. Only moments are summed over processes; the leverage needs this process's rows alone.

    Args:
      instrument: (B, p) v.
      regressor: (B, d) h.
      ridge: penalty relative to the mean variance of v.
      where: (B,) bool, rows that count; None: all. Of a :class:`Weighted` row, what is left out counts at most 1.
      group: process group over which the batch is split.

    Returns:
      :class:`LeaveOneOut`.

    Raises:
      ValueError: on wrong shapes or dtypes.

    Examples:
      >>> v = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
      >>> found = leave_one_out(v, torch.tensor([[0.0], [1.0], [2.0], [6.0]]), ridge=0.0)
      >>> round(found.predicted[3].item(), 3), [round(x, 3) for x in found.leverage.tolist()]  # 0, 1, 2 go on to 3
      (3.0, [0.7, 0.3, 0.3, 0.7])

    References:
      D. M. Allen, The relationship between variable selection and data augmentation and a method for prediction, 1974.
    """
    v, h = promote(check_float("instrument", instrument, 2)), promote(check_float("regressor", regressor, 2))
    if v.shape[0] != h.shape[0]:
        raise ValueError(f"instrument has shape {tuple(v.shape)}, but regressor {tuple(h.shape)}: the rows must agree.")
    rows = check_counts(where, v.shape[0], v.device)
    v, h = keep(rows, v), keep(rows, h)
    p, d = v.shape[1], h.shape[1]
    moments = batch_moments(torch.cat([v, h], dim=1), where=rows, group=group)
    count, mean_v, mean_h = moments.count, moments.mean[:p], moments.mean[p:]
    cov, _ = varying_covariance(moments)
    spread = keep(rows, v - mean_v[None, :])
    # One solve for the coefficients and for the leverages.
    solved = solve_spd(penalised(cov[:p, :p], ridge), torch.cat([cov[:p, p:], spread.T], dim=1))
    coef, whitened = solved[:, :d], solved[:, d:].T
    leverage = keep(rows, (1 + (spread * whitened).sum(1)) / not_zero(count))
    if isinstance(rows, Weighted):
        leverage = leverage * counted(rows, leverage.dtype).clamp(max=1)
    fitted = mean_h[None, :] + spread @ coef
    spare = 1 - leverage
    residual = keep(rows, (h - fitted) / torch.where(spare > 0, spare, torch.inf)[:, None])
    press = global_sum(weigh(rows, residual.square()).sum(0), group)
    grown = count / (count - 1).clamp(min=1)  # a row's distance from the mean of the others
    total = grown.square() * count * cov.diagonal()[p:]
    r2 = torch.where(total > 0, 1 - press / torch.where(total > 0, total, 1), 0)
    return LeaveOneOut(keep(rows, h - residual), residual, leverage, r2, f_statistic(r2.clamp(min=0), p, count), count)
