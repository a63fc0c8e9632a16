"""Counterfactual representations: values."""

from __future__ import annotations

import functools
from typing import Any

import chex
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import c3r_jax
from c3r_jax.core.counterfactual import drop_modality

from . import oracles, problems
from .conftest import Precision

MODES = ("projection", "removal", "gradient", "minimal", "instrumented", "mean")


@functools.cache
def compiled(**options: Any) -> Any:
    def run(predict: Any, z: Any, labels: Any, z_c: Any, where: Any, key: Any) -> Any:
        return c3r_jax.counterfactual(predict, z, labels, z_c=z_c, where=where, key=key, **options)

    return jax.jit(run)


def swing(predict: Any, z: Any, y: Any, *, z_c: Any = None, where: Any = None, key: Any = None, **options: Any) -> Any:
    """c3r_jax.counterfactual under jit, with arrays (and the head) traced in the dtype of z."""
    cast = lambda a: jnp.asarray(a, z.dtype)  # noqa: E731
    causal, mask = None if z_c is None else cast(z_c), None if where is None else jnp.asarray(where)
    return compiled(**options)(jax.tree.map(cast, predict), jnp.asarray(z), jnp.asarray(y), causal, mask, key)


# logits = (z_1, -z_1), so the log-odds of label 0 are 2 z_1, its own loss has the gradient g = (-2, 0), u = (-1, 0).
HAND_HEAD = problems.Linear(np.array([[1.0, -1.0], [0.0, 0.0]]), np.zeros((1, 2)))
HAND_Z = np.array([[3.0, 1.0], [1.0, 5.0], [-1.0, 0.0]])  # mean (1, 2), mean |z|^2 = (10 + 26 + 1) / 3 = 37/3
HAND_Y = np.zeros(3, int)
HAND_C = np.array([[2.0, 0.0], [0.0, 4.0], [-2.0, -1.0]])  # mean (0, 1)
STEP = 0.5 * np.sqrt(37 / 3)


