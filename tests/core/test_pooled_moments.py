"""Moments over several batches: merging is exact, and the objective uses the pooled ones."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import c3r_jax
from c3r_jax.core.instruments import instrument_moments
from c3r_jax.core.moments import Moments, batch_moments, merge_moments

from . import problems
from .conftest import Precision
from .oracle_objective import c3r


def empty(width: int) -> Moments:
    return batch_moments(jnp.zeros((0, width)))


@pytest.mark.parametrize("cuts", [(0,), (1,), (40,), (3, 3, 17), (10, 20, 30)])
def test_merging_is_the_moments_of_all_rows(precision: Precision, cuts: tuple[int, ...]) -> None:
    """Far from zero on purpose: sums of squares would cancel."""
    x = (np.random.default_rng(0).normal(size=(40, 3)) * [1.0, 0.1, 5.0] + [3.0, -2.0, 50.0]).astype(precision.dtype)
    total = empty(3)
    for part in np.split(x, cuts):
        total = merge_moments(total, batch_moments(jnp.asarray(part)))
    wide = x.astype(np.float64)
    assert float(total.count) == 40
    precision.close(total.mean, wide.mean(0), loosen=5.0)
    precision.close(total.cov, np.cov(wide.T, bias=True), loosen=50.0)


def test_forgetting_is_a_smaller_count() -> None:
    a, b = np.random.default_rng(1).normal(size=(2, 20, 2)).astype(np.float32)
    old, new = batch_moments(jnp.asarray(a)), batch_moments(jnp.asarray(b))
    merged = merge_moments(old._replace(count=old.count * 0.25), new)
    weights = np.repeat([0.25, 1.0], 20)
    rows = np.concatenate([a, b]).astype(np.float64)
    np.testing.assert_allclose(merged.mean, np.average(rows, axis=0, weights=weights), rtol=1e-5)
    np.testing.assert_allclose(merged.cov, np.cov(rows.T, bias=True, aweights=weights), rtol=1e-5)


def joined(data: problems.Problem) -> np.ndarray:
    return np.concatenate([data.features[m] for m in problems.NAMES], axis=1)


def test_the_objective_fits_its_first_stage_on_pooled_rows(x64: None) -> None:
    earlier, data = problems.problem(5), problems.problem(6)
    moments = batch_moments(jnp.asarray(joined(earlier)))
    call = functools.partial(c3r_jax.c3r_loss, config=c3r_jax.C3RConfig.hinge(), moments=moments)
    loss, terms = call(data.predict, problems.mean_fuse, data.features, jnp.asarray(data.labels))
    rows = np.concatenate([joined(earlier), joined(data)])
    parts = {}
    for c, m in enumerate(problems.NAMES):
        own = np.arange(3 * c, 3 * c + 3)
        others = np.setdiff1d(np.arange(rows.shape[1]), own)
        v, h = rows[:, others], rows[:, own]
        centred = v - v.mean(0)
        gram = centred.T @ centred / len(rows)
        gram += 1e-2 * np.trace(gram) / len(others) * np.eye(len(others))
        coef = np.linalg.solve(gram, centred.T @ (h - h.mean(0)) / len(rows))
        parts[m] = h.mean(0) + (joined(data)[:, others] - v.mean(0)) @ coef
    z_c = np.mean([parts[m] for m in problems.NAMES], axis=0)
    np.testing.assert_allclose(terms.z_c, z_c, rtol=1e-8)
    alone = c3r(data.predict, problems.mean_fuse, data.features, data.labels)
    assert np.abs(np.asarray(terms.z_c) - alone["z_c"]).max() > 1e-2
    np.testing.assert_allclose(terms.moments.mean, joined(data).mean(0), rtol=1e-10)  # of this batch alone
    assert np.isfinite(loss)


def test_no_gradient_reaches_earlier_moments(x64: None) -> None:
    earlier, data = problems.problem(5), problems.problem(6)

    def loss(moments: Moments) -> jax.Array:
        features = {m: jnp.asarray(h) for m, h in data.features.items()}
        call = functools.partial(c3r_jax.c3r_loss, config=c3r_jax.C3RConfig.hinge(), moments=moments)
        return call(data.predict, problems.mean_fuse, features, jnp.asarray(data.labels))[0]

    gradient = jax.grad(loss)(batch_moments(jnp.asarray(joined(earlier))))
    assert all((np.asarray(leaf) == 0).all() for leaf in gradient)


def test_through_fuse_with_missing_modalities(x64: None) -> None:
    data = problems.problem(7, masked=True)
    config = {"counterfactual": "instrumented", "through_fuse": True}
    loss, terms, _ = problems.evaluate(data, fuse=problems.bent_fuse, **config)
    expected = c3r(data.predict, problems.bent_fuse, data.features, data.labels, **data.masks(), **config)
    np.testing.assert_allclose(loss, expected["loss"], rtol=1e-8)
    keep = data.where
    np.testing.assert_allclose(np.asarray(terms.z_bar)[keep], expected["z_bar"][keep], rtol=1e-8)
    everything = dataclasses.replace(data, present=None)
    assert abs(float(problems.evaluate(everything, fuse=problems.bent_fuse, **config)[0]) - float(loss)) > 1e-3


@pytest.mark.parametrize("masked", [False, True])
def test_shuffled_moments_pair_other_examples(masked: bool) -> None:
    """Three modalities of 64 rows: the second is 21 rows on, the third 42."""
    data = problems.problem(8, masked=masked)
    rows = len(data.labels)
    present = np.ones((rows, 3), bool) if data.present is None else data.present
    where = np.ones(rows, bool) if data.where is None else data.where
    usable = where & present.all(1)
    moved = [(np.arange(rows) - 21 * c) % rows for c in range(3)]
    keep = np.all([usable[index] for index in moved], axis=0)
    joint = np.concatenate([data.features[m][index] for m, index in zip(problems.NAMES, moved, strict=True)], axis=1)
    features = {m: jnp.asarray(data.features[m]) for m in problems.NAMES}
    config = c3r_jax.C3RConfig.hinge(shuffled=True)
    z = jnp.zeros((rows, 3))
    moments = instrument_moments(features, z, jnp.asarray(present), config=config, where=jnp.asarray(where))
    assert float(moments.count) == keep.sum() > 10
    np.testing.assert_allclose(moments.cov, np.cov(joint[keep].T, bias=True), rtol=1e-4, atol=1e-4)


def test_a_shuffled_instrument_explains_nothing() -> None:
    data = problems.problem(9, rows=512)
    strength = {}
    for shuffled in (False, True):
        _, terms, _ = problems.evaluate(data, shuffled=shuffled)
        strength[shuffled] = np.mean([stage.r2.mean() for stage in terms.first_stage.values()])
    assert strength[True] < 0.05 < 0.3 < strength[False]


def test_shuffling_needs_two_stages() -> None:
    with pytest.raises(ValueError, match="shuffled is True, which needs instrument='two_stage', but it is 'none'"):
        c3r_jax.C3RConfig.hinge(shuffled=True, instrument="none")
