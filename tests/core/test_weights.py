"""Weights of rows: 2 is the row twice, 0 is where=False, in every term, moment, expert and gradient."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import c3r_jax
from c3r_jax.core.batch import Weighted
from c3r_jax.core.leave_one_out import leave_one_out
from c3r_jax.core.tasks.classification import Classification

from . import problems
from .oracle_objective import TERM, c3r

ROWS = 48
TIMES = np.random.default_rng(3).integers(0, 4, ROWS)  # how often each row is there
CONFIGS = {
    "experts": c3r_jax.C3RConfig.strong(expert=0.5, lambda_fe=0.3),
    "complete": c3r_jax.C3RConfig.hinge(counterfactual="gradient", lambda_fe=1.0, necessity="kl", gate=True),
    "attention": c3r_jax.C3RConfig.hinge(instrument="attention", counterfactual="instrumented"),
}


def data(masked: bool = True) -> problems.Problem:
    return dataclasses.replace(problems.problem(4, rows=ROWS, masked=masked), where=None)


@functools.cache
def program(name: str, weighted: bool) -> Any:
    def value(features: Any, head: Any, labels: Any, present: Any, weights: Any) -> Any:
        keywords = {"weights": weights} if weighted else {}
        return c3r_jax.c3r_loss(
            head, problems.mean_fuse, features, labels, config=CONFIGS[name], present=present, **keywords
        )

    return jax.jit(jax.value_and_grad(value, argnums=(0, 1), has_aux=True))


def run(name: str, problem: problems.Problem, weights: Any = None) -> Any:
    arrays = jax.tree.map(jnp.asarray, (problem.features, problem.predict, problem.labels, problem.present))
    given = None if weights is None else jnp.asarray(weights, jnp.float64)
    return program(name, weights is not None)(*arrays, given)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_weight_is_the_number_of_copies(x64: None, name: str) -> None:
    """One that is 0 leaves out a row of NaN with an impossible label."""
    problem, copies = data(), np.repeat(np.arange(ROWS), TIMES)
    absent = {m: np.where(TIMES[:, None] > 0, h, np.nan) for m, h in problem.features.items()}
    spoiled = dataclasses.replace(problem, features=absent, labels=np.where(TIMES > 0, problem.labels, 99))
    (loss, terms), (of_rows, of_head) = run(name, spoiled, TIMES)
    (expected, separate), (of_copies, of_same_head) = run(name, problem.rows(copies))
    np.testing.assert_allclose(loss, expected, rtol=1e-9)
    for field in (*TERM.values(), "label_probability", "explained", "cap", "risk", "invalid_labels", "rows", "moments"):
        found, wanted = (jax.tree.leaves(getattr(t, field)) for t in (terms, separate))
        for a, b in zip(found, wanted, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-10, err_msg=field)
    for a, b in zip(jax.tree.leaves(of_head), jax.tree.leaves(of_same_head), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-10)
    for m, gradient in of_rows.items():
        summed = np.zeros((ROWS, 3))
        np.add.at(summed, copies, np.asarray(of_copies[m]))
        np.testing.assert_allclose(gradient, summed, rtol=1e-6, atol=1e-10, err_msg=m)
    for m, expert in (terms.experts or {}).items():
        assert separate.experts is not None
        np.testing.assert_allclose(expert.accuracy, separate.experts[m].accuracy, rtol=1e-9)
        np.testing.assert_allclose(expert.log_ratio[copies], separate.experts[m].log_ratio, atol=1e-8)
    for stage, wanted in zip((terms.first_stage or {}).values(), (separate.first_stage or {}).values(), strict=True):
        np.testing.assert_allclose(stage.f_stat, wanted.f_stat, rtol=1e-6)


def test_fractions_are_the_oracle_of_the_rows_that_they_stand_for(x64: None) -> None:
    """Weights of halves: each row as often as twice its weight. This objective knows no number of rows."""
    problem = data(masked=False)
    config: dict[str, Any] = {"counterfactual": "gradient", "lambda_fe": 1.0, "ridge": 0.1}
    settings, keys = c3r_jax.C3RConfig.hinge(**config), (*TERM.values(), "label_probability")
    repeated = problem.rows(np.repeat(np.arange(ROWS), TIMES))
    expected = c3r(repeated.predict, problems.mean_fuse, repeated.features, repeated.labels, **config)
    features, labels = {m: jnp.asarray(h) for m, h in problem.features.items()}, jnp.asarray(problem.labels)
    call = functools.partial(c3r_jax.c3r_loss, problem.predict, problems.mean_fuse, config=settings)
    loss, terms = jax.jit(lambda h, y, w: call(h, y, weights=w))(features, labels, jnp.asarray(TIMES / 2))
    np.testing.assert_allclose(loss, expected["loss"], rtol=1e-8)
    for key in keys:
        np.testing.assert_allclose(getattr(terms, key), expected[key], rtol=1e-8, err_msg=key)
    for key, value in expected["risk"].items():
        np.testing.assert_allclose(getattr(terms.risk, key), value, rtol=1e-9, err_msg=key)
    for m, stage in expected["stages"].items():
        assert terms.first_stage is not None
        np.testing.assert_allclose(terms.first_stage[m].coef, stage["coef"], rtol=1e-7)


def test_ones_are_no_weights_and_where_is_kept(x64: None) -> None:
    problem = data()
    plain, ones = run("experts", problem), run("experts", problem, np.ones(ROWS))
    for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(ones), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)
    features = {m: jnp.asarray(h) for m, h in problem.features.items()}
    half = jnp.arange(ROWS) % 2 == 0
    call = functools.partial(
        c3r_jax.c3r_loss,
        problem.predict,
        problems.mean_fuse,
        features,
        jnp.asarray(problem.labels),
        config=CONFIGS["attention"],
    )
    both = jax.jit(lambda: call(where=half, weights=jnp.asarray(TIMES))[0])()
    np.testing.assert_allclose(both, jax.jit(lambda: call(weights=jnp.asarray(TIMES) * half)[0])(), rtol=1e-12)


def test_leaving_out_a_light_row_leaves_out_all_of_it(x64: None) -> None:
    rng = np.random.default_rng(0)
    v, h, w = rng.normal(size=(20, 2)), rng.normal(size=(20, 1)), rng.uniform(0.1, 1, 20)
    found = leave_one_out(jnp.asarray(v), jnp.asarray(h), ridge=0.0, where=Weighted(jnp.ones(20, bool), jnp.asarray(w)))
    x = np.c_[np.ones(20), v]
    for i in range(20):
        rest = np.where(np.arange(20) == i, 0, w)
        beta = np.linalg.solve(x.T @ (rest[:, None] * x), x.T @ (rest[:, None] * h))
        np.testing.assert_allclose(found.predicted[i], x[i] @ beta, rtol=1e-7)


def test_weights_of_classes_multiply_those_of_rows(x64: None) -> None:
    problem, table = data(masked=False), np.array([1.0, 2.0, 0.5, 3.0])
    features = {m: jnp.asarray(h) for m, h in problem.features.items()}
    config = c3r_jax.C3RConfig.hinge(instrument="none", counterfactual="mean", lambda_n=0.0, lambda_s=0.0)
    call = functools.partial(
        c3r_jax.c3r_loss, problem.predict, problems.mean_fuse, features, jnp.asarray(problem.labels), config=config
    )
    of_task = call(task=Classification(tuple(table)), weights=TIMES)[0]
    np.testing.assert_allclose(of_task, call(weights=table[problem.labels] * TIMES)[0], rtol=1e-12)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.ones(3), r"weights have shape \(3,\) and dtype float\d\d, but \(48,\) and numbers"),
        (np.ones(48, bool), "dtype bool"),
        (np.where(np.arange(48) == 5, -1.0, 1.0), r"weights\[5\] is -1.0, but a finite number >= 0"),
        (np.where(np.arange(48) == 7, np.inf, 1.0), r"weights\[7\] is inf"),
    ],
)
def test_weights_refused(weights: Any, message: str) -> None:
    problem = data(masked=False)
    with pytest.raises(ValueError, match=message):
        c3r_jax.c3r_loss(problem.predict, problems.mean_fuse, problem.features, problem.labels, weights=weights)


def test_a_traced_weight_that_cannot_be_makes_the_loss_nan() -> None:
    problem = data(masked=False)
    config = c3r_jax.C3RConfig.hinge(instrument="none", counterfactual="mean")
    features = {m: jnp.asarray(h) for m, h in problem.features.items()}

    @jax.jit
    def loss(weights: Any) -> Any:
        return c3r_jax.c3r_loss(
            problem.predict, problems.mean_fuse, features, jnp.asarray(problem.labels), config=config, weights=weights
        )[0]

    for bad in (-1.0, np.nan):
        assert np.isnan(loss(jnp.ones(48).at[3].set(bad)))
    assert np.isfinite(loss(jnp.ones(48)))


def test_weights_of_rows_on_eight_devices_and_on_explicit_axes() -> None:
    config = c3r_jax.C3RConfig(instrument="attention", expert=0.0, subsets=0.0)
    problem = data(masked=False)
    arrays = jax.tree.map(jnp.asarray, (problem.features, problem.labels, TIMES / 2))

    def value(features: Any, labels: Any, weights: Any, axis: Any = None) -> Any:
        keywords = {"config": config, "weights": weights, "axis_name": axis}
        loss, terms = c3r_jax.c3r_loss(lambda z: problem.predict(z), problems.mean_fuse, features, labels, **keywords)
        return jnp.stack([loss, terms.cap.scale, terms.explained])

    expected = jax.jit(value)(*arrays)
    shards = jax.tree.map(lambda x: x.reshape(8, -1, *x.shape[1:]), arrays)
    found = jax.pmap(functools.partial(value, axis="devices"), axis_name="devices")(*shards)
    np.testing.assert_allclose(found, np.tile(expected, (8, 1)), rtol=1e-5)
    rows = jax.sharding.NamedSharding(jax.make_mesh((8,), ("batch",)), jax.sharding.PartitionSpec("batch"))
    np.testing.assert_allclose(jax.jit(value)(*jax.device_put(arrays, rows)), expected, rtol=1e-5)
