"""The first stage: ridge regression on the other modalities."""

from __future__ import annotations

import functools
import operator
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import c3r_jax
from c3r_jax.core.every_stage import columns, fit_modalities
from c3r_jax.core.first_stage import first_stage
from c3r_jax.core.linear_solve import _scales
from c3r_jax.core.moments import batch_moments
from c3r_jax.core.shared_inverses import are_shared
from c3r_jax.parallel.program import inspect

from . import oracles
from .conftest import Precision

FIELDS = ("fitted", "coef", "mean_v", "mean_h", "r2", "f_stat")


def data(seed: int, rows: int = 60, p: int = 5, d: int = 3) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(seed)
    v = rng.normal(size=(rows, p)) @ rng.normal(size=(p, p)) + 1.5
    h = 0.5 * v @ rng.normal(size=(p, d)) + 2 * rng.normal(size=(rows, d)) - 0.7
    return v, h, rng.random(rows) < 0.7


@functools.cache
def compiled(ridge: float) -> Any:
    return jax.jit(_stage(ridge))


def _stage(ridge: float) -> Any:
    return lambda v, h, where: c3r_jax.first_stage(v, h, ridge=ridge, where=where)


@functools.cache
def compiled_gradient(ridge: float) -> Any:
    """Gradient in v and h of <weights, (sin(fitted), coef, r2)> over the rows of `where`, and the stage."""

    def value(v: Any, h: Any, where: Any, weights: Any) -> Any:
        stage = c3r_jax.first_stage(v, h, ridge=ridge, where=where)
        parts = jnp.sin(jnp.where(where[:, None], stage.fitted, 0)), stage.coef, stage.r2
        return sum(jnp.vdot(w, part) for w, part in zip(weights, parts, strict=True)), stage

    return jax.jit(jax.grad(value, argnums=(0, 1), has_aux=True))


def run(v: Any, h: Any, *, ridge: float = 1e-3, where: Any = None, dtype: Any = None) -> Any:
    return compiled(ridge)(jnp.asarray(v, dtype), jnp.asarray(h, dtype), jnp.asarray(oracles.valid_rows(len(v), where)))


def gradient(v: Any, h: Any, *, ridge: float = 1e-3, where: Any = None, weights: Any = None) -> Any:
    weights = (np.ones(h.shape), np.ones((v.shape[1], h.shape[1])), np.ones(h.shape[1])) if weights is None else weights
    keep = jnp.asarray(oracles.valid_rows(len(v), where))
    return compiled_gradient(ridge)(jnp.asarray(v), jnp.asarray(h), keep, jax.tree.map(jnp.asarray, weights))


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
    stage = run(v, h, ridge=ridge, dtype=precision.dtype)
    fitted = coef * np.array([[-1.0], [-1], [1], [1]]) - 3
    expected = {"fitted": fitted, "coef": [[coef]], "mean_v": [5], "mean_h": [-3], "r2": [r2], "f_stat": [f_stat]}
    check(stage, expected, precision)
    precision.close(stage.apply(jnp.array([[9.0], [5.0]], precision.dtype)), [[4 * coef - 3], [-3]])


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("ridge", [0.0, 1e-3, 0.3])
def test_is_the_oracle(precision: Precision, ridge: float, masked: bool) -> None:
    v, h, keep = data(1)
    where = keep if masked else None
    stage = run(v, h, ridge=ridge, where=where, dtype=precision.dtype)
    expected = oracles.first_stage(v, h, ridge=ridge, where=where)
    check(stage, expected, precision)  # `fitted` has every row, masked or not
    new = np.random.default_rng(0).normal(size=(7, 5))
    precision.close(
        stage.apply(jnp.asarray(new, precision.dtype)),
        expected["mean_h"] + (new - expected["mean_v"]) @ expected["coef"],
        loosen=3.0,
    )


