"""Losses, risks and counterfactuals of every task against float64 oracles written from docs/method.md."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import c3r_jax
from c3r_jax.core.tasks.classification import CLASSIFICATION, Classification
from c3r_jax.core.tasks.multilabel import MultiLabel
from c3r_jax.core.tasks.regression import Regression
from c3r_jax.core.tasks.segmentation import Segmentation
from tests.core import oracles
from tests.core.problems import Linear, mean_fuse, problem

TOLERANCE = 0.7
WEIGHTS = (1.0, 4.0, 0.5)
TASKS = {
    "multilabel": MultiLabel(),
    "regression": Regression(tolerance=TOLERANCE),
    "voxels": Segmentation(class_weights=WEIGHTS),
}
WIDTH = {"multilabel": 3, "regression": 1, "voxels": 3}
PRIOR = {"multilabel": (0.2, 0.5, 0.9), "regression": (0.3, 1.7), "voxels": (0.6, 0.3, 0.1)}


def draw(task: str, rows: int = 60, seed: int = 0) -> tuple[Any, Any]:
    """Outputs far apart and near, and labels."""
    rng = np.random.default_rng(seed)
    outputs = rng.normal(size=(rows, WIDTH[task])) * 3
    if task == "multilabel":
        return outputs, rng.integers(0, 2, (rows, 3))
    if task == "regression":
        return outputs, outputs[:, 0] + rng.normal(size=rows)
    return outputs, rng.integers(0, 3, rows)


def sigma(x: float) -> float:
    return 1 / (1 + np.exp(-x))


def loss(task: str, outputs: Any, labels: Any) -> Any:
    if task == "voxels":
        return oracles.cross_entropy(outputs, labels)
    if task == "multilabel":
        return np.array(
            [
                np.mean([-np.log(sigma(x if y else -x)) for x, y in zip(*row, strict=True)])
                for row in zip(outputs, labels, strict=True)
            ]
        )
    t = np.abs(outputs[:, 0] - labels) / TOLERANCE
    return np.array([x * x / 2 if x <= 1 else x - 0.5 for x in t])


def necessity(task: str, outputs: Any, labels: Any, kind: str) -> Any:
    if task == "voxels":
        return oracles.necessity(outputs, labels, kind, np.array(PRIOR[task]))
    if task == "multilabel":

        def one(x: float, y: int, q: float) -> float:
            p = sigma(x)
            p_label = p if y else 1 - p
            if kind == "hinge":
                return max(0.0, np.log(p_label) + np.log(2))
            return -np.log(1 - p_label) if kind == "log" else q * np.log(q / p) + (1 - q) * np.log((1 - q) / (1 - p))

        prior = PRIOR[task]
        return np.array(
            [
                np.mean([one(*cell) for cell in zip(x, y, prior, strict=True)])
                for x, y in zip(outputs, labels, strict=True)
            ]
        )
    t = np.abs(outputs[:, 0] - labels) / TOLERANCE
    mean, sd = PRIOR[task]
    return {
        "hinge": np.maximum(0, 1 - t),
        "log": np.log1p(np.exp(1 - t)),
        "kl": (outputs[:, 0] - mean) ** 2 / (2 * sd**2),
    }[kind]


def right(task: str, outputs: Any, labels: Any) -> Any:
    if task == "multilabel":
        return (outputs > 0) == (labels == 1)
    if task == "regression":
        return np.abs(outputs[:, 0] - labels) <= TOLERANCE
    return outputs.argmax(1) == labels


@pytest.mark.parametrize("task", TASKS)
def test_losses_and_necessity(task, precision):
    outputs, labels = draw(task)
    given = jnp.asarray(outputs, precision.dtype), jnp.asarray(labels, precision.dtype if task == "regression" else int)
    precision.close(c3r_jax.sufficiency_loss(*given, task=TASKS[task]), loss(task, outputs, labels), loosen=10)
    for kind in ("hinge", "log", "kl"):
        found = c3r_jax.necessity_loss(*given, kind=kind, prior=jnp.asarray(PRIOR[task]), task=TASKS[task])
        precision.close(found, necessity(task, outputs, labels, kind), loosen=10)


@pytest.mark.parametrize("task", TASKS)
def test_risks_follow_the_formulas_for_any_order_and_excluded_rows(task):
    outputs, labels = draw(task, 80)
    bar = draw(task, 80, 1)[0]
    where = np.random.default_rng(2).random(80) < 0.7
    real, fooled = right(task, outputs, labels)[where], right(task, bar, labels)[where]
    weights = np.array(WEIGHTS)[labels[where]] if task == "voxels" else np.ones(where.sum())
    shares = [
        np.average(event.reshape(len(weights), -1).mean(1), weights=weights)
        for event in (~real, fooled, real & ~fooled)
    ]
    order = np.random.default_rng(3).permutation(80)
    spoiled = np.where(where[:, None], outputs, np.nan)
    for rows in (np.arange(80), order, np.flatnonzero(where)):
        arrays = (jnp.asarray(x[rows]) for x in (spoiled, bar, labels))
        risk = c3r_jax.c3_risk(*arrays, where=jnp.asarray(where[rows]), task=TASKS[task])
        np.testing.assert_allclose((risk.sufficiency, risk.necessity, risk.joint), shares, rtol=1e-6)
        assert risk.lower <= risk.joint + 1e-6 and risk.joint <= risk.upper + 1e-6


def test_a_row_that_is_not_finite_is_wrong():
    for task, outputs, labels in (
        (TASKS["multilabel"], [[np.nan, 1.0]], [[1, 1]]),
        (TASKS["regression"], [[np.inf]], [0.0]),
    ):
        correct = np.asarray(task.correct(jnp.asarray(outputs), jnp.asarray(labels))).ravel()
        assert not correct[0] and correct[1:].all()


def test_one_label_is_binary_classification():
    """Multi-label with K = 1 has the numbers of classification with logits (0, l), gradients and extremes included."""
    logits = jnp.array([-200.0, -30.0, -3.0, -0.1, 0.0, 0.4, 9.0, 14.9, 15.1, 80.0, 200.0])
    labels = jnp.array([0, 1] * 5 + [1])
    two = lambda x: jnp.stack([jnp.zeros_like(x), x], axis=1)  # noqa: E731
    one, many = CLASSIFICATION, MultiLabel()
    for name in ("loss", "excess", "necessity", "probability"):
        expected = jax.jacobian(lambda x, name=name: getattr(one, name)(two(x), labels))(logits)
        found = jax.jacobian(lambda x, name=name: getattr(many, name)(x[:, None], labels[:, None]))(logits)
        np.testing.assert_allclose(np.diag(found), np.diag(expected), rtol=1e-4, atol=1e-6, err_msg=name)
        values = getattr(many, name)(logits[:, None], labels[:, None]), getattr(one, name)(two(logits), labels)
        np.testing.assert_allclose(*values, rtol=1e-4, atol=1e-6, err_msg=name)


def test_excess_of_many_labels_follows_the_loss():
    """log(e^L - 1) relative to chance, L the summed loss: also where every label is fitted perfectly."""
    outputs, labels = draw("multilabel", 40)
    total = 3 * loss("multilabel", outputs, labels)
    expected = np.log(np.expm1(total)) - np.log(2.0**3 - 1)
    np.testing.assert_allclose(
        MultiLabel().excess(jnp.asarray(outputs), jnp.asarray(labels)), expected, rtol=1e-4, atol=1e-4
    )
    fitted = jnp.array([[40.0, -60.0, 41.0]])
    gradient = jax.grad(lambda x: MultiLabel().excess(x, jnp.array([[1, 0, 1]]))[0])(fitted)
    weights = np.exp(-np.array([40.0, 60, 41])) / np.exp(-np.array([40.0, 60, 41])).sum()
    np.testing.assert_allclose(gradient[0], weights * [-1, 1, -1], rtol=1e-4)


def head_of(task: str) -> Linear:
    rng = np.random.default_rng(5)
    return Linear(rng.normal(size=(4, WIDTH[task])), np.zeros((1, WIDTH[task])))


@pytest.mark.parametrize("num_steps", [1, 4])
@pytest.mark.parametrize("task", TASKS)
def test_the_gradient_counterfactual_ascends_the_loss(task, num_steps):
    head, z = head_of(task), np.random.default_rng(6).normal(size=(50, 4))
    _, labels = draw(task, 50)
    predict = lambda z: z @ jnp.asarray(head.weight)  # noqa: E731
    if task == "regression":  # some are fitted perfectly: they have a direction, too
        labels = np.asarray(predict(jnp.asarray(z)))[:, 0] + np.where(np.arange(50) % 2, 1.0, 0.0)
    given = jnp.asarray(z), jnp.asarray(labels)
    z_bar = c3r_jax.counterfactual(
        predict, *given, mode="gradient", step_size=0.2, num_steps=num_steps, task=TASKS[task]
    )
    before, after = (np.asarray(TASKS[task].loss(predict(x), given[1])) for x in (given[0], z_bar))
    assert (after >= before - 1e-6).all() and (after - before).mean() > 0.02
    moved = np.linalg.norm(np.asarray(z_bar) - z, axis=1)
    if num_steps == 1:
        np.testing.assert_allclose(moved, 0.2 * oracles.rms(z), rtol=1e-4)


def test_removal_takes_the_part_that_favours_a_number():
    """One output z_1: its part of z_c becomes the mean's wherever that raises the error, and only there."""
    predict = lambda z: z[:, :1]  # noqa: E731
    z = np.random.default_rng(7).normal(size=(40, 3))
    labels = z[:, 0] + np.random.default_rng(8).normal(size=40)
    given = (jnp.asarray(z), jnp.asarray(labels))
    z_bar = np.asarray(c3r_jax.counterfactual(predict, *given, mode="removal", task=TASKS["regression"]))
    mean = z[:, 0].mean()
    worse = np.abs(mean - labels) > np.abs(z[:, 0] - labels)
    np.testing.assert_allclose(z_bar[:, 0], np.where(worse, mean, z[:, 0]), atol=1e-5)
    np.testing.assert_allclose(z_bar[:, 1:], z[:, 1:], atol=1e-6)
    assert worse.any() and not worse.all()


