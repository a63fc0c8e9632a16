"""Risks, their bounds, and the per-example surrogates."""

from __future__ import annotations

import math
from typing import Any

import chex
import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import c3r_jax

from . import oracles
from .conftest import Precision

risk_of = jax.jit(c3r_jax.c3_risk)
necessity_of = jax.jit(c3r_jax.necessity_loss, static_argnames="kind")
sufficiency_of = jax.jit(c3r_jax.sufficiency_loss)

FIELDS = ("sufficiency", "necessity", "total", "lower", "upper", "joint")
PRIOR = np.array([0.1, 0.2, 0.3, 0.4])


def scores(seed: int, rows: int = 40, classes: int = 4, scale: float = 3.0) -> tuple[Any, Any, Any, Any]:
    rng = np.random.default_rng(seed)
    a, b = scale * rng.normal(size=(2, rows, classes))
    return a, b, rng.integers(0, classes, rows), rng.permutation(rows) < 0.6 * rows


def check_risk(actual: c3r_jax.C3Risk, expected: dict[str, float]) -> None:
    for name in FIELDS:
        value = getattr(actual, name)
        assert jnp.shape(value) == () and value.dtype in (jnp.float32, jnp.float64)
        np.testing.assert_allclose(value, expected[name], rtol=1e-6, atol=1e-6, err_msg=name)


# z_c right on rows 0, 1, 2 of 4: R_S = 1/4. z_bar right on rows 2, 3: R_N = 1/2. R = 3/4, so the joint event lies in
# [max(0, 1 - 3/4), min(3/4, 1/2)] = [1/4, 1/2]; it happens on rows 0 and 1: 1/2.
HAND = (
    np.array([[2.0, 0], [0, 1], [3, 1], [5, 4]]),
    np.array([[0.0, 1], [1, 0], [3, 1], [0, 9]]),
    np.array([0, 1, 0, 1]),
)


def test_risk_by_hand() -> None:
    expected = dict(zip(FIELDS, (0.25, 0.5, 0.75, 0.25, 0.5, 0.5), strict=True))
    check_risk(c3r_jax.c3_risk(*map(jnp.asarray, HAND)), expected)
    assert oracles.risk(*HAND) == expected


def test_risk_above_one_by_hand() -> None:
    """Everything inverted: R_S = R_N = 1, R = 2, and nothing is a cause."""
    logits = jnp.array([[1.0, 0], [0, 1]])
    risk = c3r_jax.c3_risk(logits, -logits, jnp.array([1, 0]))
    assert [float(getattr(risk, f)) for f in FIELDS] == [1, 1, 2, 0, 0, 0]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_risk_is_the_oracle(seed: int, masked: bool) -> None:
    a, b, y, keep = scores(seed)
    where = keep if masked else None
    check_risk(risk_of(jnp.asarray(a), jnp.asarray(b), jnp.asarray(y), where=where), oracles.risk(a, b, y, where))
    subset = risk_of(jnp.asarray(a[keep]), jnp.asarray(b[keep]), jnp.asarray(y[keep]))
    check_risk(subset, oracles.risk(a, b, y, keep))


@hypothesis.settings(max_examples=25, deadline=None, derandomize=True)
@hypothesis.given(
    hnp.arrays(np.float32, (2, 6, 3), elements=st.floats(-50, 50, width=32, allow_subnormal=False)),
    hnp.arrays(np.int32, 6, elements=st.integers(0, 2)),
)
def test_joint_lies_between_the_bounds(logits: Any, labels: Any) -> None:
    risk = risk_of(jnp.asarray(logits[0]), jnp.asarray(logits[1]), jnp.asarray(labels))
    assert 0 <= risk.lower <= risk.joint + 1e-6 and risk.joint <= risk.upper + 1e-6 and risk.upper <= 1
    np.testing.assert_allclose(risk.total, risk.sufficiency + risk.necessity, atol=1e-6)
    check_risk(risk, oracles.risk(logits[0], logits[1], labels))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_row_is_wrong_in_both_branches(bad: float) -> None:
    """Rows are right before; row 0 of z_c and row 1 of z_bar get a bad entry: R_S 0 -> 1/2, R_N 1 -> 1/2."""
    logits, y = np.array([[3.0, 0], [3, 0]]), np.array([0, 0])
    a, b = logits.copy(), logits.copy()
    a[0, 0] = b[1, 0] = bad
    risk = risk_of(jnp.asarray(a), jnp.asarray(b), jnp.asarray(y))
    check_risk(risk, dict(zip(FIELDS, (0.5, 0.5, 1, 0, 0.5, 0.5), strict=True)))
    check_risk(risk, oracles.risk(a, b, y))
    a[0, 0], a[0, 1] = 3.0, bad  # the entry of another class is no better, but for -infinity, which masks it
    expected = 0.0 if bad == -np.inf else 0.5
    assert risk_of(jnp.asarray(a), jnp.asarray(b), jnp.asarray(y)).sufficiency == expected
    a[0] = -np.inf  # as all of them do, nothing is predicted
    assert risk_of(jnp.asarray(a), jnp.asarray(b), jnp.asarray(y)).sufficiency == 0.5