def test_without_jit_and_without_options() -> None:
    v, h, _ = data(2)
    stage = c3r_jax.first_stage(jnp.asarray(v), jnp.asarray(h))
    check(stage, oracles.first_stage(v, h, ridge=1e-3), Precision(np.dtype("float32"), 1e-5))
    np.testing.assert_allclose(stage.apply(jnp.asarray(v)), stage.fitted, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(stage.apply(jnp.asarray(v[:1])), stage.fitted[:1], rtol=1e-5, atol=1e-5)


def test_where_is_the_subset_and_order_does_not_matter(x64: None) -> None:
    v, h, keep = data(4)
    masked = run(v, h, where=keep)
    subset = run(v[keep], h[keep])
    order = np.random.default_rng(0).permutation(len(v))
    shuffled = run(v[order], h[order], where=keep[order])
    for name in FIELDS[1:]:
        for other in (subset, shuffled):
            np.testing.assert_allclose(getattr(other, name), getattr(masked, name), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(subset.fitted, np.asarray(masked.fitted)[keep], rtol=1e-9, atol=1e-9)
    columns = np.array([3, 0, 4, 1, 2])
    np.testing.assert_allclose(run(v[:, columns], h, where=keep).fitted, masked.fitted, rtol=1e-9)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_of_masked_rows_have_no_effect(bad: float) -> None:
    v, h, keep = data(5)
    wanted, clean = gradient(v, h, where=keep)
    grads, dirty = gradient(*(np.where(keep[:, None], a, bad) for a in (v, h)), where=keep)
    for name in FIELDS[1:]:
        np.testing.assert_array_equal(getattr(dirty, name), getattr(clean, name))
    np.testing.assert_array_equal(np.asarray(dirty.fitted)[keep], np.asarray(clean.fitted)[keep])
    for a, b in zip(grads, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
        assert (np.asarray(a)[~keep] == 0).all()


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1e3, 1e6])
def test_scale_and_shift_free(scale: float) -> None:
    """The ridge is relative, so coefficients, R2 and F do not know the unit of v or of h."""
    v, h, _ = data(6)
    base = run(v, h, ridge=0.3)
    both = run(scale * v, scale * h, ridge=0.3)
    for name in ("coef", "r2", "f_stat"):
        np.testing.assert_allclose(getattr(both, name), getattr(base, name), rtol=1e-4, atol=1e-5)
    one = run(scale * v, h + 3, ridge=0.3)
    np.testing.assert_allclose(one.r2, base.r2, rtol=1e-4)
    np.testing.assert_allclose(scale * one.coef, base.coef, rtol=1e-4, atol=1e-5)


def test_large_mean_costs_no_precision() -> None:
    """Centred moments: E[v v'] - mean mean' would lose everything at a mean of 3,000 standard deviations."""
    v, h, _ = data(7)
    v32, h32 = (np.asarray(a + 3000, np.float32) for a in (v, h))
    stage = run(v32, h32, ridge=0.3)
    expected = oracles.first_stage(v32.astype(np.float64), h32.astype(np.float64), ridge=0.3)
    np.testing.assert_allclose(stage.r2, expected["r2"], rtol=1e-3)
    np.testing.assert_allclose(stage.coef, expected["coef"], rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("ridge", [0.0, 0.3])
@pytest.mark.parametrize("output", ["fitted", "coef", "r2"])
def test_finite_differences(x64: None, output: str, ridge: float) -> None:
    """Through the means, the covariances, the trace in the ridge, the solve and the variance under R2."""
    v, h, keep = data(8)
    rng = np.random.default_rng(9)
    dv, dh = rng.normal(size=v.shape), rng.normal(size=h.shape)
    weights = {"fitted": rng.normal(size=h.shape), "coef": rng.normal(size=(5, 3)), "r2": rng.normal(size=3)}
    weights = {k: w if k == output else 0 * w for k, w in weights.items()}

    def oracle(t: float) -> float:
        stage = oracles.first_stage(v + t * dv, h + t * dh, ridge=ridge, where=keep)
        stage["fitted"] = np.sin(stage["fitted"]) * keep[:, None]
        return float(np.vdot(weights[output], stage[output]))

    (gv, gh), _ = gradient(v, h, ridge=ridge, where=keep, weights=tuple(weights.values()))
    np.testing.assert_allclose(np.vdot(gv, dv) + np.vdot(gh, dh), oracles.directional(oracle), rtol=1e-7, atol=1e-9)


def test_second_derivative(x64: None) -> None:
    v, h, _ = data(10)
    dv = np.random.default_rng(0).normal(size=v.shape)
    slope = jax.grad(lambda s: jnp.sum(c3r_jax.first_stage(v + s * dv, h, ridge=0.3).r2))
    first, second = (jax.jit(f) for f in (slope, jax.grad(slope)))
    expected = oracles.directional(lambda t: float(first(t)))
    np.testing.assert_allclose(second(0.0), expected, rtol=1e-6)


def test_r2_cannot_be_raised_by_shrinking(x64: None) -> None:
    """Scale-free: no gradient along v itself nor along h itself (Euler), unlike a plain |h - h_hat|^2."""
    v, h, _ = data(19)
    grads, _ = gradient(v, h, ridge=0.3, weights=(np.zeros((60, 3)), np.zeros((5, 3)), np.ones(3)))
    for g, a in zip(grads, (v, h), strict=True):
        size = float(np.linalg.norm(g) * np.linalg.norm(a))
        assert size > 1e-2 and abs(np.vdot(g, a)) < 1e-12 * size


@pytest.mark.parametrize("constant", [0.0, 0.1, -3.7])
def test_constant_instrument(constant: float) -> None:
    """Nothing explains anything: coefficients 0, everyone gets the mean; finite gradients."""
    _, h, _ = data(11)
    v = np.full((60, 5), constant)
    grads, stage = gradient(v, h)
    np.testing.assert_array_equal(stage.coef, np.zeros((5, 3)))
    np.testing.assert_allclose(stage.fitted, np.tile(h.mean(axis=0), (60, 1)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(stage.apply(jnp.asarray(v + 1)), stage.fitted, rtol=1e-6)
    np.testing.assert_array_equal(stage.r2, np.zeros(3))
    assert all(np.isfinite(g).all() for g in grads)


@pytest.mark.parametrize("constant", [0.0, 0.1, -3.7, 1e4])
def test_constant_feature(constant: float) -> None:
    """tss = 0, also when the mean of the copies is rounded: R2 = 0, F = 0, no gradient; other features unharmed."""
    v, h, _ = data(12)
    h[:, 1] = constant
    (_, grad), stage = gradient(v, h, weights=(np.zeros((60, 3)), np.zeros((5, 3)), np.ones(3)))
    np.testing.assert_allclose(stage.r2, oracles.first_stage(v, h)["r2"], rtol=1e-5)
    assert stage.r2[1] == 0 and stage.f_stat[1] == 0
    assert np.isfinite(grad).all() and (np.asarray(grad)[:, 1] == 0).all()
    assert (np.asarray(grad)[:, [0, 2]] != 0).any()


def test_constant_instrument_column() -> None:
    """One dead column (singular covariance) is what the ridge is for."""
    v, h, _ = data(13)
    v[:, 2] = 0.3
    grads, stage = gradient(v, h)
    np.testing.assert_allclose(stage.fitted, oracles.first_stage(v, h)["fitted"], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(stage.coef[2], 0, atol=1e-4)
    assert all(np.isfinite(g).all() for g in grads)


def test_duplicated_columns() -> None:
    """Exactly collinear instruments: the ridge shares the coefficient equally."""
    v, h, _ = data(14)
    v[:, 3:] = v[:, :2]
    stage = run(v, h, ridge=0.3)
    np.testing.assert_allclose(stage.coef, oracles.first_stage(v, h, ridge=0.3)["coef"], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(stage.coef[:2], stage.coef[3:], rtol=1e-3, atol=1e-4)


def test_noise_scores_about_p_over_n() -> None:
    """Why a batch must be several times wider than p: R2 of pure noise is about p/n = 1/12."""
    rng = np.random.default_rng(15)
    r2 = [run(rng.normal(size=(60, 5)), rng.normal(size=(60, 3)), ridge=0.0).r2 for _ in range(60)]
    assert abs(np.mean(r2) - 5 / 59) < 0.015


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
    v, h, _ = data(17)
    stage = run(v, h, where=np.arange(60) < 6)  # n = p + 1
    assert np.isnan(stage.f_stat).all() and np.isfinite(stage.r2).all() and np.isfinite(stage.fitted).all()
    assert np.isfinite(run(v, h, where=np.arange(60) < 7).f_stat).all()


def test_vmap_and_pytree(precision: Precision) -> None:
    batch = [data(s) for s in range(3)]
    v, h, keep = (jnp.asarray(np.stack([b[i] for b in batch])) for i in range(3))
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *[run(*args[:2], where=args[2]) for args in batch])
    tol = 20 * precision.rtol
    many = jax.jit(jax.vmap(_stage(1e-3)))(v, h, keep)
    chex.assert_trees_all_close(many, stacked, rtol=tol, atol=tol)
    applied = jax.jit(jax.vmap(lambda s, v: s.apply(v)))(many, v)
    np.testing.assert_allclose(applied, many.fitted, rtol=tol, atol=tol)


def test_bfloat16_moments_are_in_single_precision() -> None:
    v, h, _ = data(18)
    low_v, low_h = jnp.asarray(v, jnp.bfloat16), jnp.asarray(h, jnp.bfloat16)
    stage = run(low_v, low_h)
    expected = oracles.first_stage(np.asarray(low_v, np.float64), np.asarray(low_h, np.float64))
    for name in FIELDS[1:]:
        assert getattr(stage, name).dtype == jnp.float32
        np.testing.assert_allclose(getattr(stage, name), expected[name], rtol=2e-4, atol=1e-4)
    np.testing.assert_allclose(np.asarray(stage.fitted, np.float64), expected["fitted"], rtol=0.01, atol=0.02)


def test_stages_of_equal_widths_are_those_that_each_modality_has_alone():
    rng = np.random.default_rng(0)
    h = {name: jnp.asarray(rng.normal(size=(60, 3)).astype(np.float32)) for name in "abc"}
    h["b"] = h["b"] + h["a"]
    together = fit_modalities(batch_moments(jnp.concatenate([*h.values()], 1)), columns(h), ridge=1e-2)
    for name, stage in together.items():
        others = jnp.concatenate([value for key, value in h.items() if key != name], 1)
        alone = first_stage(others, h[name], ridge=1e-2)
        for field in ("coef", "mean_v", "mean_h", "r2", "f_stat"):
            np.testing.assert_allclose(getattr(stage, field), getattr(alone, field), rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("modalities", [2, 3, 4])  # round groups of two, summed over all, round groups of four
def test_devices_share_the_inverses_of_wide_stages(modalities, monkeypatch):
    """Each device inverts one matrix; coefficients and gradients are those of one device that inverts all."""
    rng, columns_of_all = np.random.default_rng(0), 8 * modalities
    blocks = {name: slice(8 * m, 8 * m + 8) for m, name in enumerate("abcd"[:modalities])}
    x = rng.normal(size=(90, columns_of_all)) @ rng.normal(size=(columns_of_all, columns_of_all))
    x = jnp.asarray(x, jnp.float32).at[:, 3].set(2.0)  # a column that is constant

    def explained(x: Any, axis_name: str | None = None) -> Any:
        stages = fit_modalities(batch_moments(x), blocks, ridge=1e-2, axis_name=axis_name)
        return sum((stage.r2**2).sum() for stage in stages.values()), stages["b"].coef

    expected = jax.device_get(jax.jit(jax.value_and_grad(explained, has_aux=True))(x))
    everywhere, flops = jnp.broadcast_to(x, (8, *x.shape)), {}
    for width in (8, 1000):
        monkeypatch.setattr("c3r_jax.core.shared_inverses.WIDE", width)
        step = jax.pmap(lambda x: jax.value_and_grad(explained, has_aux=True)(x, "devices"), axis_name="devices")
        found = jax.device_get(step(everywhere))
        for index in range(8):
            of_device = jax.tree.map(operator.itemgetter(index), found)
            chex.assert_trees_all_close(of_device, expected, rtol=1e-4, atol=1e-5)
        flops[width] = inspect(step.lower(everywhere).compile()).flops
    p, largest = 8 * (modalities - 1), 1.01 / 1e-2  # relative to the ridge
    steps, of_one = len(_scales(p**1.5 * largest)), len(_scales(1.001 * p * largest, 2)) - 1  # its first has no product
    assert flops[1000] - flops[8] == (modalities * steps - of_one) * 4 * p**3  # two products a step


def test_inverses_are_shared_by_devices_only():
    """Not along an axis of vmap, nor where what devices exchange would count as different on each of them."""
    mesh, x, asked = jax.sharding.Mesh(np.array(jax.devices()), ("devices",)), jnp.zeros((8, 1)), []

    def ask(x: Any) -> Any:
        asked.append([are_shared(*case, "devices") for case in ((2, 512), (2, 511), (9, 512))])
        return x

    jax.eval_shape(jax.vmap(ask, axis_name="devices"), x)
    each = jax.sharding.PartitionSpec("devices")
    for check_vma in (True, False):
        jax.eval_shape(jax.shard_map(ask, mesh=mesh, in_specs=each, out_specs=each, check_vma=check_vma), x)
    jax.eval_shape(jax.pmap(ask, axis_name="devices"), x)
    assert asked == [[False] * 3, [False] * 3, [True, False, False], [True, False, False]]
