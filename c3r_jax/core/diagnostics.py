"""Instrument strength, over-identification, shared errors, and dependence of z on factors; on the host."""

import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats
from scipy.spatial.distance import pdist, squareform

from c3r_jax.core.batch import pad_rows, shared_size
from c3r_jax.core.rows_experts import (
    COMPONENTS,
    RIDGES,
    best_leave_one_out,
    compiled_leave_one_out,
    expert_of_rows,
    principal_components,
)
from c3r_jax.core.tasks.classification import CLASSIFICATION

__all__ = [
    "Exclusion",
    "OverIdentification",
    "Strength",
    "distance_correlation",
    "exclusion",
    "f_statistics",
    "instrument_strength",
    "over_identification",
]

WEAK_F = 10.0
SAME_DIRECTION = 1e-5  # a direction of columns below this share of the largest one is the rounding of others


class Strength(NamedTuple):
    """Strength of one modality's first stage.

    Attributes:
      r2: (d,) explained share per feature.
      f_stat: (d,) F statistics; NaN when n <= p + 1.
      f_median: their median; below 10 the instrument is weak.
      num_rows: n. num_instruments: p.
    """

    r2: np.ndarray
    f_stat: np.ndarray
    f_median: float
    num_rows: int
    num_instruments: int

    @property
    def weak(self) -> bool:
        """Whether the median F is below 10 (or unknown)."""
        return not self.f_median >= WEAK_F


class OverIdentification(NamedTuple):
    """Hansen's J per class: statistic (K,), degrees of freedom rank v - rank h, p-value (K,); NaN and 0 without any."""

    statistic: np.ndarray
    dof: int
    p_value: np.ndarray


class Exclusion(NamedTuple):
    """Whether modalities err together in a class: correlation rho, its 95 % interval, and n rows; NaN if not known."""

    rho: float
    low: float
    high: float
    num_rows: int


def f_statistics(h: Any, h_hat: Any, num_instruments: int, *, names: str = "") -> Strength:
    r"""Strength of a first stage, from a regressor and its prediction, preferably on held-out rows.

    .. math:: R^2_j = 1 - rss_j / tss_j, \quad F_j = \frac{R^2_j / p}{(1 - R^2_j) / (n - p - 1)}

    Args:
      h: (n, d) regressor.
      h_hat: (n, d) its prediction from the instrument.
      num_instruments: p, columns of the instrument.
      names: the modality, for the warning.

    Returns:
      :class:`Strength`. Held-out R^2 can be negative; F is then 0.

    Warns:
      UserWarning: when the median F is below 10 (a weak instrument).

    Examples:
      >>> import numpy as np
      >>> h = np.arange(20.0)[:, None]
      >>> strength = f_statistics(h, h + np.where(np.arange(20) % 2, 0.5, -0.5)[:, None], 1)
      >>> print(strength.r2.round(4), strength.weak)
      [0.9925] False
    """
    given, h, h_hat = h, np.asarray(h, np.float64), np.asarray(h_hat, np.float64)
    if h.shape != h_hat.shape or h.ndim != 2:
        raise ValueError(f"h has shape {h.shape} and h_hat {h_hat.shape}, but equal shapes (n, d) were expected.")
    n, p = h.shape[0], num_instruments
    tss = np.square(h - h.mean(0)).sum(0) if n else np.zeros(h.shape[1])
    rss = np.square(h - h_hat).sum(0)
    varies = _varies(given) if n else np.zeros(h.shape[1], bool)
    r2 = np.where(varies, 1 - rss / np.where(varies, tss, 1), 0.0)
    if n > p + 1:
        share = np.clip(r2, 0.0, 1.0)
        with np.errstate(divide="ignore"):
            f_stat = (share / p) / ((1 - share) / (n - p - 1))
    else:
        f_stat = np.full(h.shape[1], np.nan)
    return _judged(Strength(r2, f_stat, float(np.median(f_stat)), n, p), names)