@pytest.mark.parametrize(
    ("mode", "causal", "expected"),
    [
        # <z - mean, u> = (-2, 0, 2): along u every row is at the mean, in the other coordinate where it was
        ("projection", False, [[1.0, 1.0], [1.0, 5.0], [1.0, 0.0]]),
        # at z_c the same: z_bar = z - z_c + a moves rows by (-2, 0, 2)
        ("projection", True, [[1.0, 1.0], [1.0, 5.0], [1.0, 0.0]]),
        # only row 0 favours its label; it falls back to the mean along u
        ("removal", False, [[1.0, 1.0], [1.0, 5.0], [-1.0, 0.0]]),
        # at z_c: <z_c - mean, u> = (-2, 0, 2): z_bar = z - z_c + a moves row 0 by -2
        ("removal", True, [[1.0, 1.0], [1.0, 5.0], [-1.0, 0.0]]),
        ("gradient", False, [[3 - STEP, 1.0], [1 - STEP, 5.0], [-1 - STEP, 0.0]]),
        # t |g| = 2 relu(2 z_1) / 4 = relu(z_1): down to even odds, never up
        ("minimal", False, [[0.0, 1.0], [0.0, 5.0], [-1.0, 0.0]]),
        # z_c has first entries (2, 0, -2): row 0 moves by -2, the others stay
        ("minimal", True, [[1.0, 1.0], [1.0, 5.0], [-1.0, 0.0]]),
        ("instrumented", True, [[1.0, 2.0], [1.0, 2.0], [1.0, 2.0]]),  # z - z_c + (0, 1)
        ("mean", False, [[1.0, 2.0]] * 3),
    ],
)
def test_by_hand(mode: str, causal: bool, expected: Any) -> None:
    z_c = HAND_C if causal else None
    bar = swing(HAND_HEAD, HAND_Z.astype(np.float32), HAND_Y, mode=mode, z_c=z_c)
    np.testing.assert_allclose(bar, expected, rtol=1e-6, atol=1e-6)
    oracle = oracles.counterfactual(HAND_HEAD, HAND_Z, HAND_Y, mode, z_c=z_c)
    np.testing.assert_allclose(oracle, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_is_the_oracle(precision: Precision, head: str, mode: str, masked: bool) -> None:
    """One step at z, or three steps at z_c with a mask."""
    z, z_c, y, keep = problems.rows(1)
    predict = problems.linear(2, 3, 4) if head == "linear" else problems.mlp(3, 3, 4)
    gradient = oracles.linear_gradient(predict.weight, predict.bias) if isinstance(predict, problems.Linear) else None
    options = {"step_size": 0.7, "num_steps": 3 if masked else 1, "where": keep if masked else None}
    causal = z_c if masked or mode == "instrumented" else None
    expected = oracles.counterfactual(predict, z, y, mode, gradient=gradient, z_c=causal, **options)
    bar = swing(predict, z.astype(precision.dtype), y, mode=mode, z_c=causal, **options)
    assert bar.shape == z.shape and bar.dtype == precision.dtype
    # `minimal` multiplies rounding errors by the curvature of the head, once a step
    precision.close(bar, expected, loosen=10.0)
    if masked:
        np.testing.assert_array_equal(np.asarray(bar)[~keep], z[~keep].astype(precision.dtype))


@pytest.mark.parametrize(("steps", "masked"), [(1, True), (3, False)])
@pytest.mark.parametrize("mode", ["projection", "removal", "minimal"])
def test_where_the_causal_part_is_given(x64: None, mode: str, steps: int, masked: bool) -> None:
    z, z_c, y, keep = problems.rows(1)
    predict = problems.mlp(3, 3, 4)
    for causal in (z_c, z, None):
        options = {"num_steps": steps, "where": keep if masked else None, "z_c": causal}
        bar = swing(predict, z, y, mode=mode, **options)
        np.testing.assert_allclose(bar, oracles.counterfactual(predict, z, y, mode, **options), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("steps", [1, 4])
def test_ball(precision: Precision, steps: int) -> None:
    """Two classes and a linear head: one direction, so the path leaves the ball once and stays on its surface."""
    z, _, y, keep = problems.rows(4, classes=2)
    predict = problems.linear(5, 3, 2)
    kwargs = {"mode": "gradient", "step_size": 0.8, "num_steps": steps, "where": keep}
    for ball in (0.3, 5.0):
        bar = swing(predict, z.astype(precision.dtype), y, ball=ball, **kwargs)
        precision.close(bar, oracles.counterfactual(predict, z, y, ball=ball, **kwargs), loosen=3.0)
        moved = np.linalg.norm(np.asarray(bar, np.float64) - z, axis=1)[keep]
        np.testing.assert_allclose(moved, min(0.8, ball) * oracles.rms(z, keep), rtol=1e-5)


def test_minimal_reaches_chance(x64: None) -> None:
    """Exact for two classes and a linear head. With more, log-odds are concave: a step never falls short."""
    z, _, y, _ = problems.rows(6, classes=2)
    predict = problems.linear(7, 3, 2)
    odds = oracles.log_odds(predict(np.asarray(swing(predict, z, y, mode="minimal"))), y)
    np.testing.assert_allclose(odds, np.minimum(0, oracles.log_odds(predict(z), y)), atol=1e-12)
    z, _, y, _ = problems.rows(8)
    predict = problems.linear(9, 3, 4)
    bar = np.asarray(swing(predict, z, y, mode="minimal"))
    before, after = (oracles.log_odds(predict(a), y) for a in (z, bar))
    favoured = before > -np.log(3)
    assert 0 < favoured.sum() < len(y)
    assert (after[favoured] <= -np.log(3) + 1e-12).all()
    np.testing.assert_allclose(bar[~favoured], z[~favoured], rtol=1e-12)


@hypothesis.settings(max_examples=12, deadline=None, derandomize=True)
@hypothesis.given(st.integers(0, 10_000), st.sampled_from([2, 4]))
def test_removal_only_ever_hurts_the_label(seed: int, classes: int) -> None:
    """Along u nothing is left above the mean; a row that was not above it stays; p_y does not rise (linear head)."""
    z, _, y, _ = problems.rows(seed, classes=classes)
    predict = problems.linear(seed, 3, classes)
    bar = np.asarray(swing(predict, z.astype(np.float32), y, mode="removal"))
    u = oracles.unit(oracles.linear_gradient(predict.weight, predict.bias)(z, y))
    along = np.sum((z - z.mean(axis=0)) * u, axis=1)
    np.testing.assert_allclose(np.sum((bar - z.mean(axis=0)) * u, axis=1), np.maximum(0, along), atol=1e-4)
    np.testing.assert_allclose(bar[along >= 0], z[along >= 0], atol=1e-6)
    rise = oracles.log_odds(predict(bar), y) - oracles.log_odds(predict(z), y)
    assert (rise <= 1e-4).all()


@hypothesis.settings(max_examples=12, deadline=None, derandomize=True)
@hypothesis.given(st.integers(0, 10_000), st.sampled_from([2, 4]))
def test_projection_leaves_every_row_at_the_mean_along_its_direction(seed: int, classes: int) -> None:
    """Whatever its label; nothing moves across it; with two classes a second step changes nothing (linear head)."""
    z, z_c, y, _ = problems.rows(seed, classes=classes)
    predict = problems.linear(seed, 3, classes)
    z, z_c = z.astype(np.float32), z_c.astype(np.float32)
    bar = np.asarray(swing(predict, z, y, mode="projection", z_c=z_c))
    u = oracles.unit(oracles.linear_gradient(predict.weight, predict.bias)(z_c, y))
    moved = bar - z
    np.testing.assert_allclose(np.sum(moved * u, axis=1), np.sum((z_c.mean(axis=0) - z_c) * u, axis=1), atol=1e-4)
    np.testing.assert_allclose(moved - np.sum(moved * u, axis=1, keepdims=True) * u, 0, atol=1e-4)
    if classes == 2:
        np.testing.assert_allclose(swing(predict, z, y, mode="projection", z_c=z_c, num_steps=2), bar, atol=1e-4)


@pytest.mark.parametrize("mode", ["projection", "removal", "minimal"])
def test_step_size_is_not_used(mode: str) -> None:
    z, z_c, y, _ = problems.rows(10)
    z32 = z.astype(np.float32)
    bars = [swing(problems.mlp(1, 3, 4), z32, y, mode=mode, z_c=z_c, step_size=s) for s in (0.1, 2.0)]
    np.testing.assert_array_equal(*bars)


def test_projection_is_the_default() -> None:
    z, z_c, y, _ = problems.rows(11)
    predict = problems.mlp(1, 3, 4)
    bar = swing(predict, z.astype(np.float32), y, z_c=z_c)
    np.testing.assert_allclose(bar, oracles.counterfactual(predict, z, y, "projection", z_c=z_c), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_permuting_rows_and_taking_subsets(x64: None, mode: str) -> None:
    z, z_c, y, keep = problems.rows(12)
    predict = problems.mlp(3, 3, 4)
    run = lambda i, **k: swing(predict, z[i], y[i], mode=mode, z_c=z_c[i], **k)  # noqa: E731
    everything = np.arange(len(y))
    keep = np.arange(len(y)) % 3 > 0
    order = np.random.default_rng(0).permutation(len(y))
    np.testing.assert_allclose(run(order), np.asarray(run(everything))[order], rtol=1e-12, atol=1e-12)
    masked = run(everything, where=keep)
    np.testing.assert_allclose(np.asarray(masked)[keep], run(everything[keep]), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("mode", ["gradient", "permute"])
def test_jit_is_eager_and_vmap_is_a_loop(mode: str) -> None:
    predict = problems.mlp(3, 3, 4)
    batch = [problems.rows(s) for s in range(2)]
    arrays = [jnp.stack([b[i] for b in batch]) for i in range(4)] + [jax.random.split(jax.random.key(0), 2)]

    def run(z: Any, z_c: Any, y: Any, keep: Any, key: Any) -> Any:
        return c3r_jax.counterfactual(predict, z, y, mode=mode, z_c=z_c, where=keep, num_steps=2, key=key)

    eager = run(*(a[0] for a in arrays))
    jitted = [jax.jit(run)(*(a[i] for a in arrays)) for i in range(2)]
    np.testing.assert_allclose(jitted[0], eager, rtol=1e-5, atol=1e-5)
    many = jax.jit(jax.vmap(run))(*arrays)
    np.testing.assert_allclose(many, jnp.stack(jitted), rtol=1e-5, atol=1e-5)


def test_num_steps_does_not_retrace() -> None:
    z, _, y, _ = problems.rows(13)
    run = jax.jit(
        chex.assert_max_traces(lambda z, y: c3r_jax.counterfactual(problems.mlp(1, 3, 4), z, y, num_steps=4), n=1)
    )
    for _ in range(2):
        run(jnp.asarray(z), jnp.asarray(y))


# ---------------------------------------------------------------------------------------------------------- permute


def permuted(z: Any, y: Any, key: Any, **kwargs: Any) -> Any:
    return swing(problems.mlp(3, 3, 4), z, y, mode="permute", key=key, **kwargs)


def test_permute_draws_uniformly_from_rows_with_another_label() -> None:
    y = np.array([0, 0, 1, 1, 2, 0, 1])
    keep = np.array([1, 1, 1, 1, 1, 1, 0], bool)
    z = np.arange(7.0)[:, None] * np.ones((1, 3))
    predict = problems.mlp(3, 3, 4)

    def draw(key: Any) -> Any:
        return c3r_jax.counterfactual(predict, jnp.asarray(z), jnp.asarray(y), mode="permute", key=key, where=keep)

    draws = jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(1), 3000))
    source = np.asarray(draws)[:, :, 0].astype(int)
    assert (source[:, 6] == 6).all()  # masked: returned as it is
    for i in range(6):
        others = [j for j in range(7) if keep[j] and y[j] != y[i]]
        share = np.bincount(source[:, i], minlength=7) / len(source)
        assert share[others].sum() == pytest.approx(1)
        np.testing.assert_allclose(share[others], 1 / len(others), atol=0.04)  # 4 standard errors
    joint = np.corrcoef(source[:, 0] == 2, source[:, 1] == 2)[0, 1]
    assert abs(joint) < 0.1  # rows draw independently


def test_permute_is_a_function_of_the_key() -> None:
    z, _, y, _ = problems.rows(14)
    a, b, c = (permuted(jnp.asarray(z), jnp.asarray(y), jax.random.key(k)) for k in (0, 0, 1))
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)
    np.testing.assert_array_equal(a, permuted(jnp.asarray(z), jnp.asarray(y), jax.random.PRNGKey(0)))  # old-style keys


def test_permute_falls_back_to_the_mean() -> None:
    z, _, _, keep = problems.rows(15)
    y = np.where(keep, 2, 1)  # the only other labels are masked
    bar = np.asarray(permuted(jnp.asarray(z), jnp.asarray(y), jax.random.key(0), where=jnp.asarray(keep)))
    np.testing.assert_allclose(bar[keep], np.tile(z[keep].mean(axis=0), (keep.sum(), 1)), rtol=1e-5)
    np.testing.assert_allclose(bar[~keep], z[~keep], rtol=1e-6)


# --------------------------------------------------------------------------------------------------- drop a modality


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", problems.NAMES)
def test_drop_modality(precision: Precision, name: str, masked: bool) -> None:
    data = problems.problem(3, masked=masked)
    features = {m: jnp.asarray(a, precision.dtype) for m, a in data.features.items()}
    dropped = drop_modality(features, name, **data.masks())
    expected = oracles.drop_modality(data.features, name, data.present, data.where)
    assert sorted(dropped) == sorted(features)
    keep = oracles.valid_rows(len(data.labels), data.where)
    for m in features:
        precision.close(np.asarray(dropped[m])[keep], expected[m][keep])
