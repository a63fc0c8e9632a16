"""Calibration: what it minimises, by a search that knows nothing of it."""

import numpy as np
import pytest

from c3r_jax.estimator.calibration import fit_calibration, no_calibration


def data(n=400, k=3, scale=4.0, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=(n, k)) + [0.0, 1.0, -1.0][:k]
    p = np.exp(truth) / np.exp(truth).sum(1, keepdims=True)
    labels = (rng.random((n, 1)) > p.cumsum(1)).sum(1)
    return scale * (truth - [0.0, 1.0, -1.0][:k]), labels


def cost(logits, labels, log_t, bias, weights=None):
    w = np.ones(len(labels)) if weights is None else weights / weights.mean()
    scores = logits / np.exp(log_t) + bias
    log_p = scores - np.log(np.exp(scores - scores.max(1, keepdims=True)).sum(1, keepdims=True))
    log_p -= scores.max(1, keepdims=True)
    return -(w * log_p[np.arange(len(labels)), labels]).sum() + 0.5 * (log_t**2 + (bias**2).sum())


@pytest.mark.parametrize("weighted", [False, True])
def test_no_neighbour_is_better(weighted):
    logits, labels = data()
    weights = np.random.default_rng(1).random(400) if weighted else None
    fitted = fit_calibration(logits, labels, weights)
    best = cost(logits, labels, np.log(fitted.temperature), fitted.bias, weights)
    for step in np.random.default_rng(2).normal(size=(50, 4)) * 0.05:
        assert cost(logits, labels, np.log(fitted.temperature) + step[0], fitted.bias + step[1:], weights) > best


def test_finds_the_temperature_and_the_biases():
    logits, labels = data(n=20_000)
    fitted = fit_calibration(logits, labels)
    assert abs(fitted.temperature - 4.0) < 0.3
    np.testing.assert_allclose(fitted.bias, [0.0, 1.0, -1.0], atol=0.1)
    np.testing.assert_allclose(fitted(logits).sum(1), 1)


def test_extremes_stay_finite():
    """Separable rows would send the temperature to 0; a class without rows its bias to -infinity."""
    fitted = fit_calibration(np.array([[5.0, -5.0, 0.0]] * 30), np.zeros(30, int))
    assert np.isfinite(fitted.temperature) and np.isfinite(fitted.bias).all()
    np.testing.assert_array_equal(no_calibration(2)(np.zeros((1, 2))), [[0.5, 0.5]])
