"""The real-world branch: the part of each modality that the other modalities explain.

What only one modality measures (its background, camera or style) cannot be predicted from the others; a cause that all
of them measure can. The others therefore serve as an instrument for each modality. This is a modelling assumption: the
modality-specific parts must be independent of each other.
"""

import warnings
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from c3r_jax.core.batch import (
    HIGHEST,
    check_float,
    check_where,
    keep,
    promote,
    static_rows,
)
from c3r_jax.core.linear_solve import solve_spd
from c3r_jax.core.moments import Moments, batch_moments, diagonal
from c3r_jax.core.short_help import short_help


class FirstStage(NamedTuple):
    """A fitted first stage: ridge regression of a regressor on its instrument.

    Attributes:
      fitted: (B, d) regressor as predicted by the instrument, for every row.
      coef: (p, d) coefficients.
      mean_v: (p,) mean of the instrument.
      mean_h: (d,) mean of the regressor.
      r2: (d,) explained share of variance, in-sample.
      f_stat: (d,) F statistics (p and n - p - 1 degrees of freedom); NaN when n <= p + 1.
    """

    fitted: Float[Array, "batch d"]
    coef: Float[Array, "p d"]
    mean_v: Float[Array, " p"]
    mean_h: Float[Array, " d"]
    r2: Float[Array, " d"]
    f_stat: Float[Array, " d"]

    def apply(self, instrument: Float[Array, "rows p"]) -> Float[Array, "rows d"]:
        """Predicts the regressor of new rows, each on its own: mean_h + (v - mean_v) @ coef."""
        return predict_rows(self, instrument)


@short_help
def first_stage(
    instrument: Float[Array, "batch p"],
    regressor: Float[Array, "batch d"],
    *,
    ridge: float = 1e-3,
    where: Bool[Array, " batch"] | None = None,
    axis_name: str | None = None,
) -> FirstStage:
    r"""Regresses a representation on its instrument: what is explained is the candidate for the cause.

    .. math::
       B = A^{-1} \mathrm{Cov}(v, h), \quad A = \mathrm{Cov}(v) + \text{ridge} \cdot \tfrac{tr\,\mathrm{Cov}(v)}{p} I,
       \quad \hat h = \bar h + (v - \bar v) B

    with population moments of the valid rows of the global batch. Gradients go through the solve and the trace.
    R^2 = 1 - rss/tss has no additive epsilon; a constant feature has R^2 = 0 and no gradient. In-sample, the R^2 of
    pure noise is about p/n.

    Args:
      instrument: (B, p) v.
      regressor: (B, d) h.
      ridge: penalty relative to the mean variance of v; 0 is least squares.
      where: (B,) bool, rows that the fit uses; None: all.
      axis_name: mapped axis over which the batch is split.

    Returns:
      :class:`FirstStage`.

    Raises:
      ValueError: on wrong shapes or dtypes, a negative ridge, or n <= p + 1 rows.

    Warns:
      UserWarning: when n < 4 p (the fit is then mostly noise).

    Examples:
      >>> import jax.numpy as jnp
      >>> v = jnp.arange(8.0)[:, None]
      >>> stage = first_stage(v, 2 * v + 1, ridge=0.0)
      >>> print(stage.coef, stage.r2, stage.apply(jnp.array([[10.0]])))
      [[2.]] [1.] [[21.]]

    References:
      J. H. Stock, M. Yogo, Testing for weak instruments in linear IV regression, 2005.
    """
    v = promote(check_float("instrument", instrument, 2))
    h = promote(check_float("regressor", regressor, 2))
    if v.shape[0] != h.shape[0]:
        raise ValueError(f"instrument has shape {v.shape}, but regressor {h.shape}: the rows must agree.")
    rows = check_where(where, v.shape[0])
    check_rows(static_rows(v.shape[0], where, axis_name), v.shape[1])
    p = v.shape[1]
    moments = batch_moments(jnp.concatenate([v, h], axis=1), where=rows, axis_name=axis_name)
    stage = fit(moments, slice(0, p), slice(p, None), ridge=ridge)
    # Excluded rows are predicted too, but with constant coefficients, so that they affect no gradient.
    outside = predict_rows(jax.lax.stop_gradient(stage), v)
    return stage._replace(fitted=jnp.where(rows[:, None], predict_rows(stage, keep(rows, v)), outside))


def check_rows(num_rows: int | None, p: int, kind: str = "rows") -> None:
    """Refuses a first stage with fewer rows than coefficients, and warns if it is mostly noise."""
    if num_rows is None:
        return
    if num_rows <= p + 1:
        raise ValueError(
            f"the first stage has {num_rows} {kind}, but more than p + 1 = {p + 1} were expected for an instrument of "
            f"p = {p} columns: use a larger batch, fewer features, instrument='none', or where c3r_loss is called "
            "accumulated moments (moments=, docs/own_model.md)."
        )
    if num_rows < 4 * p:
        warnings.warn(
            f"the first stage has {num_rows} {kind} for p = {p} instrument columns: below 4 p = {4 * p} its R^2 is "
            "mostly noise; use a larger batch or accumulated moments.",
            stacklevel=3,
        )


