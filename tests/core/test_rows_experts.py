"""Experts of all rows: ridges by refitting, missing modalities, more columns than rows."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from c3r_jax.core import rows_experts
from c3r_jax.core.expert import residual_experts
from c3r_jax.core.gate import explained_share
from c3r_jax.core.leave_one_out import press_by_ridge
from c3r_jax.core.rows_experts import best_leave_one_out, compiled_leave_one_out, experts_of_rows


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    cause, cue = rng.standard_normal((2, 60, 1)).astype(np.float32)
    image = np.concatenate([cause, cue, rng.standard_normal((60, 1))], 1).astype(np.float32)
    text = (cause + 0.3 * rng.standard_normal((60, 2))).astype(np.float32)
    return {"image": image, "text": text}, (cause + cue > 0).astype(int)[:, 0]


def standard(x):
    return (x - x.mean(0)) / x.std(0)


def refit(v, h, ridge):
    """Sum of squared errors of each row's prediction by a ridge regression on all others, float64."""
    total, n, p = 0.0, *v.shape
    penalty = n * ridge * np.trace(np.cov(v.T, bias=True).reshape(p, p)) / p
    for i in range(n):
        kept = np.arange(n) != i
        centre_v, centre_h = v[kept].mean(0), h[kept].mean(0)
        x, y = v[kept] - centre_v, h[kept] - centre_h
        coef = np.linalg.solve(x.T @ x + penalty * np.eye(p), x.T @ y)
        total += np.square(h[i] - centre_h - (v[i] - centre_v) @ coef).sum()
    return total


def test_the_ridge_has_the_smallest_error_of_refits(rows):
    h, _ = rows
    v, y = standard(h["image"].astype(np.float64)), standard(h["text"].astype(np.float64))
    ridges = (1e-3, 0.1, 1.0, 30.0)
    errors = [refit(v, y, ridge) for ridge in ridges]
    chosen = best_leave_one_out(jnp.asarray(v, jnp.float32), jnp.asarray(y, jnp.float32), jnp.ones(60, bool), ridges)
    np.testing.assert_allclose(jnp.square(chosen.residual).sum(), min(errors), rtol=1e-3)


def test_the_errors_of_all_ridges_are_those_of_refits(rows):
    h, _ = rows
    v, y = h["image"].astype(np.float64), h["text"].astype(np.float64)
    ridges, kept = np.array([1e-3, 0.1, 1.0, 30.0], np.float32), np.arange(60) % 3 > 0
    for where in (None, kept):
        rows_used = np.ones(60, bool) if where is None else where
        errors = [refit(v[rows_used], y[rows_used], float(ridge)) for ridge in ridges]
        np.testing.assert_allclose(press_by_ridge(h["image"], h["text"], ridges, where=where), errors, rtol=1e-4)
    constant = np.ones_like(h["image"])
    alone = press_by_ridge(constant, h["text"], ridges)
    mean_of_others = (y.sum(0) - y) / 59
    np.testing.assert_allclose(alone, np.full(4, np.square(y - mean_of_others).sum()), rtol=1e-5)


def test_a_ridge_whose_fit_is_not_finite_is_no_candidate(rows, monkeypatch):
    h, _ = rows
    v, y = jnp.asarray(h["image"]), jnp.asarray(h["text"])
    fit = rows_experts.compiled_leave_one_out()

    def breaks(*arguments, ridge, where):
        found = fit(*arguments, ridge=ridge, where=where)
        return found._replace(residual=found.residual * np.nan) if ridge < 1 else found

    monkeypatch.setattr(rows_experts, "compiled_leave_one_out", lambda: breaks)
    found = best_leave_one_out(v, y, jnp.ones(60, bool), (1e-3, 0.1, 1.0, 30.0))
    np.testing.assert_array_equal(found.residual, fit(v, y, ridge=1.0, where=jnp.ones(60, bool)).residual)


def test_with_one_ridge_they_are_those_of_one_batch(rows):
    h, labels = rows
    one = experts_of_rows(h, labels, num_outputs=2, ridges=(1e-2,))
    batch = residual_experts(
        {name: jnp.asarray(standard(x)) for name, x in h.items()}, jax.nn.one_hot(labels, 2), ridge=1e-2
    )
    for name in h:
        np.testing.assert_allclose(one[name].log_ratio, batch[name].log_ratio, atol=1e-3)


