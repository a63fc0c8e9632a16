"""First stages of three modalities, each on the rows that have it and another one: against least squares row by row."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import c3r_jax
from c3r_jax.core.available import available_moments, available_rows, imputed_moments
from c3r_jax.core.every_stage import columns, fit_modalities
from c3r_jax.core.moments import Moments, merge_moments
from tests.core.jitted import c3r_loss

from . import problems

RIDGE = 1e-2
WIDTHS = {"a": 2, "b": 3, "c": 1}


def draw(seed: int, rows: int = 60, shift: float = 0.0) -> tuple[dict[str, np.ndarray], np.ndarray]:
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=(rows, 2))
    h = {name: shared @ rng.normal(size=(2, d)) + rng.normal(size=(rows, d)) + shift for name, d in WIDTHS.items()}
    present = rng.random((rows, 3)) < 0.6
    for m, name in enumerate(WIDTHS):
        h[name] = np.where(present[:, m, None], h[name], 0)
    return h, present


def by_rows(h: dict[str, np.ndarray], present: np.ndarray, m: int) -> tuple[np.ndarray, ...]:
    """The ridge regression of METHOD on explicit rows, absent blocks filled with the mean: coefficients, means, R^2."""
    names = list(h)
    rows = present[:, m] & (present.sum(1) > 1)
    filled = []
    for k, name in enumerate(names):
        values, known = h[name][rows], present[rows, k]
        filled.append(np.where(known[:, None], values, values[known].mean(0)))
    regressor = filled.pop(m)
    v = np.concatenate(filled, 1)
    centred, target = v - v.mean(0), regressor - regressor.mean(0)
    gram = centred.T @ centred / len(v)
    gram += RIDGE * np.trace(centred.T @ centred / len(v)) / v.shape[1] * np.eye(v.shape[1])
    coef = np.linalg.solve(gram, centred.T @ target / len(v))
    r2 = 1 - np.square(target - centred @ coef).sum(0) / np.square(target).sum(0)
    return coef, v.mean(0), regressor.mean(0), r2, rows.sum()


def measured(h: dict[str, np.ndarray], present: np.ndarray) -> Moments:
    return available_moments(
        {m: jnp.asarray(v) for m, v in h.items()}, jnp.asarray(present), jnp.ones(len(present), bool)
    )


@pytest.mark.parametrize("parts", [1, 4])
@pytest.mark.parametrize("shift", [0.0, 30.0])
def test_stages_are_least_squares_on_their_own_rows(x64: None, parts: int, shift: float) -> None:
    """Whatever the batches that the moments were merged over, and however far from zero."""
    h, present = draw(0, shift=shift)
    h = {name: np.where(present[:, m, None], value, 0) for m, (name, value) in enumerate(h.items())}
    total = None
    for index in np.array_split(np.arange(len(present)), parts):
        batch = measured({name: value[index] for name, value in h.items()}, present[index])
        total = batch if total is None else merge_moments(total, batch)
    stages = fit_modalities(total, columns({m: jnp.asarray(v) for m, v in h.items()}), ridge=RIDGE)
    for m, name in enumerate(WIDTHS):
        coef, mean_v, mean_h, r2, count = by_rows(h, present, m)
        assert float(total.count[m]) == count > 20
        np.testing.assert_allclose(stages[name].coef, coef, rtol=1e-7, atol=1e-9)
        np.testing.assert_allclose(stages[name].mean_v, mean_v, rtol=1e-9)
        np.testing.assert_allclose(stages[name].mean_h, mean_h, rtol=1e-9)
        np.testing.assert_allclose(stages[name].r2, r2, rtol=1e-7)


def test_with_everything_present_it_is_the_same_fit() -> None:
    data = problems.problem(3)
    results = [problems.evaluate(data, stage_rows=kind) for kind in ("available", "complete")]
    np.testing.assert_allclose(results[0][0], results[1][0], rtol=1e-5)
    for name in problems.NAMES:
        assert float(results[0][1].rows[name]) == float(results[1][1].rows[name]) == len(data.labels)


def test_a_constant_column_explains_nothing_where_rows_are_missing() -> None:
    """Its variance in float32 is the rounding of a difference of large numbers, and must not be taken for a signal."""
    h, present = draw(1, rows=200)
    h["b"] = np.where(present[:, 1, None], 333.3, 0.0).repeat(3, 1).astype(np.float32)
    h = {name: value.astype(np.float32) for name, value in h.items()}
    of_first = Moments(*(value[0] for value in measured(h, present)))
    moments = imputed_moments(of_first, columns({m: jnp.asarray(v) for m, v in h.items()}))
    np.testing.assert_array_equal(np.asarray(moments.cov)[2:5], 0)
    assert (np.diagonal(moments.cov)[:2] > 0.1).all()


def test_columns_far_from_zero_stay_where_a_row_lacks_their_modality(x64: None) -> None:
    """One row of 200 lacks the first modality: what rounding there is stays far below the variance of the others."""
    h, _ = draw(5, rows=200, shift=1000.0)
    present = np.ones((200, 3), bool)
    present[0, 0] = False
    h["a"][0] = 0
    stages = {}
    for dtype in (np.float32, np.float64):
        moments = measured({name: value.astype(dtype) for name, value in h.items()}, present)
        stages[dtype] = fit_modalities(moments, columns({m: jnp.asarray(v) for m, v in h.items()}), ridge=RIDGE)
    for name in WIDTHS:
        np.testing.assert_allclose(stages[np.float32][name].r2, stages[np.float64][name].r2, atol=0.02)


def test_rows_without_every_modality_count() -> None:
    """Three complete rows of 128 fit nothing; the others are fitted where they have two modalities."""
    data = problems.problem(4, rows=128)
    present = np.ones((128, 3), bool)
    present[np.arange(3, 128), np.arange(125) % 3] = False
    labels, features = jnp.asarray(data.labels), {m: jnp.asarray(h) for m, h in data.features.items()}
    config = c3r_jax.C3RConfig()
    _, terms = c3r_loss(data.predict, problems.mean_fuse, features, labels, config=config, present=jnp.asarray(present))
    rows = available_rows(jnp.asarray(present), jnp.ones(128, bool)).sum(1)
    np.testing.assert_array_equal([terms.rows[name] for name in problems.NAMES], rows)
    assert 0 < float(terms.relevance) < 1
    assert all(np.isfinite(stage.r2).all() for stage in terms.first_stage.values())
    with pytest.raises(ValueError, match="the first stage has 3 rows with every modality"):
        c3r_jax.c3r_loss(
            data.predict,
            problems.mean_fuse,
            features,
            labels,
            config=c3r_jax.C3RConfig(stage_rows="complete"),
            present=jnp.asarray(present),
        )


def test_a_modality_that_is_too_rare_is_named() -> None:
    data = problems.problem(4, rows=128)
    present = np.ones((128, 3), bool)
    present[5:, 1] = False
    with pytest.raises(ValueError, match=f"the first stage has 5 rows with '{problems.NAMES[1]}' and another modality"):
        features = {m: jnp.asarray(h) for m, h in data.features.items()}
        c3r_jax.c3r_loss(
            data.predict, problems.mean_fuse, features, jnp.asarray(data.labels), present=jnp.asarray(present)
        )


def test_a_modality_without_rows_adds_nothing() -> None:
    """Under jit rows cannot be counted; the loss stays finite, and the mean of L_v is over the other two."""
    data = problems.problem(4, rows=128)
    present = jnp.ones((128, 3), bool).at[:, 1].set(False)
    features = {m: jnp.asarray(h) for m, h in data.features.items()}

    @jax.jit
    def run(features, present):
        return c3r_loss(data.predict, problems.mean_fuse, features, jnp.asarray(data.labels), present=present)

    loss, terms = run(features, present)
    assert np.isfinite(loss) and float(terms.rows[problems.NAMES[1]]) == 0
    stages = [terms.first_stage[problems.NAMES[m]] for m in (0, 2)]
    np.testing.assert_allclose(terms.relevance, np.mean([1 - np.asarray(s.r2) for s in stages]), rtol=1e-5)


@pytest.mark.parametrize("where", [None, "some"])
def test_a_split_batch_is_the_whole(where: str | None) -> None:
    h, present = draw(2, rows=64)
    rows = np.ones(64, bool) if where is None else np.arange(64) % 3 > 0
    h = {name: value.astype(np.float32) for name, value in h.items()}
    whole = available_moments({m: jnp.asarray(v) for m, v in h.items()}, jnp.asarray(present), jnp.asarray(rows))

    def of_part(h, present, rows):
        return available_moments(h, present, rows, "batch")

    parts = jax.tree.map(lambda x: jnp.asarray(x).reshape(4, 16, *x.shape[1:]), (h, present, rows))
    split = jax.vmap(of_part, axis_name="batch")(*parts)
    for ours, theirs in zip(split, whole, strict=True):
        np.testing.assert_allclose(ours[0], theirs, rtol=1e-4, atol=1e-5)