def test_risk_without_rows_is_nan() -> None:
    a, b, y, _ = scores(0)
    risk = risk_of(jnp.asarray(a), jnp.asarray(b), jnp.asarray(y), where=jnp.zeros(len(y), bool))
    assert all(np.isnan(getattr(risk, f)) for f in FIELDS)


def test_values_of_masked_rows_have_no_effect() -> None:
    a, b, y, keep = scores(1)
    expected = oracles.risk(a, b, y, keep)
    a[~keep], b[~keep] = np.nan, np.inf
    check_risk(risk_of(jnp.asarray(a), jnp.asarray(b), jnp.asarray(y), where=jnp.asarray(keep)), expected)


def test_risk_is_counted_in_single_precision() -> None:
    """3 of 1,000 wrong: bfloat16 could not even count to 1,000."""
    logits = np.tile([[1.0, 0.0]], (1000, 1))
    labels = np.r_[np.ones(3, int), np.zeros(997, int)]
    low = jnp.asarray(logits, jnp.bfloat16)
    risk = risk_of(low, low, jnp.asarray(labels))
    check_risk(risk, oracles.risk(logits, logits, labels))


def test_risk_is_a_pytree_under_jit_and_vmap() -> None:
    a, b, y, keep = (jnp.asarray(v) for v in scores(2))
    eager = c3r_jax.c3_risk(a, b, y, where=keep)
    chex.assert_trees_all_close(jax.jit(lambda *x: c3r_jax.c3_risk(*x[:3], where=x[3]))(a, b, y, keep), eager)
    many = jax.vmap(c3r_jax.c3_risk)(jnp.stack([a, b]), jnp.stack([b, a]), jnp.stack([y, y]))
    chex.assert_trees_all_close(jax.tree.map(lambda v: v[1], many), c3r_jax.c3_risk(b, a, y))


