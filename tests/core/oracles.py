"""Float64 NumPy oracles, written from the formulas of METHOD.md and from nothing else.

They share no code with the library: plain loops, LAPACK solves, finite-difference gradients. `frozen` holds
quantities that the method puts under a stop-gradient, so that a finite difference of an oracle is the specified
gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Predict = Callable[[Array], Array]
Gradient = Callable[[Array, Array], Array]


def valid_rows(rows: int, where: Array | None) -> Array:
    return np.ones(rows, bool) if where is None else np.asarray(where, bool)


def logsumexp(values: Array) -> float:
    top = np.max(values)
    return float(top + np.log(np.sum(np.exp(values - top))))


def log_softmax(row: Array) -> Array:
    shifted = row - np.max(row)
    return shifted - logsumexp(shifted)


def log_odds(logits: Array, labels: Array) -> Array:
    """log p_y / (1 - p_y) = l_y - logsumexp_{k != y} l_k."""
    return np.array([-logsumexp(np.delete(row, y) - row[y]) for row, y in zip(logits, labels, strict=True)])


def cross_entropy(logits: Array, labels: Array, smoothing: float = 0.0) -> Array:
    out = []
    for row, y in zip(logits, labels, strict=True):
        target = np.full(len(row), smoothing / len(row))
        target[y] += 1 - smoothing
        out.append(-(target * log_softmax(row)).sum())
    return np.array(out)


def necessity(logits: Array, labels: Array, kind: str = "hinge", prior: Array | None = None) -> Array:
    out = []
    for row, y in zip(np.asarray(logits, np.float64), labels, strict=True):
        logp = log_softmax(row)
        if kind == "hinge":
            out.append(max(0.0, logp[y] + np.log(len(row))))
        elif kind == "log":
            out.append(np.logaddexp(0.0, -logsumexp(np.delete(row, y) - row[y])))
        else:
            assert prior is not None
            out.append(sum(q * (np.log(q) - lp) for q, lp in zip(prior, logp, strict=True) if q > 0))
    return np.array(out)


def risk(logits: Array, counterfactual_logits: Array, labels: Array, where: Array | None = None) -> dict[str, float]:
    right, fooled = [], []
    for i in np.flatnonzero(valid_rows(len(labels), where)):
        a, b = logits[i], counterfactual_logits[i]
        right.append(bool(np.isfinite(a).all() and int(np.argmax(a)) == labels[i]))
        fooled.append(bool(np.isfinite(b).all() and int(np.argmax(b)) == labels[i]))
    if not right:
        return dict.fromkeys(("sufficiency", "necessity", "total", "lower", "upper", "joint"), float("nan"))
    s, n = 1 - np.mean(right), np.mean(fooled)
    joint = np.mean([r and not f for r, f in zip(right, fooled, strict=True)])
    return {
        "sufficiency": float(s),
        "necessity": float(n),
        "total": float(s + n),
        "lower": float(max(0.0, 1 - s - n)),
        "upper": float(min(1 - s, 1 - n)),
        "joint": float(joint),
    }


# ------------------------------------------------------------------------------------------------ counterfactuals


def linear_gradient(weight: Array, bias: Array) -> Gradient:
    """Analytic gradient of logsumexp_{k != y} l_k - l_y for l = z W + b: W (softmax_{k != y}(l) - e_y)."""

    def gradient(z: Array, labels: Array) -> Array:
        out = np.zeros_like(z, np.float64)
        for i, y in enumerate(labels):
            logits = z[i] @ weight + bias.reshape(-1)
            rest = np.exp(log_softmax(np.where(np.arange(len(logits)) == y, -np.inf, logits)))
            rest[y] = -1.0
            out[i] = weight @ rest
        return out

    return gradient


def numeric_gradient(predict: Predict, eps: float = 1e-3) -> Gradient:
    """Fourth-order central differences of each row's own -log-odds; `predict` works row by row."""

    def gradient(z: Array, labels: Array) -> Array:
        out = np.zeros_like(z, np.float64)
        for j in range(z.shape[1]):
            step = np.zeros(z.shape[1])
            step[j] = eps
            f = [-log_odds(predict(z + k * step), labels) for k in (-2, -1, 1, 2)]
            out[:, j] = (f[0] - 8 * f[1] + 8 * f[2] - f[3]) / (12 * eps)
        return out

    return gradient


