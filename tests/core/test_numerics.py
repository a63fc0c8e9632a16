"""No NaN and no inf, in values or gradients, at the corners that training reaches."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import c3r_jax

from . import oracles, problems
from .oracle_objective import c3r

CONFIGS: list[dict[str, Any]] = [
    {},
    {"counterfactual": "gradient", "num_steps": 2, "lambda_fe": 1.0, "necessity": "log"},
    {"counterfactual": "minimal", "ridge": 0.3, "necessity": "kl", "prior": (0.1, 0.2, 0.3, 0.4)},
    {"counterfactual": "instrumented", "lambda_fe": 0.4},
    {"instrument": "attention", "num_heads": 3},
    {"instrument": "attention", "counterfactual": "permute"},
]  # each is compiled once, in test_regularizer.py
SCALARS = ("task", "sufficiency", "necessity", "relevance", "closeness", "label_probability")


def ids(config: dict[str, Any]) -> str:
    return ",".join(str(v) for v in config.values() if not isinstance(v, tuple)) or "default"


def assert_finite(loss: Any, terms: Any, gradient: Any) -> None:
    assert np.isfinite(loss)
    for name in SCALARS:
        assert np.isfinite(getattr(terms, name)), name
    for path, leaf in jax.tree_util.tree_leaves_with_path((terms.z, terms.z_c, terms.z_bar, terms.risk, gradient)):
        assert np.isfinite(leaf).all(), path


@pytest.mark.parametrize("scale", [1e2, 1e4, 1e8])
@pytest.mark.parametrize("config", CONFIGS, ids=ids)
def test_perfect_fit(config: dict[str, Any], scale: float) -> None:
    """Features that are the label, and a head that is certain of it: log-odds of the order of `scale`."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 64)
    features = {m: np.eye(3)[labels] + 0.01 * rng.normal(size=(64, 3)) for m in problems.NAMES}
    w1, w2 = np.zeros((3, 6)), np.zeros((6, 4))
    w1[:, :3], w2[:3, :3], w2[:, 3] = np.eye(3), scale * np.eye(3), -scale
    data = problems.Problem(features, labels, predict=problems.MLP(w1, np.zeros((1, 6)), w2))
    loss, terms, gradient = problems.evaluate(data, **config)
    assert_finite(loss, terms, gradient)
    assert terms.task < 1e-6 and terms.risk.sufficiency == 0


CASES = ("equal", "one feature", "one modality", "everything", "dead", "labels", "absent", "flat head")


@pytest.mark.parametrize("config", CONFIGS, ids=ids)
@pytest.mark.parametrize("case", CASES)
def test_degenerate(case: str, config: dict[str, Any]) -> None:
    assert_finite(*problems.evaluate(degenerate(case), **config))


def degenerate(case: str) -> problems.Problem:
    data = problems.problem(1)
    features, head, labels, present = dict(data.features), data.predict, data.labels, np.ones((64, 3), bool)
    if case == "equal":  # the modalities copy each other: R2 = 1 but for the ridge
        features = dict.fromkeys(problems.NAMES, features["text"])
    elif case == "one feature":
        features["text"] = np.c_[np.full(64, 0.1), features["text"][:, 1:]]
    elif case == "one modality":
        features["text"] = np.full((64, 3), 0.1)
    elif case == "everything":
        features = {m: np.full((64, 3), 0.1) for m in problems.NAMES}
    elif case == "dead":
        features = {m: np.zeros((64, 3)) for m in problems.NAMES}
    elif case == "labels":
        labels = np.full(64, 2)
    elif case == "absent":
        present[:, 1] = False
    elif case == "flat head":
        head = problems.MLP(head.w1, head.b1, np.zeros_like(head.w2))
    return problems.Problem(features, labels, present, None, head)


def test_modality_absent_in_a_mask_that_is_known() -> None:
    """Even where the mask is concrete: that the first stage has no row to fit is not the caller's error here."""
    data = degenerate("absent")
    y, present = jnp.asarray(data.labels), data.present

    def value(features: Any) -> Any:
        config = c3r_jax.C3RConfig.hinge()
        return c3r_jax.c3r_loss(data.predict, problems.mean_fuse, features, y, config=config, present=present)

    loss, terms = jax.jit(value)(data.features)
    assert np.isfinite(loss) and np.isfinite(terms.z_bar).all()


@pytest.mark.parametrize("case", ["one modality", "everything", "dead"])
def test_constant_modalities_explain_nothing(case: str) -> None:
    """A modality that is constant has R2 = 0, and its share in L_v is 1."""
    data = degenerate(case)
    _, terms, _ = problems.evaluate(data)
    expected = c3r(data.predict, problems.mean_fuse, data.features, data.labels)["relevance"]
    np.testing.assert_allclose(terms.relevance, expected, rtol=1e-3)
    for m in problems.NAMES:
        if case != "one modality" or m == "text":
            np.testing.assert_array_equal(terms.first_stage[m].r2, np.zeros(3))


