"""Counterfactual representations: derivatives, which flow through the directions too, and dirty or saturated input."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import c3r_jax

from . import oracles, problems

MODES = ("projection", "removal", "gradient", "minimal", "instrumented", "mean")


@functools.cache
def compiled(mode: str, steps: int = 1) -> Any:
    """z_bar, and the gradient of sum(sin(z_bar)) over the valid rows in the head, z and z_c."""

    def value(head: Any, z: Any, z_c: Any, y: Any, where: Any) -> Any:
        key = jax.random.key(0)
        bar = c3r_jax.counterfactual(head, z, y, mode=mode, z_c=z_c, where=where, key=key, num_steps=steps)
        return jnp.sum(jnp.sin(jnp.where(where[:, None], bar, 0))), bar

    return jax.jit(jax.grad(value, argnums=(0, 1, 2), has_aux=True))


def run(mode: str, head: Any, z: Any, z_c: Any, y: Any, where: Any = None, steps: int = 1) -> tuple[Any, Any]:
    """z_bar and the gradients."""
    keep = oracles.valid_rows(len(y), where)
    gradient, bar = compiled(mode, steps)(*jax.tree.map(jnp.asarray, (head, z, z_c, y, keep)))
    return bar, gradient


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("mode", MODES)
def test_finite_differences(x64: None, mode: str, steps: int) -> None:
    """In z, z_c and the head at once. `gradient` holds rms(z) fixed, as specified."""
    z, z_c, y, keep = problems.rows(21)
    head = problems.mlp(22, 3, 4)
    rng = np.random.default_rng(23)
    weight, dz, dc = rng.normal(size=(3, *z.shape))
    d1, d2 = rng.normal(size=head.w1.shape), rng.normal(size=head.w2.shape)
    frozen = {"rms": oracles.rms(z, keep)}

    def moved(t: Any) -> tuple[Any, Any, Any]:
        return z + t * dz, z_c + t * dc, problems.MLP(head.w1 + t * d1, head.b1, head.w2 + t * d2)

    def oracle(t: float) -> float:
        a, c, h = moved(t)
        bar = oracles.counterfactual(h, a, y, mode, z_c=c, where=keep, num_steps=steps, frozen=frozen)
        return float(np.vdot(weight[keep], bar[keep]))

    def value(a: Any, c: Any, h: Any) -> Any:
        bar = c3r_jax.counterfactual(h, a, jnp.asarray(y), mode=mode, z_c=c, where=jnp.asarray(keep), num_steps=steps)
        return jnp.vdot(weight * keep[:, None], bar)

    a, c, h = jax.tree.map(jnp.asarray, moved(0.0))
    gradient = jax.jit(jax.grad(value, argnums=(0, 1, 2)))
    ga, gc, gh = gradient(a, c, h)
    slope = np.vdot(ga, dz) + np.vdot(gc, dc) + np.vdot(gh.w1, d1) + np.vdot(gh.w2, d2)
    np.testing.assert_allclose(slope, oracles.directional(oracle), rtol=1e-6, atol=1e-8)
    assert (np.asarray(ga)[~keep] == 0).all() and (np.asarray(gc)[~keep] == 0).all()


def test_rms_is_under_a_stop_gradient(x64: None) -> None:
    """Linear head, two classes: u is constant, so d z_bar / d z is the identity although rms(z) depends on z."""
    z, _, y, _ = problems.rows(24, classes=2)
    head = problems.linear(25, 3, 2)
    weight = np.random.default_rng(0).normal(size=z.shape)
    value = lambda a: jnp.vdot(weight, c3r_jax.counterfactual(head, a, jnp.asarray(y), mode="gradient"))  # noqa: E731
    gradient = jax.jit(jax.grad(value))(jnp.asarray(z))
    np.testing.assert_allclose(gradient, weight, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("mode", [*MODES, "permute"])
def test_values_of_masked_rows_have_no_effect(mode: str, bad: float) -> None:
    """Neither values nor gradients (of z, z_c or the head) of the valid rows notice: not the labels either."""
    z, z_c, y, keep = problems.rows(26)
    head = problems.mlp(27, 3, 4)
    dirty, dirty_c = (np.where(keep[:, None], a, bad) for a in (z, z_c))
    clean_bar, clean = run(mode, head, z, z_c, y, keep)
    bar, grads = run(mode, head, dirty, dirty_c, np.where(keep, y, -1), keep)
    np.testing.assert_allclose(np.asarray(bar)[keep], np.asarray(clean_bar)[keep], rtol=1e-6)
    np.testing.assert_array_equal(np.asarray(bar)[~keep], dirty[~keep].astype(np.float32))
    for a, b in zip(jax.tree.leaves(grads), jax.tree.leaves(clean), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("scale", [1e2, 1e4, 1e6])
@pytest.mark.parametrize("mode", ["projection", "removal", "gradient"])
def test_direction_survives_saturation(mode: str, scale: float) -> None:
    """Log-odds of 1e6: the gradient of the cross-entropy would be exactly zero in single precision."""
    z, z_c, y, _ = problems.rows(28, classes=2)
    head = problems.linear(29, 3, 2)
    sharp = problems.Linear(scale * head.weight, scale * head.bias)
    bar, gradient = run(mode, sharp, z, z_c, y)
    analytic = oracles.linear_gradient(head.weight, head.bias)
    np.testing.assert_allclose(
        bar, oracles.counterfactual(head, z, y, mode, z_c=z_c, gradient=analytic), rtol=1e-4, atol=1e-5
    )
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradient))


@pytest.mark.parametrize(
    ("mode", "steps"), [*((m, 1) for m in MODES), ("projection", 3), ("removal", 3), ("gradient", 3), ("minimal", 3)]
)
def test_a_head_without_slope(mode: str, steps: int) -> None:
    """|g| = 0: no direction, no step, and finite derivatives also in the weights that are zero."""
    z, z_c, y, _ = problems.rows(30)
    head = problems.mlp(27, 3, 4)
    bar, gradient = run(mode, problems.MLP(head.w1, head.b1, 0 * head.w2), z, z_c, y, steps=steps)
    if mode in ("projection", "removal", "gradient", "minimal"):
        np.testing.assert_allclose(bar, z, rtol=1e-6, atol=1e-6)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradient))


@pytest.mark.parametrize("mode", [*MODES, "permute"])
@pytest.mark.parametrize("case", ["one row", "one label", "all zero", "constant"])
def test_degenerate_batches_are_finite(mode: str, case: str) -> None:
    z, z_c, y, _ = problems.rows(31)
    keep = None
    if case == "one row":
        keep = np.arange(len(y)) == 5
    elif case == "one label":
        y = np.full_like(y, 1)
    else:
        z = z_c = np.full_like(z, 0.0 if case == "all zero" else 0.1)
    head = problems.mlp(32, 3, 4)
    bar, gradient = run(mode, head, z, z_c, y, keep)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves((bar, gradient)))
    if mode != "permute":
        expected = oracles.counterfactual(head, z, y, mode, z_c=z_c, where=keep)
        np.testing.assert_allclose(bar, expected, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("mode", ["projection", "removal", "gradient", "minimal", "permute"])
def test_one_row(mode: str) -> None:
    z, z_c, y, _ = problems.rows(31, rows=1)
    bar, gradient = run(mode, problems.mlp(32, 3, 4), z, z_c, y)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves((bar, gradient)))


@pytest.mark.parametrize("mode", [*MODES, "permute"])
def test_no_valid_row(mode: str) -> None:
    z, z_c, y, _ = problems.rows(33)
    bar, gradient = run(mode, problems.mlp(34, 3, 4), z, z_c, y, np.zeros(len(y), bool))
    np.testing.assert_array_equal(bar, z.astype(np.float32))
    assert all((np.asarray(g) == 0).all() for g in jax.tree.leaves(gradient))


@pytest.mark.parametrize("mode", [*MODES, "permute"])
def test_bfloat16(mode: str) -> None:
    z, z_c, y, _ = problems.rows(35)
    low, low_c = jnp.asarray(z, jnp.bfloat16), jnp.asarray(z_c, jnp.bfloat16)
    head = problems.mlp(36, 3, 4)
    bar, _ = run(mode, head, low, low_c, y)
    assert bar.shape == z.shape
    exact, exact_c = np.asarray(low, np.float64), np.asarray(low_c, np.float64)
    if mode == "permute":
        assert all(
            (exact[y != k] == np.asarray(row, np.float64)).all(axis=1).any() for k, row in zip(y, bar, strict=True)
        )
    else:
        expected = oracles.counterfactual(head, exact, y, mode, z_c=exact_c)
        np.testing.assert_allclose(np.asarray(bar, np.float64), expected, rtol=0.02, atol=0.02)