def directional(function: Callable[[float], float], eps: float = 1e-4) -> float:
    """Fourth-order derivative of t -> function(t) at 0."""
    f = [function(k * eps) for k in (-2, -1, 1, 2)]
    return (f[0] - 8 * f[1] + 8 * f[2] - f[3]) / (12 * eps)


def rms(z: Array, where: Array | None = None) -> float:
    rows = z[valid_rows(len(z), where)]
    return float(np.sqrt(np.mean(np.sum(rows**2, axis=1))))


def unit(g: Array) -> Array:
    size = np.sqrt(np.sum(g**2, axis=1, keepdims=True))
    return np.divide(g, size, out=np.zeros_like(g), where=size > 0)


def counterfactual(
    predict: Predict,
    z: Array,
    labels: Array,
    mode: str = "projection",
    *,
    gradient: Gradient | None = None,
    step_size: float = 0.5,
    num_steps: int = 1,
    z_c: Array | None = None,
    where: Array | None = None,
    ball: float | None = None,
    frozen: dict[str, Any] | None = None,
) -> Array:
    """All modes but `permute`, which is random."""
    gradient = numeric_gradient(predict) if gradient is None else gradient
    keep = valid_rows(len(z), where)
    start, z = z, np.where(keep[:, None], z, 0.0).astype(np.float64)
    radius = rms(z, keep) if frozen is None else frozen["rms"]
    causal = z if z_c is None else np.where(keep[:, None], z_c, 0.0).astype(np.float64)
    centre = causal[keep].mean(axis=0)
    if mode in ("projection", "removal", "minimal"):
        a = causal.copy()
        for _ in range(num_steps):
            g = gradient(a, labels)
            if mode != "minimal":
                u = unit(g)
                along = np.sum((a - centre) * u, axis=1, keepdims=True)
                a = a - (along if mode == "projection" else np.minimum(0.0, along)) * u
            else:  # g is the gradient of -log-odds, so adding it lowers the odds
                logits = predict(a)
                size = np.sum(g**2, axis=1)
                gap = np.maximum(0.0, log_odds(logits, labels) + np.log(logits.shape[1] - 1))
                a = a + np.divide(gap, size, out=np.zeros_like(gap), where=size > 0)[:, None] * g
        bar = z - causal + a
    elif mode == "gradient":
        bar = z.copy()
        for _ in range(num_steps):
            bar = bar + step_size / num_steps * radius * unit(gradient(bar, labels))
            if ball is not None:
                gone = np.sqrt(np.sum((bar - z) ** 2, axis=1, keepdims=True))
                bar = z + (bar - z) * np.minimum(1.0, ball * radius / np.maximum(gone, 1e-300))
    elif mode == "instrumented":
        bar = z - causal + centre
    elif mode == "mean":
        bar = np.broadcast_to(z[keep].mean(axis=0), z.shape)
    else:
        raise AssertionError(mode)
    return np.where(keep[:, None], bar, start)


def drop_modality(
    features: dict[str, Array], name: str, present: Array | None, where: Array | None
) -> dict[str, Array]:
    """`present` has one column per modality, in the order of the sorted names."""
    rows = valid_rows(len(features[name]), where)
    has = rows if present is None else rows & present[:, sorted(features).index(name)]
    out = dict(features)
    out[name] = np.broadcast_to(features[name][has].mean(axis=0), features[name].shape)
    return out


# ---------------------------------------------------------------------------------------------------- instruments