# logits (ln 3, 0), label 0: p_y = 3/4. hinge = ln(3/4 * 2) = .4054651; log = -ln(1/4) = 1.3862944;
# kl against (1/2, 1/2) = (ln(2/3) + ln 2) / 2 = .1438410; cross-entropy = ln(4/3) = .2876821.
# The same with label 1: p_y = 1/4, hinge 0, log = ln(4/3), kl unchanged, cross-entropy = ln 4.
@pytest.mark.parametrize(
    ("label", "kind", "expected"),
    [
        (0, "hinge", 0.4054651081),
        (0, "log", 1.3862943611),
        (0, "kl", 0.1438410362),
        (0, "ce", 0.2876820724),
        (1, "hinge", 0.0),
        (1, "log", 0.2876820724),
        (1, "kl", 0.1438410362),
        (1, "ce", 1.3862943611),
    ],
)
def test_surrogates_by_hand(label: int, kind: str, expected: float) -> None:
    logits, labels = jnp.array([[math.log(3.0), 0.0]]), jnp.array([label])
    if kind == "ce":
        value = c3r_jax.sufficiency_loss(logits, labels)
    else:
        prior = jnp.array([0.5, 0.5]) if kind == "kl" else None
        value = c3r_jax.necessity_loss(logits, labels, kind=kind, prior=prior)
    np.testing.assert_allclose(value, [expected], rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize("scale", [0.1, 3.0, 30.0])
@pytest.mark.parametrize("kind", ["hinge", "log", "kl"])
def test_necessity_is_the_oracle(precision: Precision, kind: str, scale: float) -> None:
    logits, _, y, _ = scores(3, scale=scale)
    logits = logits.astype(precision.dtype).astype(np.float64)
    prior = PRIOR if kind == "kl" else None
    value = necessity_of(jnp.asarray(logits, precision.dtype), jnp.asarray(y), kind=kind, prior=prior)
    assert value.shape == y.shape and value.dtype == precision.dtype
    precision.close(value, oracles.necessity(logits, y, kind, PRIOR))


def test_sufficiency_is_the_oracle(precision: Precision) -> None:
    logits, _, y, _ = scores(4)
    value = sufficiency_of(jnp.asarray(logits, precision.dtype), jnp.asarray(y))
    assert value.shape == y.shape and value.dtype == precision.dtype
    precision.close(value, oracles.cross_entropy(logits, y))


@pytest.mark.parametrize("smoothing", [0.1, 0.7])
def test_smoothed_sufficiency_is_the_oracle(precision: Precision, smoothing: float) -> None:
    logits, _, y, _ = scores(4)
    logits = logits.astype(precision.dtype).astype(np.float64)
    value = c3r_jax.sufficiency_loss(jnp.asarray(logits, precision.dtype), jnp.asarray(y), label_smoothing=smoothing)
    precision.close(value, oracles.cross_entropy(logits, y, smoothing))


def test_without_smoothing_a_class_may_be_masked() -> None:
    value = c3r_jax.sufficiency_loss(jnp.array([[0.0, 0.0, -jnp.inf]]), jnp.array([1]))
    np.testing.assert_allclose(value, [math.log(2)], rtol=1e-6)


@pytest.mark.parametrize("smoothing", [-0.1, 1.0, float("nan")])
def test_smoothing_out_of_range(smoothing: float) -> None:
    with pytest.raises(ValueError, match=f"label_smoothing is {smoothing}"):
        c3r_jax.sufficiency_loss(jnp.zeros((1, 2)), jnp.array([0]), label_smoothing=smoothing)
    with pytest.raises(ValueError, match=f"label_smoothing is {smoothing}"):
        c3r_jax.C3RConfig.hinge(label_smoothing=smoothing)


def test_hinge_is_the_default_and_zero_below_chance() -> None:
    logits, _, y, _ = scores(5)
    value = necessity_of(jnp.asarray(logits), jnp.asarray(y))
    chance = np.exp(-oracles.cross_entropy(logits, y)) <= 0.25
    assert chance.any() and not chance.all()
    assert (np.asarray(value)[chance] == 0).all() and (np.asarray(value)[~chance] > 0).all()


def test_kl_allows_a_class_without_share_and_ignores_the_label() -> None:
    logits, _, y, _ = scores(6)
    prior = np.array([0.0, 0.25, 0.25, 0.5])
    value = necessity_of(jnp.asarray(logits), jnp.asarray(y), kind="kl", prior=jnp.asarray(prior))
    np.testing.assert_allclose(value, oracles.necessity(logits, y, "kl", prior), rtol=1e-5, atol=1e-6)
    other = necessity_of(jnp.asarray(logits), jnp.asarray((y + 1) % 4), kind="kl", prior=jnp.asarray(prior))
    np.testing.assert_array_equal(value, other)


@pytest.mark.parametrize("kind", ["hinge", "log", "kl", "ce"])
def test_surrogate_gradients(x64: None, kind: str) -> None:
    logits, _, y, _ = scores(7)
    away = np.random.default_rng(0).normal(size=logits.shape)
    weight = np.random.default_rng(1).normal(size=len(y))

    def loss(x: Any) -> Any:
        if kind == "ce":
            return jnp.vdot(weight, sufficiency_of(x, jnp.asarray(y)))
        prior = jnp.asarray(PRIOR) if kind == "kl" else None
        return jnp.vdot(weight, necessity_of(x, jnp.asarray(y), kind=kind, prior=prior))

    def oracle(t: float) -> float:
        x = logits + t * away
        return float(weight @ (oracles.cross_entropy(x, y) if kind == "ce" else oracles.necessity(x, y, kind, PRIOR)))

    gradient = jax.grad(loss)(jnp.asarray(logits))
    np.testing.assert_allclose(np.vdot(gradient, away), oracles.directional(oracle), rtol=1e-8)


@pytest.mark.parametrize("kind", ["hinge", "log", "kl"])
def test_bfloat16_logits_are_computed_in_single_precision(kind: str) -> None:
    logits, _, y, _ = scores(8)
    low = jnp.asarray(logits, jnp.bfloat16)
    prior = PRIOR if kind == "kl" else None
    value = necessity_of(low, jnp.asarray(y), kind=kind, prior=prior)
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(
        value, oracles.necessity(np.asarray(low, np.float64), y, kind, PRIOR), rtol=1e-5, atol=1e-5
    )
