"""Host-side diagnostics."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.stats

from c3r_jax.core import diagnostics
from c3r_jax.core.expert import BETAS
from c3r_jax.core.rows_experts import RIDGES
from c3r_jax.data.sets.structural import StructuralModel

from . import oracles


def data(seed: int, rows: int = 300, violated: float = 0.0) -> tuple[dict[str, Any], Any]:
    """h causes the label; `a` and `b` measure the same cause and, if violated, reach the label directly."""
    rng = np.random.default_rng(seed)
    cause = rng.normal(size=(rows, 2))
    a, b = (cause @ rng.normal(size=(2, 2)) + 0.5 * rng.normal(size=(rows, 2)) for _ in range(2))
    confounder = rng.normal(size=rows)
    h = cause + confounder[:, None] * [1.0, -0.5] + 0.3 * rng.normal(size=(rows, 2))
    score = 0.7 * cause[:, 0] + 0.5 * confounder + violated * a[:, 0] ** 2
    labels = np.digitize(score + 0.5 * rng.normal(size=rows), [-0.5, 0.7])
    return {"h": h, "a": a, "b": b}, labels


@pytest.mark.parametrize("violated", [0.0, 1.0])
@pytest.mark.parametrize("name", ["h", "a", "b"])
def test_over_identification_is_the_oracle(name: str, violated: float) -> None:
    features, labels = data(1, violated=violated)
    result = diagnostics.over_identification(features, labels, name)
    others = np.concatenate([features[m] for m in sorted(features) if m != name], axis=1)
    for c in range(3):
        expected = oracles.hansen_j((labels == c).astype(float), features[name], others)
        np.testing.assert_allclose(result.statistic[c], expected, rtol=1e-6)
        np.testing.assert_allclose(result.p_value[c], scipy.stats.chi2.sf(expected, 2), rtol=1e-6)
    assert np.all(np.asarray(result.dof) == 2)  # four instruments, two regressors
    assert np.shape(result.statistic) == np.shape(result.p_value) == (3,)


def test_over_identification_is_free_of_scale_order_and_shift() -> None:
    features, labels = data(2)
    base = diagnostics.over_identification(features, labels, "h")
    order = np.random.default_rng(0).permutation(len(labels))
    other = {m: 1e3 * features[m][order] + 5 for m in ("b", "h", "a")}
    np.testing.assert_allclose(
        diagnostics.over_identification(other, labels[order], "h").statistic, base.statistic, rtol=1e-6
    )


def test_over_identification_takes_single_precision() -> None:
    features, labels = data(3)
    low = {m: a.astype(np.float32) for m, a in features.items()}
    expected = diagnostics.over_identification({m: a.astype(np.float64) for m, a in low.items()}, labels, "h").statistic
    np.testing.assert_allclose(diagnostics.over_identification(low, labels, "h").statistic, expected, rtol=1e-8)


def test_over_identification_needs_more_instruments_than_regressors() -> None:
    features, labels = data(4)
    result = diagnostics.over_identification({"h": features["h"], "a": features["a"]}, labels, "h")  # p = d = 2
    assert np.isnan(result.statistic).all() and np.isnan(result.p_value).all() and np.all(np.asarray(result.dof) == 0)


def test_over_identification_number_of_classes() -> None:
    features, labels = data(5)
    result = diagnostics.over_identification(features, labels, "h", num_classes=4)
    assert np.shape(result.statistic) == (4,)
    np.testing.assert_allclose(result.statistic[:3], diagnostics.over_identification(features, labels, "h").statistic)


@pytest.mark.parametrize("change", ["offset", "unit"])
def test_over_identification_is_free_of_the_zero_and_the_unit_of_a_column(change: str) -> None:
    features, labels = data(6)
    base = diagnostics.over_identification(features, labels, "h")
    other = {m: a.copy() for m, a in features.items()}
    if change == "offset":
        other = {m: a + 1e6 for m, a in other.items()}
    else:
        other["b"][:, 0] *= 1e8
    np.testing.assert_allclose(diagnostics.over_identification(other, labels, "h").statistic, base.statistic, rtol=1e-6)


def test_columns_that_say_nothing_new_are_no_degrees_of_freedom() -> None:
    """Dead columns of the regressor are none to estimate; constants and copies among the instruments test nothing."""
    features, labels = data(7)
    base = diagnostics.over_identification(features, labels, "h")
    dead = features | {"h": np.concatenate([features["h"][:, :1], np.full((len(labels), 1), 0.1)], axis=1)}
    expected = diagnostics.over_identification(features | {"h": features["h"][:, :1]}, labels, "h")
    found = diagnostics.over_identification(dead, labels, "h")
    assert base.dof == 2 and found.dof == expected.dof == 3
    np.testing.assert_allclose(found.p_value, expected.p_value, rtol=1e-8)
    more = features | {"b": np.concatenate([features["b"], features["a"], np.full((len(labels), 2), 0.1)], axis=1)}
    found = diagnostics.over_identification(more, labels, "h")
    assert found.dof == 2
    np.testing.assert_allclose(found.statistic, base.statistic, rtol=1e-6)
    only = diagnostics.over_identification(features | {"b": features["a"]}, labels, "h")
    assert only.dof == 0 and np.isnan(only.p_value).all()
    constant = diagnostics.over_identification(features | {"h": np.full((len(labels), 2), 0.1)}, labels, "h")
    assert constant.dof == 0 and np.isnan(constant.p_value).all()


def test_over_identification_has_size_and_power() -> None:
    """A linear probability model with valid instruments rejects about as often as its level; a violated one mostly."""
    p_values = {v: [] for v in (False, True)}
    for seed in range(60):
        rng = np.random.default_rng(seed)
        z = rng.uniform(-1, 1, size=(500, 3))
        u = rng.uniform(-1, 1, size=500)
        h = (z.sum(axis=1) + u)[:, None] / 4
        for violated in p_values:
            chance = 0.5 + 0.3 * h[:, 0] + 0.1 * u + (0.25 * z[:, 0] if violated else 0)
            labels = (rng.random(500) < np.clip(chance, 0, 1)).astype(int)
            result = diagnostics.over_identification({"h": h, "others": z}, labels, "h")
            p_values[violated].append(float(result.p_value[1]))
    assert 0.0 <= np.mean(np.array(p_values[False]) < 0.05) <= 0.15
    assert scipy.stats.kstest(p_values[False], "uniform").pvalue > 0.01
    assert np.mean(np.array(p_values[True]) < 0.05) > 0.9


def test_distance_correlation_by_hand() -> None:
    """A line is perfectly dependent; a full 2 x 2 grid is independent."""
    x = np.arange(6.0)[:, None]
    assert diagnostics.distance_correlation(x, 3 - 2 * x) == pytest.approx(1, abs=1e-12)
    grid = np.array([[0.0, 0], [0, 1], [1, 0], [1, 1]])
    assert diagnostics.distance_correlation(grid[:, :1], grid[:, 1:]) == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize("seed", range(3))
def test_distance_correlation_is_the_oracle(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(40, 3))
    y = np.sin(x @ rng.normal(size=(3, 2))) + 0.3 * rng.normal(size=(40, 2))
    value = diagnostics.distance_correlation(x, y)
    assert isinstance(value, float)
    assert value == pytest.approx(oracles.distance_correlation(x, y), rel=1e-10)
    assert value == pytest.approx(diagnostics.distance_correlation(y, x), rel=1e-10)
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    assert value == pytest.approx(diagnostics.distance_correlation(5 * x @ turn + 2, y), rel=1e-9)


def test_distance_correlation_of_a_constant_is_finite() -> None:
    assert diagnostics.distance_correlation(np.full((10, 2), 0.1), np.arange(10.0)[:, None]) == 0.0


def test_f_statistics_by_hand() -> None:
    """h = (-2, 0, 0, 2), h_hat = (-1, -1, 1, 1): rss 4, tss 8, R2 = 1/2, F = (1/2) / (1/2 / (4 - 1 - 1)) = 2."""
    h, h_hat = np.array([[-2.0], [0], [0], [2]]), np.array([[-1.0], [-1], [1], [1]])
    with pytest.warns(UserWarning):
        result = diagnostics.f_statistics(h, h_hat, 1)
    np.testing.assert_allclose([result.r2[0], result.f_stat[0], result.f_median], [0.5, 2, 2])


def test_a_constant_column_is_not_explained() -> None:
    h = np.full((30, 2), 0.1)
    for h_hat in (h, h + 0.001):
        with pytest.warns(UserWarning, match="is weak: median F = 0.00 on 30 rows"):
            np.testing.assert_array_equal(diagnostics.f_statistics(h, h_hat, 1).r2, 0)
    with pytest.warns(UserWarning, match="F is not known with 2 rows for an instrument of 1 columns"):
        diagnostics.f_statistics(h[:2], h[:2], 1)


def test_f_statistics_is_the_oracle() -> None:
    rng = np.random.default_rng(6)
    v = rng.normal(size=(100, 4))
    h = v @ rng.normal(size=(4, 3)) + 0.5 * rng.normal(size=(100, 3))
    stage = oracles.first_stage(v, h, ridge=1e-2)
    result = diagnostics.f_statistics(h, stage["fitted"], 4)
    np.testing.assert_allclose(result.r2, stage["r2"], rtol=1e-10)
    np.testing.assert_allclose(result.f_stat, stage["f_stat"], rtol=1e-10)
    assert result.f_median == pytest.approx(np.median(stage["f_stat"]))


def leave_one_out_refits(v: Any, h: Any, ridge: float) -> Any:
    """Every row predicted by a ridge regression on the others, with the penalty of all rows; float64."""
    n, p = v.shape
    penalty, predicted = n * ridge * v.var(0).sum() / p, np.empty_like(h)
    for i in range(n):
        rest = np.delete(np.arange(n), i)
        centred, mean = v[rest] - v[rest].mean(0), h[rest].mean(0)
        coef = np.linalg.solve(centred.T @ centred + penalty * np.eye(p), centred.T @ (h[rest] - mean))
        predicted[i] = mean + (v[i] - v[rest].mean(0)) @ coef
    return predicted


def test_instrument_strength_is_a_fit_without_each_row() -> None:
    rng = np.random.default_rng(8)
    v = rng.normal(size=(60, 3))
    h = v @ rng.normal(size=(3, 2)) + rng.normal(size=(60, 2))
    predicted = leave_one_out_refits(v, h, 0.05)
    means = (60 * h.mean(0) - h) / 59
    r2 = 1 - np.square(h - predicted).sum(0) / np.square(h - means).sum(0)
    found = diagnostics.instrument_strength(v + 1e4, h - 1e3, ridge=0.05)  # a mean far from 0 costs nothing
    np.testing.assert_allclose(found.r2, r2, rtol=1e-4)
    np.testing.assert_allclose(found.f_stat, r2 / 3 / ((1 - r2) / (60 - 4)), rtol=1e-3)
    assert (found.num_rows, found.num_instruments, found.weak) == (60, 3, False)


def test_instrument_strength_warns_of_noise() -> None:
    v, h = np.random.default_rng(9).normal(size=(2, 200, 8))
    with pytest.warns(UserWarning, match="the first stage of text is weak: median F = 0.00 on 200 rows"):
        assert diagnostics.instrument_strength(v, h, names="text").weak


def exclusion_oracle(features: dict[str, Any], labels: Any, num_classes: int) -> dict[str, float]:
    """rho from its formula in float64, every prediction by a fit without its row."""
    n, onehot = len(labels), np.eye(num_classes)[labels]
    shares, evidence = onehot.mean(0), {}
    for name, h in features.items():
        x = (h - h.mean(0)) / h.std(0)
        fits = [leave_one_out_refits(x, onehot, ridge) for ridge in RIDGES]
        scores = min(fits, key=lambda fit: np.square(onehot - fit).sum()) - shares
        log_q = [beta * scores + np.log(shares) for beta in BETAS]
        log_q = [logits - np.log(np.exp(logits).sum(1, keepdims=True)) for logits in log_q]
        own = max(log_q, key=lambda q: (onehot * q).sum())[np.arange(n), labels]
        evidence[name] = own - np.array([own[labels == k].mean() for k in range(num_classes)])[labels]
    return {
        name: float(np.corrcoef(own, sum(evidence[other] for other in evidence if other != name))[0, 1])
        for name, own in evidence.items()
    }


def modalities_with(shared: float, seed: int, rows: int = 90, names: str = "ab") -> tuple[dict[str, Any], Any]:
    """The label is seen through noise of each modality's own, and through noise that all of them share."""
    rng = np.random.default_rng(seed)
    labels, common = rng.integers(0, 3, rows), rng.normal(size=(rows, 3))
    h = {m: np.eye(3)[labels] + shared * common + 0.5 * rng.normal(size=(rows, 3)) for m in names}
    return h, labels