def first_stage(
    v: Array, h: Array, *, ridge: float = 1e-3, where: Array | None = None, coef: Array | None = None
) -> dict[str, Array]:
    rows = valid_rows(len(v), where)
    n, p = int(rows.sum()), v.shape[1]
    mean_v, mean_h = v[rows].mean(axis=0), h[rows].mean(axis=0)
    vc, hc = v[rows] - mean_v, h[rows] - mean_h
    cov = sum(np.outer(a, a) for a in vc) / n
    cross = sum(np.outer(a, b) for a, b in zip(vc, hc, strict=True)) / n
    if coef is None:
        trace = np.trace(cov)
        a = cov + ridge * trace / p * np.eye(p)
        coef = np.linalg.solve(a, cross) if np.ptp(v[rows], axis=0).any() else np.zeros_like(cross)
    fitted = mean_h + (v - mean_v) @ coef
    rss = np.sum((h[rows] - fitted[rows]) ** 2, axis=0)
    tss = np.sum(hc**2, axis=0)
    varies = np.ptp(h[rows], axis=0) > 0  # rounding the mean of equal values leaves a tss that is not quite 0
    r2 = np.array([1 - r / t if some else 0.0 for r, t, some in zip(rss, tss, varies, strict=True)])
    with np.errstate(divide="ignore", invalid="ignore"):
        f_stat = (r2 / p) / ((1 - r2) / (n - p - 1))
    return {"fitted": fitted, "coef": coef, "mean_v": mean_v, "mean_h": mean_h, "r2": r2, "f_stat": f_stat}


def attention(features: dict[str, Array], present: Array, *, num_heads: int = 1, keys: str = "others") -> Array:
    """Identity projections; heads are consecutive blocks of features. An absent query is zero, with uniform weights."""
    names = sorted(features)
    rows, width = features[names[0]].shape
    size = width // num_heads
    out = np.zeros((rows, width))
    for i in range(rows):
        tokens = {m: features[m][i] if present[i, c] else np.zeros(width) for c, m in enumerate(names)}
        found = []
        for m in names:
            others = [k for c, k in enumerate(names) if present[i, c] and (keys == "all" or k != m)]
            if not others:
                continue
            v = np.zeros(width)
            for head in range(num_heads):
                cut = slice(head * size, (head + 1) * size)
                scores = np.array([tokens[m][cut] @ tokens[k][cut] for k in others]) / np.sqrt(size)
                weights = np.exp(log_softmax(scores))
                v[cut] = sum(w * tokens[k][cut] for w, k in zip(weights, others, strict=True))
            found.append(v)
        if found:
            out[i] = np.mean(found, axis=0)
    return out


def calibrate(v: Array, z: Array, keep: Array) -> Array:
    mean_v, mean_z = v[keep].mean(axis=0), z[keep].mean(axis=0)
    slope = []
    for a, b in zip((v[keep] - mean_v).T, (z[keep] - mean_z).T, strict=True):
        slope.append(np.mean(a * b) / np.mean(a * a) if np.ptp(a) > 0 else 0.0)
    return mean_z + np.array(slope) * (v - mean_v)


# ---------------------------------------------------------------------------------------------------- diagnostics


def hansen_j(y: Array, x: Array, z: Array) -> float:
    """Two-step GMM of y on [1, x] with instruments [1, z], heteroscedastic weights."""
    n = len(y)
    x, z = np.c_[np.ones(n), x], np.c_[np.ones(n), z]

    def fit(weight: Array) -> Array:
        left = x.T @ z @ weight
        return np.linalg.solve(left @ (z.T @ x), left @ (z.T @ y))

    e = y - x @ fit(np.linalg.inv(z.T @ z / n))
    weight = np.linalg.inv(sum(r * r * np.outer(row, row) for r, row in zip(e, z, strict=True)) / n)
    moment = z.T @ (y - x @ fit(weight)) / n
    return float(n * moment @ weight @ moment)


def distance_correlation(x: Array, y: Array) -> float:
    def centred(a: Array) -> Array:
        n = len(a)
        d = np.array([[np.sqrt(np.sum((a[i] - a[j]) ** 2)) for j in range(n)] for i in range(n)])
        return d - d.mean(axis=0, keepdims=True) - d.mean(axis=1, keepdims=True) + d.mean()

    a, b = centred(x), centred(y)
    return float(np.sqrt(max(0.0, np.mean(a * b)) / np.sqrt(np.mean(a * a) * np.mean(b * b))))
