"""The first stage: ridge regression on the other modalities."""

from __future__ import annotations

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import c3r_jax

from . import oracles
from .conftest import Precision

FIELDS = ("fitted", "coef", "mean_v", "mean_h", "r2", "f_stat")


def data(seed: int, rows: int = 60, p: int = 5, d: int = 3) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(seed)
    v = rng.normal(size=(rows, p)) @ rng.normal(size=(p, p)) + 1.5
    h = 0.5 * v @ rng.normal(size=(p, d)) + 2 * rng.normal(size=(rows, d)) - 0.7
    return v, h, rng.random(rows) < 0.7


def check(stage: Any, expected: dict[str, Any], precision: Precision, rows: Any = slice(None)) -> None:
    for name in FIELDS:
        actual, wanted = np.asarray(getattr(stage, name)), expected[name]
        if name == "fitted":
            actual, wanted = actual[rows], wanted[rows]
        assert actual.dtype == precision.dtype, name
        precision.close(actual, wanted, loosen=3.0)


# v = (-1, -1, 1, 1), h = (-2, 0, 0, 2): Var v = 1, Cov = 1, tss = 8.
# ridge 0:   coef 1,             rss = 4,                        R2 = .5,  F = (.5/1) / (.5/(4-1-1)) = 2
# ridge .25: coef 1/1.25 = .8,   rss = 2 (1.2^2 + .8^2) = 4.16,  R2 = .48, F = .48 / (.52/2) = 24/13
@pytest.mark.parametrize(("ridge", "coef", "r2", "f_stat"), [(0.0, 1.0, 0.5, 2.0), (0.25, 0.8, 0.48, 24 / 13)])
def test_by_hand(precision: Precision, ridge: float, coef: float, r2: float, f_stat: float) -> None:
    v = np.array([[-1.0], [-1], [1], [1]]) + 5  # means do not matter
    h = np.array([[-2.0], [0], [0], [2]]) - 3
    stage = c3r_jax.first_stage(jnp.asarray(v, precision.dtype), jnp.asarray(h, precision.dtype), ridge=ridge)
    fitted = coef * np.array([[-1.0], [-1], [1], [1]]) - 3
    expected = {"fitted": fitted, "coef": [[coef]], "mean_v": [5], "mean_h": [-3], "r2": [r2], "f_stat": [f_stat]}
    check(stage, expected, precision)
    precision.close(stage.apply(jnp.array([[9.0], [5.0]], precision.dtype)), [[4 * coef - 3], [-3]])


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("ridge", [0.0, 1e-3, 0.3])
def test_is_the_oracle(precision: Precision, ridge: float, masked: bool) -> None:
    v, h, keep = data(1)
    where = keep if masked else None
    stage = c3r_jax.first_stage(
        jnp.asarray(v, precision.dtype), jnp.asarray(h, precision.dtype), ridge=ridge, where=where
    )
    expected = oracles.first_stage(v, h, ridge=ridge, where=where)
    check(stage, expected, precision)  # `fitted` has every row, masked or not
    new = np.random.default_rng(0).normal(size=(7, 5))
    precision.close(
        stage.apply(jnp.asarray(new, precision.dtype)),
        expected["mean_h"] + (new - expected["mean_v"]) @ expected["coef"],
        loosen=3.0,
    )


def test_default_ridge() -> None:
    v, h, _ = data(2)
    stage = c3r_jax.first_stage(jnp.asarray(v), jnp.asarray(h))
    check(stage, oracles.first_stage(v, h, ridge=1e-3), Precision(np.dtype("float32"), 1e-5))


