"""The real-world branch: the part of each modality that the other modalities explain.

What only one modality measures (its background, camera or style) cannot be predicted from the others; a cause that all
of them measure can. The others therefore serve as an instrument for each modality. This is a modelling assumption: the
modality-specific parts must be independent of each other.
"""

import warnings
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from c3r_jax.core import shared_inverses
from c3r_jax.core.available import imputed_moments
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
from c3r_jax.core.others import of_others, of_own
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
        return _predict(self, instrument)


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
    outside = _predict(jax.lax.stop_gradient(stage), v)
    return stage._replace(fitted=jnp.where(rows[:, None], _predict(stage, keep(rows, v)), outside))


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
    return _fit(*parts, ridge=ridge, stop_gradient=stop_gradient)


def _fit(
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
    cov_vv = _between(of_v, cov_vv)
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
    return _between(varies_from(diagonal(moments.cov), moments.mean), moments.cov)


def _between(varying: Bool[Array, " p"], cov: Float[Array, "p p"]) -> Float[Array, "p p"]:
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


def _predict(stage: FirstStage, v: Array) -> Array:
    centred = promote(v) - stage.mean_v[None, :]
    return stage.mean_h[None, :] + jnp.matmul(centred, stage.coef, precision=HIGHEST)


def columns(features: Mapping[str, Array]) -> dict[str, slice]:
    """The columns of each modality in the concatenated features."""
    ends, begin = {}, 0
    for name, h in features.items():
        ends[name] = slice(begin, begin + h.shape[1])
        begin += h.shape[1]
    return ends


def fit_modalities(
    moments: Moments,
    blocks: Mapping[str, slice],
    *,
    ridge: float,
    stop_gradient: bool = False,
    axis_name: Any = None,
) -> dict[str, FirstStage]:
    """Fits, from one set of joint moments, the first stage of every modality on all the others.

    One inverse of the joint covariance would be enough only with one shared penalty; here the penalty is relative to
    the variance of each instrument, so every modality needs its own solve.

    Args:
      moments: joint :class:`Moments` of the concatenated features, over rows that have every modality; or of each
        modality's own rows (:func:`c3r_jax.core.available.available_moments`).
      blocks: {name: columns} from :func:`columns`.
      ridge: penalty relative to the mean variance of each instrument.
      stop_gradient: treat the coefficients as constants.
      axis_name: mapped axis whose devices all have these moments, and may share the work.

    Returns:
      {name: :class:`FirstStage`} with ``fitted`` empty (0, d_name).
    """
    own = moments.count.ndim > 0
    rows = jax.vmap(lambda moments: imputed_moments(moments, blocks))(moments) if own else moments
    solve = partial(_fit, ridge=ridge, stop_gradient=stop_gradient)
    if len({block.stop - block.start for block in blocks.values()}) == 1:
        # Stages of equal shapes are one batched solve: the program does not grow with the number of modalities.
        wide = moments.mean.shape[-1] >= shared_inverses.WIDE * len(blocks)
        parts = _of_two(rows) if wide and len(blocks) == 2 else _of_each(rows, len(blocks))
        inverses = _inverses(parts, ridge, axis_name)
        together = jax.vmap(lambda parts, inverse: solve(*parts, inverse=inverse))(parts, inverses)
        return {name: FirstStage(*(value[m] for value in together)) for m, name in enumerate(blocks)}
    stages = {}
    for m, (name, block) in enumerate(blocks.items()):
        others = [other for key, other in blocks.items() if key != name]
        count, mean, cov = (x[m] if own else x for x in rows)
        # Slices and not lists of indices, whose gradient is a scatter: it compiles to many kernels.
        between = jnp.concatenate(
            [jnp.concatenate([cov[one, other] for other in others], axis=1) for one in others], axis=0
        )
        across = jnp.concatenate([cov[one, block] for one in others])
        mean_v = jnp.concatenate([mean[one] for one in others])
        variance = diagonal(cov)
        var_v = jnp.concatenate([variance[one] for one in others])
        stages[name] = solve(count, mean_v, mean[block], between, across, var_v, variance[block])
    return stages


def _of_each(moments: Moments, stages: int) -> tuple[Array, ...]:
    """The parts of the moments that :func:`_fit` needs, for each stage (M, ...)."""
    own = moments.count.ndim > 0
    each = moments if own else Moments(*(jnp.broadcast_to(x, (stages, *x.shape)) for x in moments))
    between, variance = of_others(each.cov, 1), jax.vmap(diagonal)(each.cov)
    (mean_v, mean_h), (var_v, var_h) = ((of_others(x, 1), of_own(x, 1)) for x in (each.mean, variance))
    return each.count, mean_v, mean_h, of_others(between, 2), of_own(between, 2), var_v, var_h


def _of_two(moments: Moments) -> tuple[Array, ...]:
    """:func:`_of_each` for two wide stages on the same rows: blocks as they are, which a TPU need not move.

    Joining blocks takes long to compile for CPUs, and selecting between blocks of narrow stages is fast enough.
    """
    (a, ab), (ba, b) = (jnp.split(rows, 2, axis=1) for rows in jnp.split(moments.cov, 2, axis=0))
    mean, variance = moments.mean.reshape(2, -1), jnp.stack([diagonal(a), diagonal(b)])
    count = jnp.broadcast_to(moments.count, (2,))
    return count, mean[::-1], mean, jnp.stack([b, a]), jnp.stack([ba, ab]), variance[::-1], variance


def _inverses(parts: tuple[Array, ...], ridge: float, axis_name: Any) -> Float[Array, "modalities p p"] | None:
    """The inverses that the solves need, each made by one device; None where every device makes its own."""
    _, mean_v, _, cov_vv, _, var_v, _ = jax.lax.stop_gradient(parts)
    if not shared_inverses.are_shared(len(cov_vv), cov_vv.shape[1], axis_name):
        return None
    of_v = varies_from(var_v, mean_v)
    var_v = jnp.where(of_v, var_v, 0)
    a = jax.vmap(lambda of_v, cov, variance: penalised(_between(of_v, cov), ridge, variance)[0])(of_v, cov_vv, var_v)
    condition, largest = penalised(cov_vv[0], ridge, var_v[0])[1], None
    if condition is not None:
        # No eigenvalue is above the trace, but for rounding, and the ridge relative to it is known: steps are saved.
        of_trace = 1.001 * condition / cov_vv.shape[1] ** 0.5
        if of_trace < 1 / jnp.finfo(a.dtype).eps:
            condition, largest = of_trace, 1.001 * (1 + ridge) * var_v.sum(1)
    return shared_inverses.shared_inverses(a, largest=largest, condition=condition, axis_name=axis_name)


def apply_modalities(
    stages: Mapping[str, FirstStage],
    features: Mapping[str, Float[Array, "batch _"]],
    present: Bool[Array, "batch modalities"],
) -> tuple[dict[str, Array], Bool[Array, "batch modalities"]]:
    """Predicts every modality from the others, row by row; an absent block of the instrument counts as its mean.

    Args:
      stages: {name: :class:`FirstStage`} from :func:`fit_modalities`, in the order of ``features``.
      features: {name: (B, d_name)}.
      present: (B, M) bool.

    Returns:
      ``h_hat`` {name: (B, d_name)} in the dtype of the features, and its mask (B, M): h_hat[m] exists if any other
      modality does.
    """
    names, h_hat = list(features), {}
    if len({h.shape[1] for h in features.values()}) == 1:
        together = FirstStage(*(jnp.stack(values) for values in zip(*stages.values(), strict=True)))
        x = jnp.concatenate([promote(h) for h in features.values()], axis=1)
        known = jnp.repeat(present, x.shape[1] // len(names), axis=1, total_repeat_length=x.shape[1])
        v, known = (of_others(jnp.broadcast_to(a, (len(names), *a.shape)), 2) for a in (x, known))
        fitted = jax.vmap(_predict)(together, jnp.where(known, v, together.mean_v[:, None, :]))
        h_hat = {name: fitted[m].astype(features[name].dtype) for m, name in enumerate(names)}
    else:
        for name, stage in stages.items():
            others = [n for n in names if n != name]
            means = jnp.split(stage.mean_v, _ends([features[n].shape[1] for n in others]))
            blocks = [
                jnp.where(present[:, names.index(n), None], promote(features[n]), mean[None, :])
                for n, mean in zip(others, means, strict=True)
            ]
            h_hat[name] = _predict(stage, jnp.concatenate(blocks, axis=1)).astype(features[name].dtype)
    counts = present.sum(1, keepdims=True)
    return h_hat, (counts - present.astype(counts.dtype)) > 0


def _ends(sizes: list[int]) -> list[int]:
    total, ends = 0, []
    for size in sizes[:-1]:
        total += size
        ends.append(total)
    return ends