def fit(moments: Moments, v: slice, h: slice, *, ridge: float | Array, stop_gradient: bool = False) -> FirstStage:
    """Fits a first stage from joint moments of instrument columns ``v`` and regressor columns ``h``; no rows needed.

    Args:
      moments: joint :class:`Moments`, possibly with a gradient.
      v: the instrument's columns.
      h: the regressor's columns.
      ridge: penalty relative to the mean variance of v.
      stop_gradient: treat the coefficients as constants (an ablation: it loses most of the gain).

    Returns:
      :class:`FirstStage` with ``fitted`` empty (0, d).
    """
    if isinstance(ridge, (int, float)) and not ridge >= 0:
        raise ValueError(f"ridge is {ridge}, but a number >= 0 was expected.")
    cov = moments.cov
    variance = diagonal(cov)
    parts = (moments.count, moments.mean[v], moments.mean[h], cov[v, v], cov[v, h], variance[v], variance[h])
    return fit_parts(*parts, ridge=ridge, stop_gradient=stop_gradient)


def fit_parts(
    count: Float[Array, ""],
    mean_v: Float[Array, " p"],
    mean_h: Float[Array, " d"],
    cov_vv: Float[Array, "p p"],
    cov_vh: Float[Array, "p d"],
    var_v: Float[Array, " p"],
    var_h: Float[Array, " d"],
    *,
    ridge: float | Array,
    stop_gradient: bool,
    inverse: Float[Array, "p p"] | None = None,
) -> FirstStage:
    """:func:`fit` from the parts of the moments that it needs, which are cut out and joined before anything else.

    An array that is joined from pieces compiles quickly where the pieces are not computed while they are joined.
    """
    p = mean_v.shape[0]
    of_v, varies = varies_from(var_v, mean_v), varies_from(var_h, mean_h)
    cov_vv = where_varying(of_v, cov_vv)
    cov_vh = jnp.where(of_v[:, None] & varies[None, :], cov_vh, 0)
    a, condition = penalised(cov_vv, ridge, jnp.where(of_v, var_v, 0))
    coef = solve_spd(a, cov_vh, condition=condition, inverse=inverse)
    if stop_gradient:
        coef = jax.lax.stop_gradient(coef)
    explained = jnp.matmul(cov_vv, coef, precision=HIGHEST)
    rss = var_h - 2 * (coef * cov_vh).sum(0) + (coef * explained).sum(0)
    r2 = jnp.where(varies, 1 - rss / jnp.where(varies, var_h, 1), 0)
    f_stat = f_statistic(r2, p, count)
    return FirstStage(jnp.zeros((0, mean_h.shape[0]), coef.dtype), coef, mean_v, mean_h, r2, f_stat)


def f_statistic(r2: Float[Array, " d"], p: int, count: Float[Array, ""]) -> Float[Array, " d"]:
    """(R^2 / p) / ((1 - R^2) / (n - p - 1)), without gradient: a diagnostic, never trained on; NaN when n <= p + 1.

    Args:
      r2: explained share of variance.
      p: columns of the instrument.
      count: n, rows of the fit.
    """
    spare = count - p - 1
    share = jax.lax.stop_gradient(r2)
    odds = share / jnp.where(share < 1, 1 - share, jnp.finfo(share.dtype).tiny)
    return jnp.where(spare > 0, odds / p * spare, jnp.nan)


def varying_covariance(moments: Moments) -> Float[Array, "p p"]:
    """The covariance with 0 for constant columns."""
    return where_varying(varies_from(diagonal(moments.cov), moments.mean), moments.cov)


def where_varying(varying: Bool[Array, " p"], cov: Float[Array, "p p"]) -> Float[Array, "p p"]:
    """The covariance with 0 in the rows and columns of what does not vary."""
    return jnp.where(varying[:, None] & varying[None, :], cov, 0)


def varies_from(variance: Float[Array, " p"], mean: Float[Array, " p"]) -> Bool[Array, " p"]:
    """Which columns vary: the computed variance of a constant one is rounding noise, below eps relative to its mean."""
    return variance > jnp.square(8 * jnp.finfo(variance.dtype).eps * mean)


def penalised(
    cov: Float[Array, "p p"], ridge: float | Array, variance: Float[Array, " p"] | None = None
) -> tuple[Float[Array, "p p"], float | None]:
    """A = Cov(v) + ridge tr(Cov v) / p I of a first stage, and an upper bound of its condition; None: not known.

    Args:
      cov: (p, p) of the instrument.
      ridge: penalty relative to the mean variance of v.
      variance: the diagonal of ``cov``, where it is known already.
    """
    p = cov.shape[0]
    trace = (diagonal(cov) if variance is None else variance).sum()
    a = cov + ridge * trace / p * jnp.eye(p, dtype=cov.dtype)
    # |A|_inf <= sqrt(p) (1 + ridge) tr and every eigenvalue is at least ridge tr / p.
    known = isinstance(ridge, (int, float)) and ridge > 0
    return a, p**1.5 * (1 + ridge) / ridge if known else None


def predict_rows(stage: FirstStage, v: Array) -> Array:
    """mean_h + (v - mean_v) @ coef, in float32 or wider."""
    centred = promote(v) - stage.mean_v[None, :]
    return stage.mean_h[None, :] + jnp.matmul(centred, stage.coef, precision=HIGHEST)