@pytest.mark.parametrize(("shared", "names"), [(0.0, "ab"), (1.0, "ab"), (0.5, "abc")])
def test_exclusion_is_the_oracle(shared: float, names: str) -> None:
    features, labels = modalities_with(shared, 3, names=names)
    found = diagnostics.exclusion(features, labels, num_classes=3)
    for name, rho in exclusion_oracle(features, labels, 3).items():
        assert found[name].rho == pytest.approx(rho, abs=2e-3)
        assert found[name].low < rho < found[name].high and found[name].num_rows == len(labels)


def test_exclusion_tells_shared_errors_from_independent_ones() -> None:
    for shared, least, most in ((0.0, -0.2, 0.2), (1.0, 0.6, 1.0)):
        features, labels = modalities_with(shared, 4, rows=500)
        found = diagnostics.exclusion(features, labels, num_classes=3)["a"]
        assert least < found.rho < most
        assert (found.low < 0 < found.high) == (shared == 0)


def test_exclusion_is_high_on_the_null_model() -> None:
    null = StructuralModel("null").sample(600, seed=0)
    assert diagnostics.exclusion(null.inputs, null.labels, num_classes=2)["m1"].rho > 0.6


def test_exclusion_is_unknown_without_evidence() -> None:
    features, labels = modalities_with(0.0, 5)
    nothing = {**features, "b": np.ones_like(features["b"])}
    assert np.isnan(diagnostics.exclusion(nothing, labels, num_classes=3)["a"].rho)
    few = {name: value[:5] for name, value in features.items()}
    assert np.isnan(diagnostics.exclusion(few, np.array([0, 1, 2, 0, 1]), num_classes=3)["a"].rho)
    with pytest.raises(ValueError, match=r"features have shapes .*but \(90, d\) was expected for 90 labels"):
        diagnostics.exclusion({"a": features["a"][:4]}, labels, num_classes=3)
