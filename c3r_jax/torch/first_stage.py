"""The real-world branch: the part of each modality that the other modalities explain.

What only one modality measures (its background, camera or style) cannot be predicted from the others; a cause that all
of them measure can. The others therefore serve as an instrument for each modality. This is a modelling assumption: the
modality-specific parts must be independent of each other.
"""

import warnings
from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from c3r_jax.torch.autocast import without_autocast
from c3r_jax.torch.available import stage_moments
from c3r_jax.torch.batch import check_float, check_where, keep, promote
from c3r_jax.torch.linear_solve import solve_spd
from c3r_jax.torch.moments import Moments, batch_moments
from c3r_jax.torch.processes import Group


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

    fitted: Float[Tensor, "batch d"]
    coef: Float[Tensor, "p d"]
    mean_v: Float[Tensor, " p"]
    mean_h: Float[Tensor, " d"]
    r2: Float[Tensor, " d"]
    f_stat: Float[Tensor, " d"]

    def apply(self, instrument: Float[Tensor, "rows p"]) -> Float[Tensor, "rows d"]:
        """Predicts the regressor of new rows, each on its own: mean_h + (v - mean_v) @ coef."""
        return _predict(self, instrument)

    def detach(self) -> "FirstStage":
        """The same numbers as constants."""
        return FirstStage(*(value.detach() for value in self))