def test_rows_that_lack_one_of_three_modalities_are_fitted_and_others_are_not(rows):
    h, labels = rows
    h = {**h, "voice": h["text"] + 0.1}
    present = np.ones((60, 3), bool)
    present[:5, 2] = False  # no voice: image and text still are each other's instrument
    present[5:8, :2] = False  # voice alone: no instrument
    h["voice"][:5] = np.nan
    experts = experts_of_rows(h, labels, num_outputs=2, present=present)
    assert int(experts["image"].first_stage.count) == 57 and int(experts["voice"].first_stage.count) == 52
    for m, name in enumerate(("image", "text", "voice")):
        found = np.asarray(experts[name].log_ratio)
        assert np.isfinite(found).all() and not found[~present[:, m]].any() and not found[5:8].any()
    assert np.asarray(experts["image"].log_ratio)[:5].any()  # the cue that the image alone has


def test_more_columns_than_rows_give_finite_evidence():
    rng = np.random.default_rng(1)
    s = rng.standard_normal((100, 1))
    h = {name: (s + rng.standard_normal((100, 150))).astype(np.float32) for name in ("a", "b")}
    experts = experts_of_rows(h, (s[:, 0] > 0).astype(int), num_outputs=2)
    assert all(np.isfinite(found.log_ratio).all() for found in experts.values())


def test_nothing_is_explained_where_nothing_is_predicted():
    assert float(explained_share(jnp.asarray(1.2), jnp.asarray(1.0), jnp.asarray(1.1))) == 0


def test_sets_of_nearly_equal_size_share_programs_and_rows_that_do_not_count_change_nothing():
    rng = np.random.default_rng(0)
    cause = rng.normal(size=(120, 2))
    h = {name: (cause + 0.5 * rng.normal(size=(120, 2))).astype(np.float32) for name in "ab"}
    labels = (cause[:, 0] > 0).astype(int)
    part = {name: value[:100] for name, value in h.items()}
    found = experts_of_rows(part, labels[:100], num_outputs=2)
    count = compiled_leave_one_out()._cache_size()
    masked = experts_of_rows(h, labels, num_outputs=2, where=np.arange(120) < 100)
    assert compiled_leave_one_out()._cache_size() == count
    for name in "ab":
        assert found[name].log_ratio.shape == (100, 2)
        np.testing.assert_allclose(masked[name].log_ratio[:100], found[name].log_ratio, rtol=1e-5, atol=1e-6)


def test_columns_that_float32_does_not_hold_are_standardised_first(rows):
    """As a timestamp is one: to the nearest 128 seconds it would say nothing."""
    features, labels = rows
    shifted = {**features, "image": 60 * features["image"].astype(np.float64) + [0, 1.7e9, 0]}
    found, expected = (experts_of_rows(h, labels, num_outputs=2) for h in (shifted, features))
    np.testing.assert_allclose(found["image"].log_ratio, expected["image"].log_ratio, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"present": np.ones((40, 3), bool)}, "present has shape"),
        ({"present": np.ones((12, 2), bool)}, "present has shape"),
        ({"where": np.ones(12, bool)}, "where has shape"),
        ({"labels": np.full(40, 3)}, "label 3 is outside"),
        ({"labels": np.full(40, -1)}, "label -1 is outside"),
        ({"features": {"a": np.eye(40, 2), "b": np.where(np.eye(40, 2, -3), np.nan, 1)}}, "'b'.* is nan at row 3, col"),
        ({"features": {"a": np.eye(40, 2), "b": np.full((40, 2), "x")}}, r"features\['b'\] has dtype <U1"),
        ({"features": {"a": np.eye(40, 2), "b": np.eye(39, 2)}}, r"features\['b'\] has shape \(39, 2\)"),
    ],
)
def test_arguments_that_do_not_agree_are_refused(wrong, message):
    rng = np.random.default_rng(0)
    features = {name: rng.standard_normal((40, 2)).astype(np.float32) for name in ("a", "b")}
    given = {"labels": rng.integers(0, 3, 40), "num_outputs": 3, **wrong}
    labels = given.pop("labels")
    with pytest.raises(ValueError, match=message):
        experts_of_rows(given.pop("features", features), labels, **given)
    uncounted = np.arange(40) > 3  # what does not count may hold anything
    experts_of_rows(features, np.where(uncounted, np.arange(40) % 3, -1), num_outputs=3, where=uncounted)