def instrument_strength(instrument: Any, regressor: Any, *, ridge: float = 1e-2, names: str = "") -> Strength:
    r"""Strength of a first stage, each row predicted by the fit to all others: no rows need to be held out.

    R^2 and F are those of :func:`c3r_jax.core.leave_one_out.leave_one_out`. With 30 rows held out of 300, F exceeds 10
    only where R^2 is about .9, and in-sample the R^2 of pure noise is p / n; here it is 0 or below.

    Args:
      instrument: (n, p) v, the other modalities.
      regressor: (n, d) h.
      ridge: penalty relative to the mean variance of v.
      names: the modality, for the warning.

    Returns:
      :class:`Strength`.

    Raises:
      ValueError: if the numbers of rows differ.

    Warns:
      UserWarning: when the median F is below 10 (a weak instrument).

    Examples:
      >>> import numpy as np
      >>> v = np.random.default_rng(0).normal(size=(100, 2))
      >>> print(instrument_strength(v, v @ [[1.0], [2.0]] + 0.1).weak)
      False
    """
    # Centred in float64, so that a mean far from 0 costs no digits.
    v, h = (np.asarray(a, np.float64) for a in (instrument, regressor))
    v, h = (np.asarray(a - a.mean(0) if len(a) else a, np.float32) for a in (v, h))
    size = shared_size(len(v))
    if len(v) != len(h):
        raise ValueError(f"instrument has shape {v.shape}, but regressor {h.shape}: the rows must agree.")
    padded = (pad_rows(v, size), pad_rows(h, size))
    found = jax.device_get(compiled_leave_one_out()(*padded, ridge=ridge, where=np.arange(size) < len(v)))
    strength = Strength(found.r2, found.f_stat, float(np.median(found.f_stat)), h.shape[0], v.shape[1])
    return _judged(strength, names)


def _judged(strength: Strength, names: str) -> Strength:
    """Warns of a weak instrument."""
    if strength.weak:
        whose = f" of {names}" if names else ""
        n, p = strength.num_rows, strength.num_instruments
        found = f"median F = {strength.f_median:.2f} on {n} rows"
        if np.isnan(strength.f_median):
            found = f"F is not known with {n} rows for an instrument of {p} columns"
        warnings.warn(
            f"the first stage{whose} is weak: {found}, but at least {WEAK_F:g} was expected; what the instrument "
            "explains is then mostly noise.",
            stacklevel=3,
        )
    return strength


def exclusion(features: Mapping[str, Any], labels: Any, *, num_classes: int) -> dict[str, Exclusion]:
    r"""Do the modalities err on the same examples? An instrument should not, given the label.

    .. math::
       \rho_m = \mathrm{Cor}\left(\log q_m(y \mid h_m),\ \sum_{k \neq m} \log q_k(y \mid h_k) \,\middle|\, y\right)

    q_m is an expert from the modality itself: a leave-one-out ridge regression of the one-hot label, made sharp as in
    :func:`c3r_jax.residual_experts`. Near 0, what misleads one modality says nothing of what misleads the others, as
    for independent cues. Near 1, they share what misleads them: a cue in all of them, or examples that are hard for
    each. As the J test it is evidence, and no proof.

    Args:
      features: {name: (n, d_name)} held-out representations, at least two.
      labels: (n,) class ids.
      num_classes: K.

    Returns:
      {name: :class:`Exclusion`}; NaN where a modality says nothing of the label, or with fewer than 4 rows more than
      classes.

    Raises:
      ValueError: if the numbers of rows differ.

    Examples:
      >>> import numpy as np
      >>> rng = np.random.default_rng(0)
      >>> labels, shared = rng.integers(0, 2, 400), rng.normal(size=400)
      >>> h = {name: (labels + shared + 0.3 * rng.normal(size=400))[:, None] for name in ("image", "text")}
      >>> exclusion(h, labels, num_classes=2)["image"].rho > 0.8
      True
    """
    y = np.asarray(labels)
    shapes = {name: np.shape(value) for name, value in features.items()}
    if any(len(shape) != 2 or shape[0] != len(y) for shape in shapes.values()):
        raise ValueError(f"features have shapes {shapes}, but ({len(y)}, d) was expected for {len(y)} labels.")
    unknown = Exclusion(float("nan"), float("nan"), float("nan"), len(y))
    present = np.unique(y)
    spare = len(y) - len(present) - 3
    if spare < 1:
        return dict.fromkeys(features, unknown)
    size = shared_size(len(y))
    rows, targets = np.arange(size) < len(y), np.asarray(CLASSIFICATION.expert_targets(jnp.asarray(y), num_classes))
    shares, targets, rows = map(jnp.asarray, (targets.mean(0), pad_rows(targets, size), rows))
    evidence = {}
    for name, value in features.items():
        parts = principal_components(pad_rows(np.asarray(value, np.float32), size), rows, COMPONENTS)
        fit = best_leave_one_out(parts, targets, rows, RIDGES)
        expert = expert_of_rows(fit, fit.predicted, targets, shares, rows, CLASSIFICATION)
        own = np.asarray(expert.log_ratio, np.float64)[np.arange(len(y)), y]
        for k in present:
            own[y == k] -= own[y == k].mean()
        evidence[name] = own
    found = {}
    for name, own in evidence.items():
        others = np.sum([other for key, other in evidence.items() if key != name], axis=0)
        sizes = np.linalg.norm(own) * np.linalg.norm(others)
        found[name] = unknown
        if len(evidence) > 1 and sizes > 1e-6 * len(y):
            rho = float(np.clip(own @ others / sizes, -1, 1))
            # Fisher's z, with a degree of freedom less for each class mean.
            z, width = np.arctanh(np.clip(rho, -1 + 1e-12, 1 - 1e-12)), stats.norm.ppf(0.975) / np.sqrt(spare)
            found[name] = Exclusion(rho, float(np.tanh(z - width)), float(np.tanh(z + width)), len(y))
    return found