def test_apply_gives_the_fitted_rows() -> None:
    v, h, keep = data(3)
    stage = c3r_jax.first_stage(jnp.asarray(v), jnp.asarray(h), where=keep)
    np.testing.assert_allclose(stage.apply(jnp.asarray(v)), stage.fitted, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(stage.apply(jnp.asarray(v[:1])), stage.fitted[:1], rtol=1e-5, atol=1e-5)


def test_where_is_the_subset_and_order_does_not_matter(x64: None) -> None:
    v, h, keep = data(4)
    masked = c3r_jax.first_stage(v, h, where=keep)
    subset = c3r_jax.first_stage(v[keep], h[keep])
    order = np.random.default_rng(0).permutation(len(v))
    shuffled = c3r_jax.first_stage(v[order], h[order], where=keep[order])
    for name in FIELDS[1:]:
        for other in (subset, shuffled):
            np.testing.assert_allclose(getattr(other, name), getattr(masked, name), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(subset.fitted, np.asarray(masked.fitted)[keep], rtol=1e-9, atol=1e-9)
    columns = np.array([3, 0, 4, 1, 2])
    np.testing.assert_allclose(c3r_jax.first_stage(v[:, columns], h, where=keep).fitted, masked.fitted, rtol=1e-9)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_masked_rows_may_hold_anything(bad: float) -> None:
    v, h, keep = data(5)

    def value(v: Any, h: Any) -> Any:
        stage = c3r_jax.first_stage(v, h, where=jnp.asarray(keep))
        return jnp.sum(jnp.sin(jnp.where(keep[:, None], stage.fitted, 0))) + jnp.sum(stage.r2), stage

    run = jax.value_and_grad(value, argnums=(0, 1), has_aux=True)
    (_, clean), wanted = run(jnp.asarray(v), jnp.asarray(h))
    (_, dirty), grads = run(*(jnp.asarray(np.where(keep[:, None], a, bad)) for a in (v, h)))
    for name in FIELDS[1:]:
        np.testing.assert_array_equal(getattr(dirty, name), getattr(clean, name))
    for a, b in zip(grads, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
        assert (np.asarray(a)[~keep] == 0).all()


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1e3, 1e6])
def test_scale_and_shift_free(scale: float) -> None:
    """The ridge is relative, so coefficients, R2 and F do not know the unit of v or of h."""
    v, h, _ = data(6)
    base = c3r_jax.first_stage(jnp.asarray(v), jnp.asarray(h), ridge=0.1)
    both = c3r_jax.first_stage(jnp.asarray(scale * v), jnp.asarray(scale * h), ridge=0.1)
    for name in ("coef", "r2", "f_stat"):
        np.testing.assert_allclose(getattr(both, name), getattr(base, name), rtol=1e-4, atol=1e-5)
    one = c3r_jax.first_stage(jnp.asarray(scale * v), jnp.asarray(h + 3), ridge=0.1)
    np.testing.assert_allclose(one.r2, base.r2, rtol=1e-4)
    np.testing.assert_allclose(scale * one.coef, base.coef, rtol=1e-4, atol=1e-5)


def test_large_mean_costs_no_precision() -> None:
    """Centred moments: E[v v'] - mean mean' would lose everything at a mean of 3,000 standard deviations."""
    v, h, _ = data(7)
    v32, h32 = (np.asarray(a + 3000, np.float32) for a in (v, h))
    stage = c3r_jax.first_stage(jnp.asarray(v32), jnp.asarray(h32), ridge=0.1)
    expected = oracles.first_stage(v32.astype(np.float64), h32.astype(np.float64), ridge=0.1)
    np.testing.assert_allclose(stage.r2, expected["r2"], rtol=1e-3)
    np.testing.assert_allclose(stage.coef, expected["coef"], rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("ridge", [0.0, 0.3])
@pytest.mark.parametrize("output", ["fitted", "coef", "r2"])
def test_finite_differences(x64: None, output: str, ridge: float) -> None:
    """Through the means, the covariances, the trace in the ridge, the solve and the variance under R2."""
    v, h, keep = data(8)
    rng = np.random.default_rng(9)
    dv, dh = rng.normal(size=v.shape), rng.normal(size=h.shape)
    weight = rng.normal(size=oracles.first_stage(v, h)[output].shape)
    if output == "fitted":
        weight = weight * keep[:, None]

    def value(v: Any, h: Any) -> Any:
        return jnp.vdot(weight, getattr(c3r_jax.first_stage(v, h, ridge=ridge, where=jnp.asarray(keep)), output))

    def oracle(t: float) -> float:
        return float(np.vdot(weight, oracles.first_stage(v + t * dv, h + t * dh, ridge=ridge, where=keep)[output]))

    gv, gh = jax.grad(value, argnums=(0, 1))(jnp.asarray(v), jnp.asarray(h))
    np.testing.assert_allclose(np.vdot(gv, dv) + np.vdot(gh, dh), oracles.directional(oracle), rtol=1e-7, atol=1e-9)


def test_second_derivative(x64: None) -> None:
    v, h, _ = data(10)
    dv = np.random.default_rng(0).normal(size=v.shape)
    slope = lambda t: jax.grad(lambda s: jnp.sum(c3r_jax.first_stage(v + s * dv, h, ridge=0.1).r2))(t)  # noqa: E731
    expected = oracles.directional(lambda t: float(slope(t)))
    np.testing.assert_allclose(jax.grad(slope)(0.0), expected, rtol=1e-6)
    np.testing.assert_allclose(jax.jvp(slope, (0.0,), (1.0,))[1], expected, rtol=1e-6)


def test_r2_cannot_be_raised_by_shrinking(x64: None) -> None:
    """Scale-free: no gradient along v itself nor along h itself (Euler), unlike a plain |h - h_hat|^2."""
    v, h, _ = data(19)
    r2 = lambda v, h: jnp.sum(c3r_jax.first_stage(v, h, ridge=0.3).r2)  # noqa: E731
    gv, gh = jax.grad(r2, argnums=(0, 1))(jnp.asarray(v), jnp.asarray(h))
    for g, a in ((gv, v), (gh, h)):
        size = float(np.linalg.norm(g) * np.linalg.norm(a))
        assert size > 1e-2 and abs(np.vdot(g, a)) < 1e-12 * size


def test_constant_instrument() -> None:
    """Nothing explains anything: coefficients 0, everyone gets the mean; finite gradients."""
    _, h, _ = data(11)
    v = np.full((60, 5), 0.1, np.float32)

    def value(v: Any, h: Any) -> Any:
        stage = c3r_jax.first_stage(v, h)
        return jnp.sum(stage.r2) + jnp.sum(stage.fitted**2), stage

    (_, stage), grads = jax.value_and_grad(value, argnums=(0, 1), has_aux=True)(jnp.asarray(v), jnp.asarray(h))
    np.testing.assert_array_equal(stage.coef, np.zeros((5, 3)))
    np.testing.assert_allclose(stage.fitted, np.tile(h.mean(axis=0), (60, 1)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(stage.r2, 0, atol=1e-6)
    assert all(np.isfinite(g).all() for g in grads)


@pytest.mark.parametrize("constant", [0.0, 0.1, -3.7, 1e4])
def test_constant_feature(constant: float) -> None:
    """tss = 0, also when the mean of the copies is rounded: R2 = 0, F = 0, no gradient; other features unharmed."""
    v, h, _ = data(12)
    h[:, 1] = constant
    gradient, stage = jax.grad(
        lambda a: (lambda s: (jnp.sum(s.r2), s))(c3r_jax.first_stage(jnp.asarray(v), a)), has_aux=True
    )(jnp.asarray(h))
    expected = oracles.first_stage(v, np.c_[h[:, 0], np.zeros(60), h[:, 2]])
    np.testing.assert_allclose(stage.r2, expected["r2"], rtol=1e-5)
    assert stage.r2[1] == 0 and stage.f_stat[1] == 0
    assert np.isfinite(gradient).all() and (np.asarray(gradient)[:, 1] == 0).all()
    assert (np.asarray(gradient)[:, [0, 2]] != 0).any()


def test_constant_instrument_column() -> None:
    """One dead column (singular covariance) is what the ridge is for."""
    v, h, _ = data(13)
    v[:, 2] = 0.3
    gradient, stage = jax.grad(
        lambda a: (lambda s: (jnp.sum(s.r2), s))(c3r_jax.first_stage(a, jnp.asarray(h))), has_aux=True
    )(jnp.asarray(v))
    expected = oracles.first_stage(v, h)
    np.testing.assert_allclose(stage.fitted, expected["fitted"], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(stage.coef[2], 0, atol=1e-4)
    assert np.isfinite(gradient).all()


def test_duplicated_columns() -> None:
    """Exactly collinear instruments: the ridge shares the coefficient equally."""
    v, h, _ = data(14, p=2)
    twice = np.c_[v, v]
    stage = c3r_jax.first_stage(jnp.asarray(twice), jnp.asarray(h), ridge=1e-2)
    expected = oracles.first_stage(twice, h, ridge=1e-2)
    np.testing.assert_allclose(stage.coef, expected["coef"], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(stage.coef[:2], stage.coef[2:], rtol=1e-3, atol=1e-4)


def test_noise_scores_about_p_over_n() -> None:
    """Why a batch must be several times wider than p: R2 of pure noise is about p/n = .1."""
    v, h = np.random.default_rng(15).normal(size=(2, 10, 100, 10))
    r2 = jax.vmap(lambda v, h: c3r_jax.first_stage(v, h, ridge=0.0).r2)(jnp.asarray(v), jnp.asarray(h))
    assert abs(np.mean(r2) - 10 / 99) < 0.015


def test_few_rows() -> None:
    v, h, _ = data(16, rows=30, p=6)

    def trace(rows: int, where: Any = None) -> None:  # the check needs no values, and tracing compiles nothing
        jax.eval_shape(lambda v, h: c3r_jax.first_stage(v, h, where=where), v[:rows], h[:rows])

    with pytest.raises(ValueError, match=r"7.*7|7.*6"):  # n = p + 1
        trace(7)
    with pytest.raises(ValueError, match=r"5"):  # the count of `where` is what matters
        trace(30, np.arange(30) < 5)
    with pytest.warns(UserWarning, match=r"23"):  # n < 4 p = 24
        trace(23)
    with pytest.warns(UserWarning, match=r"8"):
        trace(30, np.arange(30) < 8)
    trace(24)  # warnings are errors
    trace(30, np.arange(30) < 24)


def test_few_rows_known_only_while_tracing() -> None:
    v, h, _ = data(17, rows=30, p=6)
    run = jax.jit(lambda keep: c3r_jax.first_stage(jnp.asarray(v), jnp.asarray(h), where=keep))
    stage = run(jnp.arange(30) < 7)
    assert np.isnan(stage.f_stat).all() and np.isfinite(stage.r2).all() and np.isfinite(stage.fitted).all()
    assert np.isfinite(run(jnp.arange(30) < 8).f_stat).all()


def test_jit_vmap_and_pytree(precision: Precision) -> None:
    batch = [data(s) for s in range(3)]
    v, h, keep = (jnp.asarray(np.stack([b[i] for b in batch])) for i in range(3))
    run = lambda v, h, k: c3r_jax.first_stage(v, h, where=k)  # noqa: E731
    loop = [run(*args) for args in zip(v, h, keep, strict=True)]
    tol = 20 * precision.rtol
    chex.assert_trees_all_close(jax.jit(run)(v[0], h[0], keep[0]), loop[0], rtol=tol, atol=tol)
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *loop)
    many = jax.jit(jax.vmap(run))(v, h, keep)
    chex.assert_trees_all_close(many, stacked, rtol=tol, atol=tol)
    applied = jax.vmap(lambda s, v: s.apply(v))(many, v)
    np.testing.assert_allclose(applied, many.fitted, rtol=tol, atol=tol)


def test_bfloat16_moments_are_in_single_precision() -> None:
    v, h, _ = data(18)
    low_v, low_h = jnp.asarray(v, jnp.bfloat16), jnp.asarray(h, jnp.bfloat16)
    stage = c3r_jax.first_stage(low_v, low_h)
    expected = oracles.first_stage(np.asarray(low_v, np.float64), np.asarray(low_h, np.float64))
    for name in FIELDS[1:]:
        assert getattr(stage, name).dtype == jnp.float32
        np.testing.assert_allclose(getattr(stage, name), expected[name], rtol=2e-4, atol=1e-4)
    np.testing.assert_allclose(np.asarray(stage.fitted, np.float64), expected["fitted"], rtol=0.01, atol=0.02)