def test_projection_sets_a_number_to_the_mean_whatever_the_error():
    predict = lambda z: z[:, :1]  # noqa: E731
    z = np.random.default_rng(7).normal(size=(40, 3))
    labels = z[:, 0] + np.random.default_rng(8).normal(size=40)
    z_bar = np.asarray(c3r_jax.counterfactual(predict, jnp.asarray(z), jnp.asarray(labels), task=TASKS["regression"]))
    np.testing.assert_allclose(z_bar[:, 0], z[:, 0].mean(), atol=1e-5)
    np.testing.assert_allclose(z_bar[:, 1:], z[:, 1:], atol=1e-6)


def test_minimal_leaves_a_number_at_the_tolerance():
    predict = lambda z: z @ jnp.array([[1.0], [2.0], [0.5]])  # noqa: E731
    z = jnp.asarray(np.random.default_rng(9).normal(size=(40, 3)))
    labels = predict(z)[:, 0] + jnp.asarray(np.linspace(-2, 2, 40))
    z_bar = c3r_jax.counterfactual(predict, z, labels, mode="minimal", task=TASKS["regression"])
    before, after = (np.abs(np.asarray(predict(x)[:, 0] - labels)) for x in (z, z_bar))
    np.testing.assert_allclose(after, np.maximum(before, TOLERANCE), rtol=1e-5)