def over_identification(
    features: Mapping[str, Any], labels: Any, name: str, *, num_classes: int | None = None
) -> OverIdentification:
    r"""Hansen's J test per class: do the other modalities act on the label only through ``features[name]``?

    Two-step GMM of the linear model 1[y = c] = [1, h] beta + e with instruments [1, v], v the other modalities, in the
    heteroscedastic form and without ridge: J = n g' S^-1 g ~ chi^2(rank v - rank h) if they do. They do not whenever
    another modality has its own causes or confounders: a diagnostic, not a proof. It needs more directions in v than in
    h, hence at least three modalities of equal width. Neither the unit nor the zero of a column matters, and columns
    that are constant or follow from others count for nothing.

    Args:
      features: {name: (n, d_name)} held-out representations.
      labels: (n,) class ids, or (n, T) outcomes, each tested unchanged.
      name: the modality under test.
      num_classes: K; None: 1 + the largest label.

    Returns:
      :class:`OverIdentification`.

    Raises:
      ValueError: if ``name`` is unknown or the numbers of rows differ.

    References:
      L. P. Hansen, Large sample properties of generalized method of moments estimators, 1982.
    """
    if name not in features:
        raise ValueError(f"modality {name!r} is unknown: expected one of {', '.join(features)}.")
    y = np.asarray(labels)
    shapes = {key: np.shape(value) for key, value in features.items()}
    if any(len(shape) != 2 or shape[0] != len(y) for shape in shapes.values()):
        raise ValueError(f"features have shapes {shapes}, but ({len(y)}, d) was expected for {len(y)} labels.")
    if y.ndim == 1:
        classes = int(y.max()) + 1 if num_classes is None else num_classes
        y = y[:, None] == np.arange(classes)[None]
    others = {key: _standardised(value) for key, value in features.items()}
    h = others.pop(name)
    h, v = _directions(h), _directions(np.concatenate([*others.values(), np.zeros((len(y), 0))], axis=1))
    dof = v.shape[1] - h.shape[1]
    if dof <= 0 or h.shape[1] == 0 or len(y) <= v.shape[1] + 1:
        return OverIdentification(np.full(y.shape[1], np.nan), 0, np.full(y.shape[1], np.nan))
    ones = np.ones((len(y), 1))
    regressors, instruments = np.concatenate([ones, h], 1), np.concatenate([ones, v], 1)
    statistic = np.array([_hansen_j(regressors, instruments, outcome.astype(float)) for outcome in y.T])
    return OverIdentification(statistic, dof, stats.chi2.sf(statistic, dof))


