"""Temperature and biases are at the minimum of their cost, and give rare classes back what a shift took."""

import numpy as np
from scipy.special import log_softmax

from c3r_jax.metrics.biases import fit_biases


def problem(rows=600, seed=0):
    """Logits that are twice too sure, and against the rare classes."""
    rng = np.random.default_rng(seed)
    shares = np.array([0.8, 0.15, 0.05])
    labels = rng.choice(3, size=rows, p=shares)
    honest = np.log(shares) + 3 * np.eye(3)[labels] * rng.random((rows, 1)) + rng.normal(size=(rows, 3))
    return 2 * (honest - np.array([0.0, 1.5, 2.5])), labels


def cost(logits, labels, temperature, bias):
    log_p = log_softmax(logits / temperature + bias, axis=1)
    prior = np.log(temperature) ** 2 / 2 + np.square(bias).sum() / 0.5
    return prior - log_p[np.arange(len(labels)), labels].sum()


def test_no_neighbour_costs_less():
    logits, labels = problem()
    found = fit_biases(logits, labels)
    least = cost(logits, labels, found.temperature, found.bias)
    assert abs(found.bias.sum()) < 1e-12
    rng = np.random.default_rng(1)
    for step in 0.02 * rng.normal(size=(50, 4)):
        assert cost(logits, labels, found.temperature * np.exp(step[0]), found.bias + step[1:]) > least


def test_rare_classes_are_found_again():
    logits, labels = problem()
    held, held_labels = problem(seed=2)
    fitted = fit_biases(logits, labels)
    recall = [
        np.mean([(x.argmax(1) == held_labels)[held_labels == k].mean() for k in range(3)]) for x in (held, fitted(held))
    ]
    assert recall[1] > recall[0] + 0.1
    assert fitted.temperature > 1 and fitted(held.astype(np.float32)).dtype == np.float32
