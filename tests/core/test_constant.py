"""Necessity "constant": one prediction at every z_bar, whichever it is."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import c3r_jax
from c3r_jax.core.batch import mean_of_present
from c3r_jax.core.config import C3RConfig
from c3r_jax.core.tasks.base import Task
from c3r_jax.core.tasks.classification import Classification
from c3r_jax.core.tasks.multilabel import MultiLabel
from c3r_jax.core.tasks.regression import Regression

TASKS: dict[str, tuple[Task, int]] = {
    "classes": (Classification(), 3),
    "weighted classes": (Classification((1.0, 4.0, 2.0)), 3),
    "labels": (MultiLabel(), 3),
    "numbers": (Regression(0.5), 1),
}


def drawn(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Outputs, labels and rows that count."""
    rng = np.random.default_rng(0)
    outputs = 2 * rng.normal(size=(30, TASKS[name][1]))
    labels = {"labels": rng.random((30, 3)) < 0.3, "numbers": rng.normal(size=30)}.get(name, rng.random(30) ** 2 * 3)
    return outputs, labels if name == "numbers" else labels.astype(int), rng.random(30) < 0.8


def penalty(name: str, outputs: Any, labels: np.ndarray, rows: np.ndarray, by_rarity: bool) -> jax.Array:
    """The mean as the objective has it."""
    task = TASKS[name][0]
    where, labels = jnp.asarray(rows), jnp.asarray(labels)
    prior = task.batch_prior(labels, outputs.shape[1], where=where)
    asked = task.mean_prediction(outputs, labels, prior, by_rarity=by_rarity, where=where)
    if by_rarity:
        losses = task.necessity_by_rarity(outputs, labels, kind="constant", prior=prior, asked=asked)
    else:
        losses = task.necessity(outputs, labels, kind="constant", prior=asked)
    weights = task.weights(labels)
    counted = where if weights is None else where * weights
    return (counted * losses).sum() / counted.sum()


@pytest.mark.parametrize("by_rarity", [False, True])
@pytest.mark.parametrize("name", TASKS)
def test_no_bias_is_moved(name: str, by_rarity: bool, x64: None) -> None:
    """The mean slope of every output is 0, so a bias that is added to all rows stays; any one prediction costs 0."""
    outputs, labels, rows = drawn(name)
    slope = jax.grad(lambda bias: penalty(name, outputs + bias[None, :], labels, rows, by_rarity))(
        jnp.zeros(outputs.shape[1])
    )
    np.testing.assert_allclose(slope, 0, atol=1e-14)
    if name != "numbers":
        toward = dataclasses.replace(TASKS[name][0]).batch_prior(jnp.asarray(labels), 3, where=jnp.asarray(rows))

        def of_shares(bias: jax.Array) -> jax.Array:
            moved = outputs + bias[None, :]
            return TASKS[name][0].necessity(moved, jnp.asarray(labels), kind="kl", prior=toward).mean()

        assert np.abs(jax.grad(of_shares)(jnp.zeros(3))).max() > 1e-3
    same = jnp.broadcast_to(jnp.asarray(outputs[:1]), outputs.shape)
    np.testing.assert_allclose(penalty(name, same, labels, rows, by_rarity), 0, atol=1e-14)
    assert penalty(name, outputs, labels, rows, by_rarity) > 0.01


def test_the_loss_by_itself() -> None:
    """Without a prior the mean is of the rows that are given; with one it is what is asked for."""
    logits, labels = jnp.array([[0.0, 0.0], [0.0, 2.0], [2.0, 0.0]]), jnp.array([1, 1, 1])
    p = np.exp(np.asarray(logits, float))
    p /= p.sum(1, keepdims=True)
    mean = p.mean(0)
    expected = (mean * np.log(mean / p)).sum(1)
    np.testing.assert_allclose(c3r_jax.necessity_loss(logits, labels, kind="constant"), expected, atol=1e-6)
    given = [
        c3r_jax.necessity_loss(logits, labels, kind=kind, prior=jnp.array([0.3, 0.7])) for kind in ("kl", "constant")
    ]
    np.testing.assert_array_equal(*given)


def amid(seed: int, rows: int) -> tuple[dict[str, jax.Array], jax.Array]:
    """Three modalities that see the same point of a plane: three classes around a fourth, no cue."""
    mixing, rng = np.random.default_rng(9).normal(size=(3, 2, 20)) / 1.4, np.random.default_rng(seed)
    centres = np.array([[1, 0], [-0.5, 0.866], [-0.5, -0.866], [0, 0]])
    labels = rng.integers(0, 4, rows)
    point = 1.8 * centres[labels] + 0.6 * rng.normal(size=(rows, 2))
    seen = point + 0.4 * rng.normal(size=(3, rows, 2))
    noise = 0.1 * rng.normal(size=(3, rows, 20))
    x = np.tanh(np.einsum("mbi,mij->mbj", seen, mixing)) + noise
    return {f"m{m}": jnp.asarray(value, jnp.float32) for m, value in enumerate(x)}, jnp.asarray(labels)


def test_a_class_amid_the_others_is_not_taken_away() -> None:
    """Where z_bar is the place of one class, to ask for the shares there takes it away: 3 points of accuracy."""
    (x, y), (x_test, y_test) = amid(0, 1000), amid(1, 4000)
    optimizer, rng = optax.adamw(2e-3, weight_decay=1e-3), np.random.default_rng(0)

    def layer(inputs: int, outputs: int) -> tuple[jax.Array, jax.Array]:
        return jnp.asarray(rng.normal(size=(inputs, outputs)) * (2 / inputs) ** 0.5, jnp.float32), jnp.zeros(outputs)

    first = {"encoders": {name: (layer(20, 64), layer(64, 8)) for name in x}, "head": layer(8, 4)}
    batches = jnp.asarray(np.stack([rng.permutation(1000)[:256] for _ in range(250)]))

    def encode(params: Any, x: dict[str, jax.Array]) -> dict[str, jax.Array]:
        return {
            name: jax.nn.relu(x[name] @ w + b[None, :]) @ v + c[None, :]
            for name, ((w, b), (v, c)) in params["encoders"].items()
        }

    def predict(params: Any, z: jax.Array) -> jax.Array:
        return z @ params["head"][0] + params["head"][1][None, :]

    def accuracy(config: C3RConfig) -> float:
        def loss(params: Any, rows: jax.Array) -> jax.Array:
            h = encode(params, {name: value[rows] for name, value in x.items()})
            return c3r_jax.c3r_loss(lambda z: predict(params, z), mean_of_present, h, y[rows], config=config)[0]

        def step(carry: Any, rows: jax.Array) -> tuple[Any, None]:
            updates, state = optimizer.update(jax.grad(loss)(carry[0], rows), carry[1], carry[0])
            return (optax.apply_updates(carry[0], updates), state), None

        start = first, optimizer.init(first)
        params = jax.jit(lambda start: jax.lax.scan(step, start, batches)[0][0])(start)
        z = mean_of_present(encode(params, x_test), jnp.ones((4000, 3), bool))
        return 100 * float((predict(params, z).argmax(1) == y_test).mean())

    plain, default, shares = map(accuracy, (C3RConfig(strength=0.0), C3RConfig(), C3RConfig(necessity="kl")))
    assert default > plain - 1.5, (plain, default)  # it learns more slowly; level with more steps
    assert shares < default - 2, (plain, default, shares)