def _directions(columns: np.ndarray) -> np.ndarray:
    """An orthogonal basis (n, rank) of standardised columns (n, p); J depends on nothing but what they span."""
    if not columns.size:
        return columns
    basis, sizes, _ = np.linalg.svd(columns, full_matrices=False)
    return np.sqrt(len(columns)) * basis[:, sizes > SAME_DIRECTION * sizes[0]]


def _standardised(values: Any) -> np.ndarray:
    """Columns (n, d) with mean 0 and variance 1 in double precision, without those that are constant."""
    columns = np.asarray(values, np.float64)
    if not columns.size:
        return columns[:, :0]
    varies = _varies(values)
    return (columns - columns.mean(0))[:, varies] / columns.std(0)[varies]


def _varies(values: Any) -> np.ndarray:
    """Which columns (n, d) vary by more than the rounding of their own precision."""
    columns, dtype = np.asarray(values, np.float64), np.asarray(values).dtype
    eps = float(jnp.finfo(dtype).eps if jnp.issubdtype(dtype, jnp.floating) else np.finfo(np.float64).eps)
    return np.ptp(columns, axis=0) > 8 * eps * np.abs(columns.mean(0))


def _hansen_j(x: np.ndarray, z: np.ndarray, y: np.ndarray) -> float:
    """Two-step GMM: 2SLS first, then weights S^-1 from its residuals; NaN when S is singular (a constant label)."""
    n = len(y)
    zx, zy = z.T @ x / n, z.T @ y / n

    def estimate(weights: np.ndarray) -> np.ndarray:
        return np.linalg.lstsq(zx.T @ weights @ zx, zx.T @ weights @ zy, rcond=None)[0]

    residual = y - x @ estimate(np.linalg.pinv(z.T @ z / n))
    s = (z * np.square(residual)[:, None]).T @ z / n
    if not np.trace(s) > 1e-20:
        return float("nan")
    weights = np.linalg.pinv(s)
    g = zy - zx @ estimate(weights)
    return float(n * g @ weights @ g)


def distance_correlation(x: Any, y: Any, *, max_rows: int = 2000, seed: int = 0) -> float:
    r"""Distance correlation of two samples: in the population 0 only if they are independent.

    .. math:: dCor^2 = \frac{\overline{A \circ B}}{\sqrt{\overline{A \circ A}\; \overline{B \circ B}}}

    with A, B the doubly centred Euclidean distance matrices (the biased V-statistic).

    Args:
      x: (n, p) or (n,).
      y: (n, q) or (n,).
      max_rows: larger samples are subsampled (memory is quadratic in it).
      seed: seed of the subsample.

    Returns:
      A number in [0, 1]; 0 if either is constant.

    Raises:
      ValueError: if the numbers of rows differ.

    Examples:
      >>> import numpy as np
      >>> round(distance_correlation(np.arange(5.0), 3 * np.arange(5.0)), 6)
      1.0

    References:
      G. Szekely, M. Rizzo, N. Bakirov, Measuring and testing dependence by correlation of distances, 2007.
    """
    x, y = (np.asarray(a, np.float64).reshape(len(a), -1) for a in (x, y))
    if len(x) != len(y):
        raise ValueError(f"x has {len(x)} rows and y {len(y)}: they must agree.")
    if len(x) > max_rows:
        rows = np.random.default_rng(seed).choice(len(x), max_rows, replace=False)
        x, y = x[rows], y[rows]
    a, b = _centred_distances(x), _centred_distances(y)
    scale = np.sqrt((a * a).mean() * (b * b).mean())
    return float(np.sqrt(max((a * b).mean(), 0.0) / scale)) if scale > 0 else 0.0


def _centred_distances(x: np.ndarray) -> np.ndarray:
    d = squareform(pdist(x))
    return d - d.mean(0)[None, :] - d.mean(1)[:, None] + d.mean()