def first_stage(
    instrument: Float[Tensor, "batch p"],
    regressor: Float[Tensor, "batch d"],
    *,
    ridge: float = 1e-3,
    where: Bool[Tensor, " batch"] | None = None,
    group: Group | None = None,
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
      group: process group over which the batch is split.

    Returns:
      :class:`FirstStage`.

    Raises:
      ValueError: on wrong shapes or dtypes, a negative ridge, or n <= p + 1 rows.

    Warns:
      UserWarning: when n < 4 p (the fit is then mostly noise).

    Examples:
      >>> v = torch.arange(8.0)[:, None]
      >>> stage = first_stage(v, 2 * v + 1, ridge=0.0)
      >>> [round(value.item(), 3) for value in (stage.coef, stage.r2, stage.apply(torch.tensor([[10.0]])))]
      [2.0, 1.0, 21.0]

    References:
      J. H. Stock, M. Yogo, Testing for weak instruments in linear IV regression, 2005.
    """
    v = promote(check_float("instrument", instrument, 2))
    h = promote(check_float("regressor", regressor, 2))
    if v.shape[0] != h.shape[0]:
        raise ValueError(f"instrument has shape {tuple(v.shape)}, but regressor {tuple(h.shape)}: the rows must agree.")
    rows = check_where(where, v.shape[0], v.device)
    p = v.shape[1]
    with without_autocast(v.device):
        moments = batch_moments(torch.cat([v, h], dim=1), where=rows, group=group)
        check_rows(int(moments.count), p)
        stage = fit(moments, torch.arange(p), torch.arange(p, p + h.shape[1]), ridge=ridge)
        # Excluded rows are predicted too, but with constant coefficients, so that they affect no gradient.
        outside = _predict(stage.detach(), v)
        return stage._replace(fitted=torch.where(rows[:, None], _predict(stage, keep(rows, v)), outside))


def check_rows(num_rows: int, p: int, kind: str = "rows") -> None:
    """Refuses a first stage with fewer rows than coefficients, and warns if it is mostly noise."""
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


def fit(moments: Moments, v: Tensor, h: Tensor, *, ridge: float, stop_gradient: bool = False) -> FirstStage:
    """Fits a first stage from joint moments of instrument columns ``v`` and regressor columns ``h``; no rows needed.

    Args:
      moments: joint :class:`Moments`, possibly with a gradient.
      v: places of the instrument's columns.
      h: places of the regressor's columns.
      ridge: penalty relative to the mean variance of v.
      stop_gradient: treat the coefficients as constants (an ablation: it loses most of the gain).

    Returns:
      :class:`FirstStage` with ``fitted`` empty (0, d).
    """
    if not ridge >= 0:
        raise ValueError(f"ridge is {ridge}, but a number >= 0 was expected.")
    v, h = v.to(moments.mean.device), h.to(moments.mean.device)
    mean_v, mean_h = moments.mean[v], moments.mean[h]
    cov, varying = varying_covariance(moments)
    cov_vv, cov_vh = cov[v][:, v], cov[v][:, h]
    var_h, varies = cov.diagonal()[h], varying[h]
    coef = solve_spd(penalised(cov_vv, ridge), cov_vh)
    if stop_gradient:
        coef = coef.detach()
    rss = var_h - 2 * (coef * cov_vh).sum(0) + (coef * (cov_vv @ coef)).sum(0)
    r2 = torch.where(varies, 1 - rss / torch.where(varies, var_h, 1), 0)
    f_stat = f_statistic(r2, mean_v.shape[0], moments.count)
    return FirstStage(coef.new_zeros((0, mean_h.shape[0])), coef, mean_v, mean_h, r2, f_stat)


def f_statistic(r2: Float[Tensor, " d"], p: int, count: Float[Tensor, ""]) -> Float[Tensor, " d"]:
    """(R^2 / p) / ((1 - R^2) / (n - p - 1)), without gradient: a diagnostic, never trained on; NaN when n <= p + 1.

    Args:
      r2: explained share of variance.
      p: columns of the instrument.
      count: n, rows of the fit.
    """
    spare, share = (count - p - 1).detach(), r2.detach()
    odds = share / torch.where(share < 1, 1 - share, torch.finfo(share.dtype).tiny)
    return torch.where(spare > 0, odds / p * spare, torch.nan)


def varying_covariance(moments: Moments) -> tuple[Float[Tensor, "p p"], Bool[Tensor, " p"]]:
    """The covariance with 0 for constant columns, and which columns vary."""
    # The computed variance of a constant column is rounding noise, not 0: below eps relative to its mean.
    floor = (8 * torch.finfo(moments.cov.dtype).eps * moments.mean).square()
    varying = moments.cov.diagonal() > floor
    return torch.where(varying[:, None] & varying[None, :], moments.cov, 0), varying


def penalised(cov: Float[Tensor, "p p"], ridge: float) -> Float[Tensor, "p p"]:
    """A = Cov(v) + ridge tr(Cov v) / p I of a first stage.

    Args:
      cov: (p, p) of the instrument.
      ridge: penalty relative to the mean variance of v.
    """
    p = cov.shape[0]
    return cov + ridge * cov.trace() / p * torch.eye(p, dtype=cov.dtype, device=cov.device)


def _predict(stage: FirstStage, v: Tensor) -> Tensor:
    with without_autocast(v.device):
        return stage.mean_h[None, :] + (promote(v) - stage.mean_v[None, :]) @ stage.coef


def columns(features: Mapping[str, Tensor]) -> dict[str, slice]:
    """The columns of each modality in the concatenated features."""
    ends, begin = {}, 0
    for name, h in features.items():
        ends[name] = slice(begin, begin + h.shape[1])
        begin += h.shape[1]
    return ends


def fit_modalities(
    moments: Moments, blocks: Mapping[str, slice], *, ridge: float, stop_gradient: bool = False
) -> dict[str, FirstStage]:
    """Fits, from one set of joint moments, the first stage of every modality on all the others.

    Args:
      moments: joint :class:`Moments` of the concatenated features, over rows that have every modality; or of each
        modality's own rows (:func:`c3r_jax.torch.available.available_moments`).
      blocks: {name: columns} from :func:`columns`.
      ridge: penalty relative to the mean variance of each instrument.
      stop_gradient: treat the coefficients as constants.

    Returns:
      {name: :class:`FirstStage`} with ``fitted`` empty (0, d_name).
    """
    indices = torch.arange(max(block.stop for block in blocks.values()))
    stages = {}
    for m, (name, block) in enumerate(blocks.items()):
        others = torch.cat([indices[other] for key, other in blocks.items() if key != name])
        rows = stage_moments(moments, m, blocks) if moments.count.ndim else moments
        stages[name] = fit(rows, others, indices[block], ridge=ridge, stop_gradient=stop_gradient)
    return stages


def apply_modalities(
    stages: Mapping[str, FirstStage],
    features: Mapping[str, Float[Tensor, "batch _"]],
    present: Bool[Tensor, "batch modalities"],
) -> tuple[dict[str, Tensor], Bool[Tensor, "batch modalities"]]:
    """Predicts every modality from the others, row by row; an absent block of the instrument counts as its mean.

    Args:
      stages: {name: :class:`FirstStage`} from :func:`fit_modalities`, in the order of ``features``.
      features: {name: (B, d_name)}.
      present: (B, M) bool.

    Returns:
      ``h_hat`` {name: (B, d_name)} in the dtype of the features, and its mask (B, M): h_hat[m] exists if any other
      modality does.
    """
    names = list(features)
    h_hat = {}
    for name, stage in stages.items():
        others = [n for n in names if n != name]
        means = stage.mean_v.split([features[n].shape[1] for n in others])
        blocks = [
            torch.where(present[:, names.index(n), None], promote(features[n]), mean[None, :])
            for n, mean in zip(others, means, strict=True)
        ]
        h_hat[name] = _predict(stage, torch.cat(blocks, dim=1)).to(features[name].dtype)
    return h_hat, (present.sum(1, keepdim=True) - present.long()) > 0
