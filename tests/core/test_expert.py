"""Leave-one-out fits and residual experts against fits that are really made without each row, in float64 NumPy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from c3r_jax.core.expert import BETAS
from c3r_jax.core.leave_one_out import leave_one_out
from tests.core.jitted import residual_experts

RIDGE = 1e-2


def refitted(v, h, ridge=RIDGE):
    """Every row predicted by a ridge regression on the others, with the penalty of all rows."""
    n, p = v.shape
    penalty = n * ridge * np.trace(np.cov(v.T, bias=True).reshape(p, p)) / p
    predicted = np.empty_like(h)
    for i in range(n):
        rest = np.delete(np.arange(n), i)
        mean_v, mean_h = v[rest].mean(0), h[rest].mean(0)
        centred = v[rest] - mean_v
        coef = np.linalg.solve(centred.T @ centred + penalty * np.eye(p), centred.T @ (h[rest] - mean_h))
        predicted[i] = mean_h + (v[i] - mean_v) @ coef
    return predicted


def experts_oracle(features, labels, num_classes, where, shares=None):
    """{name: (log_ratio, beta, likelihood, accuracy)} from the formulas."""
    names, rows = sorted(features), np.flatnonzero(where)
    y = np.eye(num_classes)[labels[rows]]
    p = y.mean(0) if shares is None else shares
    found = {}
    for name in names:
        v = np.concatenate([features[other][rows] for other in names if other != name], axis=1)
        h = features[name][rows]
        scores = refitted(h - refitted(v, h), y)
        best = None
        for beta in BETAS:
            logits = beta * (scores - p) + np.log(p)
            log_q = logits - np.log(np.exp(logits).sum(1, keepdims=True))
            likelihood = (y * log_q).sum(1).mean()
            if best is None or likelihood > best[2]:
                ratio = np.zeros((len(labels), num_classes))
                ratio[rows] = log_q - np.log(p)
                best = ratio, beta, likelihood, (log_q.argmax(1) == labels[rows]).mean()
        found[name] = best
    return found


@pytest.fixture
def problem():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 48)
    cause = np.eye(3)[labels] + 0.8 * rng.standard_normal((48, 3))
    features = {
        "a": np.concatenate([cause[:, :2], rng.standard_normal((48, 1)) + labels[:, None]], axis=1),
        "b": cause @ rng.standard_normal((3, 4)) + 0.3 * rng.standard_normal((48, 4)),
    }
    where = rng.random(48) < 0.9
    return features, labels, where


def as_jax(features):
    return {name: jnp.asarray(h) for name, h in features.items()}


def test_leave_one_out_is_a_fit_without_each_row(problem, x64):
    features, _, where = problem
    found = leave_one_out(jnp.asarray(features["b"]), jnp.asarray(features["a"]), where=jnp.asarray(where), ridge=RIDGE)
    v, h = features["b"][where], features["a"][where]
    predicted = refitted(v, h)
    np.testing.assert_allclose(np.asarray(found.predicted)[where], predicted, atol=1e-9)
    np.testing.assert_array_equal(np.asarray(found.residual)[~where], 0)
    n, p = v.shape
    means = np.stack([np.delete(h, i, axis=0).mean(0) for i in range(n)])
    r2 = 1 - np.square(h - predicted).sum(0) / np.square(h - means).sum(0)
    np.testing.assert_allclose(found.r2, r2, atol=1e-9)
    share = np.maximum(r2, 0)
    np.testing.assert_allclose(found.f_stat, share / p / ((1 - share) / (n - p - 1)), rtol=1e-8)
    assert int(found.count) == n


def test_pure_noise_has_no_strength():
    rng = np.random.default_rng(1)
    v, h = (jnp.asarray(rng.standard_normal((60, width)), jnp.float32) for width in (30, 4))
    found = leave_one_out(v, h, ridge=RIDGE)
    assert float(found.r2.max()) < 0 and float(found.f_stat.max()) == 0  # in sample, R^2 is near one half


def test_experts_are_the_formulas(problem, x64):
    features, labels, where = problem
    found = residual_experts(as_jax(features), jax.nn.one_hot(labels, 3, dtype=float), where=jnp.asarray(where))
    for name, (ratio, beta, likelihood, accuracy) in experts_oracle(features, labels, 3, where).items():
        expert = found[name]
        assert float(expert.beta) == beta
        np.testing.assert_allclose(expert.log_ratio, ratio, atol=1e-8)
        np.testing.assert_allclose([expert.likelihood, expert.accuracy], [likelihood, accuracy], atol=1e-8)


def test_what_is_excluded_or_absent_changes_nothing(problem):
    features, labels, where = problem
    present = np.ones((48, 2), bool)
    present[5, 0] = present[9, 1] = False
    targets = jax.nn.one_hot(labels, 3)
    use = {"present": jnp.asarray(present), "where": jnp.asarray(where)}
    before = residual_experts(as_jax(features), targets, **use)
    spoiled = {
        name: np.where(where[:, None] & present[:, [m]], h, np.nan) for m, (name, h) in enumerate(features.items())
    }
    after = residual_experts(as_jax(spoiled), targets, **use)
    jax.tree.map(np.testing.assert_array_equal, after, before)
    for row in (5, 9, int(np.flatnonzero(~where)[0])):
        assert not np.asarray(before["a"].log_ratio)[row].any()


def test_an_expert_of_nothing_says_nothing():
    rng = np.random.default_rng(2)
    features = {name: jnp.asarray(rng.standard_normal((64, 5)), jnp.float32) for name in ("a", "b")}
    found = residual_experts(features, jax.nn.one_hot(rng.integers(0, 4, 64), 4))
    assert all(float(expert.beta) <= 1 for expert in found.values())
    assert all(float(jnp.abs(expert.log_ratio).max()) < 0.5 for expert in found.values())


def test_an_absent_class_is_left_alone(problem):
    features, labels, _ = problem
    found = residual_experts(as_jax(features), jax.nn.one_hot(labels, 5))
    for expert in found.values():
        assert np.isfinite(expert.log_ratio).all() and not np.asarray(expert.log_ratio)[:, 3:].any()


def test_a_split_batch_has_the_same_experts(problem):
    features, labels, where = problem
    targets = jax.nn.one_hot(labels, 3)
    whole = residual_experts(as_jax(features), targets, where=jnp.asarray(where))

    def part(features, targets, where):
        return residual_experts(features, targets, where=where, axis_name="devices")

    split = jax.tree.map(lambda x: jnp.asarray(x).reshape(4, 12, *x.shape[1:]), (features, targets, where))
    found = jax.pmap(part, axis_name="devices")(*split)
    for name, expert in whole.items():
        np.testing.assert_allclose(found[name].log_ratio.reshape(48, 3), expert.log_ratio, atol=1e-4)
        np.testing.assert_allclose(found[name].beta, np.full(4, expert.beta))


def test_no_gradient_goes_through_an_expert(problem):
    features, labels, _ = problem

    def total(features):
        found = residual_experts(features, jax.nn.one_hot(labels, 3))
        return sum(jnp.square(expert.log_ratio).sum() for expert in found.values())

    gradient = jax.grad(total)(jax.tree.map(lambda h: jnp.asarray(h, jnp.float32), features))
    assert all(not np.asarray(part).any() for part in gradient.values())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"present": np.ones((40, 3), bool)}, "present has shape"),
        ({"present": np.ones((40, 2), int)}, "present has shape .* dtype int"),
        (
            {"features": {"a": jnp.ones((40, 2)), "b": jnp.ones((39, 2))}},
            r"'b': \(39, 2\).* but \(40, d\) was expected",
        ),
    ],
)
def test_shapes_that_do_not_agree_are_refused(changes, message):
    given = {"features": {name: jnp.ones((40, 2)) for name in "ab"}, **changes}
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda: residual_experts(given.pop("features"), jnp.ones((40, 2)), **given))


def test_one_modality_is_refused():
    with pytest.raises(ValueError, match="features has 1 modality, but at least 2 were expected"):
        residual_experts({"a": jnp.ones((8, 2))}, jnp.ones((8, 2)) / 2)