@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_permute_gives_a_row_with_another_label(task):
    rng = np.random.default_rng(10)
    labels = rng.integers(0, 2, (30, 2)) if task == "multilabel" else rng.normal(size=30) * 2
    z, where = np.arange(60.0).reshape(30, 2), np.arange(30) % 7 != 3
    given = (jnp.asarray(x) for x in (z, labels))
    z_bar = np.asarray(
        c3r_jax.counterfactual(
            lambda z: z, *given, mode="permute", key=jax.random.key(0), where=jnp.asarray(where), task=TASKS[task]
        )
    )
    for i in np.flatnonzero(where):
        (j,) = np.flatnonzero((z == z_bar[i]).all(1))
        assert where[j]
        assert (labels[i] != labels[j]).any() if task == "multilabel" else abs(labels[i] - labels[j]) > TOLERANCE - 1e-6
    np.testing.assert_array_equal(z_bar[~where], z[~where])


def objective(task: str) -> tuple[Any, Any, Any]:
    data = problem(11, rows=48)
    _, labels = draw(task, 48)
    head = Linear(np.random.default_rng(12).normal(size=(3, WIDTH[task])), np.zeros((1, WIDTH[task])))
    return data, labels, head


@pytest.mark.parametrize("task", TASKS)
def test_the_objective_and_its_gradient(task, x64):
    """Terms from the branches by the formulas; directional derivative by finite differences (instrumented: no kink)."""
    data, labels, head = objective(task)
    config = c3r_jax.C3RConfig.hinge(counterfactual="instrumented", necessity="log", lambda_n=0.7, lambda_v=0.5)

    def total(features: Any) -> Any:
        return c3r_jax.c3r_loss(head, mean_fuse, features, jnp.asarray(labels), config=config, task=TASKS[task])

    features = {name: jnp.asarray(value) for name, value in data.features.items()}
    run = jax.jit(jax.value_and_grad(total, has_aux=True))
    (value, terms), gradient = run(features)
    weights = np.array(WEIGHTS)[labels] if task == "voxels" else np.ones(48)
    z, z_c, z_bar = (np.asarray(x) for x in (terms.z, terms.z_c, terms.z_bar))
    expected = {
        "task": loss(task, head(z), labels),
        "sufficiency": loss(task, head(z_c), labels),
        "necessity": necessity(task, head(z_bar), labels, "log"),
    }
    for name, losses in expected.items():
        np.testing.assert_allclose(getattr(terms, name), np.average(losses, weights=weights), rtol=1e-7, err_msg=name)
    summed = terms.task + 0.3 * terms.sufficiency + 0.7 * terms.necessity + 0.5 * terms.relevance
    np.testing.assert_allclose(value, summed, rtol=1e-9)
    rng = np.random.default_rng(13)
    direction = {name: jnp.asarray(rng.normal(size=h.shape)) for name, h in features.items()}
    along = lambda t: float(run({n: features[n] + t * direction[n] for n in features})[0][0])  # noqa: E731
    slope = sum(float((gradient[n] * direction[n]).sum()) for n in features)
    np.testing.assert_allclose(slope, oracles.directional(along), rtol=1e-4)