@pytest.mark.parametrize("config", [CONFIGS[0], CONFIGS[4]], ids=ids)
def test_rows_with_one_modality_or_none(config: dict[str, Any]) -> None:
    data = problems.problem(3)
    present = np.ones((64, 3), bool)
    present[0], present[1], present[2] = [1, 0, 0], [0, 1, 0], [0, 0, 0]
    loss, terms, gradient = problems.evaluate(
        problems.Problem(data.features, data.labels, present, None, data.predict), **config
    )
    assert_finite(loss, terms, gradient)
    np.testing.assert_array_equal(terms.z[2], np.zeros(3))
    assert all((np.asarray(gradient[0][m])[2] == 0).all() for m in problems.NAMES)
    if not config:  # with attention, how a row without any token counts is not specified
        expected = c3r(data.predict, problems.mean_fuse, data.features, data.labels, present=present)
        np.testing.assert_allclose(loss, expected["loss"], rtol=1e-4)
        np.testing.assert_allclose(terms.z_c, expected["z_c"], rtol=1e-4, atol=1e-4)


def test_one_example() -> None:
    assert_finite(*problems.evaluate(problems.problem(4, rows=1), **CONFIGS[4]))


@pytest.mark.parametrize("config", CONFIGS, ids=ids)
def test_no_row_left(config: dict[str, Any]) -> None:
    """Every row masked: NaN risks, zero loss, zero gradient."""
    data = dataclasses.replace(problems.problem(5), where=np.zeros(64, bool))
    loss, terms, gradient = problems.evaluate(data, **config)
    assert loss == 0
    assert all(np.isnan(r) for r in jax.tree.leaves(terms.risk))
    assert all((np.asarray(leaf) == 0).all() for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize("config", CONFIGS, ids=ids)
def test_one_row_left(config: dict[str, Any]) -> None:
    loss, terms, gradient = problems.evaluate(
        dataclasses.replace(problems.problem(6), where=np.arange(64) == 3), **config
    )
    assert_finite(loss, terms, gradient)
    for m in problems.NAMES:
        assert (np.delete(np.asarray(gradient[0][m]), 3, axis=0) == 0).all()


@functools.cache
def surrogate(kind: str) -> Any:
    """Per-example losses, and the gradient of their sum."""

    def value(logits: Any, labels: Any, prior: Any) -> Any:
        if kind == "sufficiency":
            losses = c3r_jax.sufficiency_loss(logits, labels)
        else:
            losses = c3r_jax.necessity_loss(logits, labels, kind=kind, prior=prior if kind == "kl" else None)
        return jnp.sum(losses), losses

    return jax.jit(jax.grad(value, has_aux=True))


@pytest.mark.parametrize("kind", ["hinge", "log", "kl", "sufficiency"])
@pytest.mark.parametrize("size", [0.0, 88.0, 1e4, 1e30])
def test_surrogates_of_extreme_logits(kind: str, size: float) -> None:
    """To single precision: only differences of logits matter, however large the logits are."""
    logits = jnp.array([[size, 0.0, -size], [-size, 0.0, size], [size, size, size]], jnp.float32)
    labels, prior = np.zeros(3, int), np.array([0.2, 0.3, 0.5])
    gradient, losses = surrogate(kind)(logits, jnp.asarray(labels), jnp.asarray(prior))
    exact = np.asarray(logits, np.float64)
    if kind == "sufficiency":
        expected = oracles.cross_entropy(exact, labels)
    else:
        expected = oracles.necessity(exact, labels, kind, prior)
    np.testing.assert_allclose(losses, expected, rtol=1e-5, atol=1e-6)
    assert np.isfinite(gradient).all() and np.abs(gradient).max() <= 1 + 1e-6


def test_log_kind_keeps_its_slope_at_saturation() -> None:
    """-log(1 - p) with p = 1 - e^-50: p rounds to 1 in single precision, the loss is 50 and its slope 1."""
    gradient, losses = surrogate("log")(jnp.array([[50.0, 0.0, -50.0]]), jnp.array([0]), jnp.ones(3) / 3)
    np.testing.assert_allclose(losses, [50], rtol=1e-6)
    np.testing.assert_allclose(gradient, [[1, -1, 0]], rtol=1e-6, atol=1e-6)


def test_a_term_of_weight_zero_cannot_poison_the_loss() -> None:
    """The head overflows at the counterfactual of this batch, and nowhere else; with lambda_n = 0 the loss is sound."""
    data = problems.problem(7)
    features = {m: jnp.asarray(a) for m, a in data.features.items()}
    centre = problems.mean_fuse(features, jnp.ones((64, 3), bool)).mean(axis=0, keepdims=True)

    def predict(z: Any) -> Any:
        near = jnp.sum((z - centre) ** 2, axis=1, keepdims=True) < 1e-6
        return jnp.where(near, jnp.inf, 1.0) * problems.linear(1, 3, 4)(z)

    def value(features: Any) -> Any:
        config = c3r_jax.C3RConfig.hinge(instrument="none", counterfactual="mean", lambda_n=0.0)
        return c3r_jax.c3r_loss(predict, problems.mean_fuse, features, jnp.asarray(data.labels), config=config)

    run = jax.jit(jax.value_and_grad(value, has_aux=True))
    (loss, terms), gradient = run(features)
    assert not np.isfinite(terms.necessity) and np.isfinite(loss)
    assert all(np.isfinite(g).all() for g in gradient.values())
