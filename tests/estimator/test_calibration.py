"""Calibration: what it minimises, against an independent search."""

import numpy as np
import pytest

from c3r_jax.estimator.calibration import calibrate, fit_calibration, no_calibration


def data(n=400, k=3, scale=4.0, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=(n, k)) + [0.0, 1.0, -1.0][:k]
    p = np.exp(truth) / np.exp(truth).sum(1, keepdims=True)
    labels = (rng.random((n, 1)) > p.cumsum(1)).sum(1)
    return scale * (truth - [0.0, 1.0, -1.0][:k]), labels


def cost(logits, labels, fitted, step=0.0, weights=None):
    """The documented objective, row by row, at ``fitted`` moved by ``step`` in its own parameters."""
    k = logits.shape[1]
    w = np.ones(len(labels)) if weights is None else weights / weights.mean()
    theta = np.log(fitted.floor) - np.log(1 - fitted.floor.sum())
    log_t, bias, theta, slope = np.split(
        np.concatenate([[np.log(fitted.temperature)], fitted.bias, theta, [fitted.slope]]) + step, [1, 1 + k, 1 + 2 * k]
    )
    slope = max(slope[0], 0.0)
    floors = np.exp(theta).sum() / (1 + np.exp(theta).sum())
    share = np.array([w[labels == c].sum() + 1 for c in range(k)]) / (w.sum() + k)
    total = (log_t[0] ** 2 + (bias**2).sum() / 0.25 + ((theta - np.log(share) + 3) ** 2).sum() / 4 + slope**2) / 2
    for row, label, weight in zip(logits, labels, w, strict=True):
        p, q = np.exp(row / np.exp(log_t[0]) + bias), np.exp(slope * row + theta)
        total -= weight * np.log((1 - floors) * p[label] / p.sum() + floors * q[label] / q.sum())
    return total


@pytest.mark.parametrize("weighted", [False, True])
def test_no_neighbour_is_better(weighted):
    logits, labels = data()
    weights = np.random.default_rng(1).random(400) if weighted else None
    fitted = fit_calibration(logits, labels, weights)
    best = cost(logits, labels, fitted, weights=weights)
    for step in np.random.default_rng(2).normal(size=(50, 8)) * 0.05:
        assert cost(logits, labels, fitted, step, weights) > best


def test_finds_the_temperature_and_the_biases():
    logits, labels = data(n=20_000)
    fitted = fit_calibration(logits, labels)
    assert abs(fitted.temperature - 4.0) < 0.3
    np.testing.assert_allclose(fitted.bias, [0.0, 1.0, -1.0], atol=0.1)
    truth = logits / 4 + [0.0, 1.0, -1.0]  # the second part may say the same as the first
    expected = np.exp(truth) / np.exp(truth).sum(1, keepdims=True)
    assert np.abs(fitted(logits) - expected).mean() < 0.01
    np.testing.assert_allclose(fitted(logits).sum(1), 1)


@pytest.mark.parametrize("chance", [(0.23, 0.77), (0.05, 0.6)])
def test_a_cause_that_decides_by_chance_is_predicted_with_that_chance(chance):
    """The model knows the binary cause, and its confidence is uninformative; labels are drawn given the cause."""
    rng = np.random.default_rng(0)
    cause = rng.integers(0, 2, 4000)
    labels = (rng.random(4000) < np.array(chance)[cause]).astype(int)
    sure = np.exp(rng.normal(1.0, 1.0, 4000)) * (2 * cause - 1)
    fitted = fit_calibration(np.stack([np.zeros(4000), sure], axis=1), labels)
    predicted = fitted(np.stack([np.zeros(4000), sure], axis=1))[:, 1]
    assert np.abs(predicted - np.array(chance)[cause]).mean() < 0.03


def test_floors_may_depend_on_the_logits():
    """Sure of the cause at once, and a little more often right the surer it is."""
    rng = np.random.default_rng(0)
    strength = rng.uniform(0.0, 2.0, 8000)
    side = rng.integers(0, 2, 8000)
    right = 0.7 + 0.1 * strength
    labels = np.where(rng.random(8000) < right, side, 1 - side)
    logits = np.stack([np.zeros(8000), (5 + strength) * (2 * side - 1)], axis=1)
    fitted = fit_calibration(logits, labels)
    predicted = fitted(logits)[np.arange(8000), side]
    assert np.abs(predicted - right).mean() < 0.015 and fitted.slope > 0.1
    np.testing.assert_allclose(fitted(logits).sum(1), 1)


def test_extremes_stay_finite():
    """Separable rows would send the temperature to 0; a class without rows its bias to -infinity."""
    fitted = fit_calibration(np.array([[5.0, -5.0, 0.0]] * 30), np.zeros(30, int))
    assert np.isfinite(fitted.temperature) and np.isfinite(fitted.bias).all()
    assert (fitted.floor > 0).all() and fitted.floor.sum() < 0.2
    np.testing.assert_array_equal(no_calibration(2)(np.zeros((1, 2))), [[0.5, 0.5]])


@pytest.mark.parametrize("weighted", [False, True])
def test_all_rows_calibrate_a_model_unless_it_memorised_them(weighted):
    """One that learnt its training rows by heart is calibrated by the others alone, as if there were no more."""
    logits, labels = data(n=800)
    held = np.arange(800) % 10 == 0
    weights = np.random.default_rng(1).random(800) if weighted else None
    fair = calibrate(logits, labels, held, weights)
    np.testing.assert_array_equal(fair(logits), fit_calibration(logits, labels, weights)(logits))
    by_heart = np.where(held[:, None], logits, 20.0 * np.eye(3)[labels])
    expected = fit_calibration(logits[held], labels[held], None if weights is None else weights[held])
    np.testing.assert_array_equal(calibrate(by_heart, labels, held, weights)(logits), expected(logits))