@pytest.mark.parametrize("task", TASKS)
def test_excluded_rows_and_the_order_of_rows_change_nothing(task, x64):
    data, labels, head = objective(task)
    config = c3r_jax.C3RConfig.hinge(necessity="kl", prior=PRIOR[task])
    total = jax.jit(
        lambda h, y, mask: c3r_jax.c3r_loss(head, mean_fuse, h, y, config=config, where=mask, task=TASKS[task])
    )
    where, order = np.arange(48) % 5 != 2, np.random.default_rng(14).permutation(48)

    def run(rows: Any, mask: Any) -> list[Any]:
        features = {n: jnp.asarray(h[rows]) for n, h in data.features.items()}
        loss, terms = total(features, jnp.asarray(labels[rows]), mask)
        return [loss, terms.task, terms.necessity, *terms.risk]

    expected = run(np.flatnonzero(where), jnp.ones(where.sum(), bool))
    np.testing.assert_allclose(run(np.arange(48), jnp.asarray(where)), expected, rtol=1e-6)
    np.testing.assert_allclose(run(order, jnp.asarray(where[order])), expected, rtol=1e-6)


def test_units_of_a_regression_are_its_tolerance():
    outputs, labels = draw("regression")
    for name in ("loss", "necessity", "excess"):
        found = getattr(Regression(tolerance=TOLERANCE), name)(jnp.asarray(outputs), jnp.asarray(labels))
        scaled = getattr(Regression(tolerance=10 * TOLERANCE), name)(
            10 * jnp.asarray(outputs), 10 * jnp.asarray(labels)
        )
        np.testing.assert_allclose(found, scaled, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Regression(tolerance=0.0), "tolerance is 0.0"),
        (lambda: Classification(class_weights=(1.0, 0.0)), "positive finite numbers"),
        (lambda: Classification(class_weights=(1.0,)).loss(jnp.zeros((1, 2)), jnp.array([0])), "1 numbers"),
        (lambda: MultiLabel().loss(jnp.zeros((2, 3)), jnp.array([0, 1])), r"integers \(2, K\)"),
        (lambda: MultiLabel().loss(jnp.zeros((1, 3)), jnp.array([[0, 1]])), r"logits have \(1, 3\)"),
        (lambda: MultiLabel().loss(jnp.zeros((1, 2)), jnp.array([[0, 2]])), "label 2 is neither 0 nor 1"),
        (lambda: Regression(0.5).check_prior((0.0, 0.0), 1), "a mean and a standard deviation above 0 were expected"),
        (lambda: MultiLabel().check_prior((0.5, 1.5), 2), "was expected to hold shares between 0 and 1"),
        (lambda: Regression().loss(jnp.zeros((2, 3)), jnp.zeros(2)), r"\(2, 1\) was expected"),
        (lambda: Regression().loss(jnp.zeros((2, 1)), jnp.zeros(2, int)), "floats"),
        (lambda: Regression().loss(jnp.zeros((2, 1)), jnp.zeros(2), label_smoothing=0.1), "no classes to smooth"),
        (lambda: Regression().necessity(jnp.zeros((2, 1)), jnp.zeros(2), kind="kl"), "mean and standard deviation"),
        (lambda: MultiLabel().necessity(jnp.zeros((1, 2)), jnp.zeros((1, 2), int), kind="kl"), "share of ones"),
    ],
)
def test_unfitting_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("wrong", [-1, 2])
def test_a_traced_label_that_is_neither_0_nor_1_makes_the_loss_nan(wrong):
    losses = jax.jit(MultiLabel().loss)(jnp.zeros((2, 3)), jnp.array([[0, 1, wrong], [0, 1, 1]]))
    assert np.isnan(losses[0]) and np.isfinite(losses[1])
