"""The explained share of rows that are not trained on, against float64 NumPy, and what it bounds."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from c3r_jax import C3RClassifier
from c3r_jax.core.config import C3RConfig
from c3r_jax.core.explained import SCALES
from c3r_jax.core.tasks.regression import Regression
from tests.core.jitted import c3r_loss, held_out_share
from tests.core.test_expert import as_jax as as_given
from tests.core.test_task_term import HEAD, cross_entropy, fuse

SETTINGS = {"config": C3RConfig(subsets=0.0)}


def predict(z):
    return z @ jnp.asarray(HEAD, z.dtype)


def as_jax(features):
    """As float64 where tests ask for it, else as float32."""
    return as_given(
        {m: h.astype(jnp.float64 if jax.config.jax_enable_x64 else jnp.float32) for m, h in features.items()}
    )


def rows_of(seed, count, own=0.8):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count)
    cause = 1.5 * np.eye(3)[labels] + 0.7 * rng.standard_normal((count, 3))
    return {m: cause + own * rng.standard_normal((count, 3)) for m in ("a", "b")}, labels


def coefficients(v, h, ridge):
    """Slope and intercept of a ridge regression whose penalty is relative to the mean variance of v."""
    centred = v - v.mean(0)
    cov = centred.T @ centred / len(v)
    slope = np.linalg.solve(
        cov + ridge * np.trace(cov) / len(cov) * np.eye(len(cov)), centred.T @ (h - h.mean(0)) / len(v)
    )
    return slope, h.mean(0) - v.mean(0) @ slope


def oracle(train, held, labels, present, where):
    known = {m: np.where(present[:, [i]], h, 0) for i, (m, h) in enumerate(held.items())}
    shares = np.bincount(labels[where], minlength=3) / where.sum()
    constant = np.log((where.sum() * shares + 0.5) / (where.sum() * shares + 0.5).sum())
    explained = {}
    for i, m in enumerate(("a", "b")):
        other = ("b", "a")[i]
        slope, intercept = coefficients(train[other], train[m], 0.01)
        explained[m] = np.where(present[:, [1 - i]], known[other], train[other].mean(0)) @ slope + intercept

    def least(outputs, chosen):
        return min(cross_entropy(constant + b * (outputs - constant), labels)[chosen].mean() for b in SCALES)

    def nothing(chosen):
        return cross_entropy(np.tile(constant, (len(labels), 1)), labels)[chosen].mean()

    t = least(fuse(known, present) @ HEAD, where)
    s = least(fuse(explained, present[:, ::-1]) @ HEAD, where)
    of_z = np.clip((nothing(where) - s) / (nothing(where) - t), 0, 1)
    both = where & present.all(1)
    own, others = ([least(x[m] @ HEAD, both) for m in ("a", "b")] for x in (known, explained))
    lacking = max(max(x - y, 0) for x, y in zip(others, own, strict=True))
    alone = np.clip(1 - lacking / max(nothing(both) - y for y in own), 0, 1)
    together = nothing(both) - least(fuse(explained, present[:, ::-1]) @ HEAD, both)
    repeated = sum(max(nothing(both) - x, 0) for x in others) / together - 1  # of two modalities: M - 1 is 1
    return of_z, alone, np.clip((repeated - 0.1) / 0.2, 0, 1)


@pytest.mark.parametrize("own", [0.3, 1.0])
def test_the_share_is_the_formula(own, x64):
    (train, of_train), (held, labels) = rows_of(0, 90, own), rows_of(1, 60, own)
    present = np.ones((60, 2), bool)
    present[::7, 0] = present[3::7, 1] = False
    where = np.random.default_rng(2).random(60) < 0.9
    moments = c3r_loss(predict, fuse, as_jax(train), jnp.asarray(of_train), **SETTINGS)[1].moments
    masks = {"present": jnp.asarray(present), "where": jnp.asarray(where)}
    found = held_out_share(predict, fuse, as_jax(held), jnp.asarray(labels), moments, **masks)
    shares = oracle(train, held, labels, present, where)
    assert 0.1 < min(shares) < 1, shares
    np.testing.assert_allclose(found, min(shares), rtol=1e-7)


def test_over_devices_it_is_that_of_all_rows():
    (train, of_train), (held, labels) = rows_of(0, 90), rows_of(1, 64)
    moments = c3r_loss(predict, fuse, as_jax(train), jnp.asarray(of_train), **SETTINGS)[1].moments
    whole = held_out_share(predict, fuse, as_jax(held), jnp.asarray(labels), moments)
    parts, of_parts = jax.tree.map(lambda x: jnp.asarray(x).reshape(4, 16, *x.shape[1:]), (held, labels))
    share = jax.pmap(
        lambda h, y: held_out_share(predict, fuse, h, y, moments, axis_name="rows"),
        axis_name="rows",
        devices=jax.devices()[:4],
    )(parts, of_parts)
    np.testing.assert_allclose(share, [whole] * 4, rtol=1e-5)


def test_numbers_have_a_share_too():
    rng = np.random.default_rng(0)
    a, noise = rng.standard_normal((2, 200, 3))
    task, head = Regression(1.0), jnp.asarray([[1.0], [0.0], [0.0]])
    found = []
    for b in (a + 0.1 * noise, noise):
        features, labels = as_jax({"a": a, "b": b}), jnp.asarray((a + b)[:, 0] / 2, jnp.float32)
        shared = {"task": task}
        moments = c3r_loss(lambda z: z @ head, fuse, features, labels, **SETTINGS, **shared)[1].moments
        found.append(float(held_out_share(lambda z: z @ head, fuse, features, labels, moments, **shared)))
    assert found[0] > 0.8 and found[1] < 0.2


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_gate_is_the_given_share(share):
    features, labels = rows_of(0, 90, 0.3)

    def loss(h, explained):
        return c3r_loss(predict, fuse, h, jnp.asarray(labels), config=C3RConfig(lambda_s=0.0), explained=explained)

    h = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), as_jax(features))
    (_, bounded), gradient = jax.value_and_grad(loss, has_aux=True)(h, share)
    _, free = loss(h, None)
    assert 0.3 < float(free.explained) < 1
    np.testing.assert_allclose(bounded.explained, share, rtol=1e-6)
    unknown = jax.jit(lambda h, share: c3r_loss(predict, fuse, h, jnp.asarray(labels), explained=share)[1])(h, np.nan)
    of_batch = c3r_loss(predict, fuse, h, jnp.asarray(labels))[1]
    np.testing.assert_allclose(unknown.explained, of_batch.explained, rtol=1e-5)
    if share == 0:  # nothing but the task of all modalities together is left
        plain = jax.grad(lambda h: c3r_loss(predict, fuse, h, jnp.asarray(labels), config=C3RConfig(strength=0.0))[0])(
            h
        )
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6), gradient, plain)


@pytest.mark.parametrize("share", [-0.1, 1.5, np.nan, np.ones(2)])
def test_what_is_no_share_is_named(share):
    features, labels = rows_of(0, 90)
    with pytest.raises(ValueError, match="explained is .* but one share between 0 and 1 was expected"):
        c3r_loss(predict, fuse, as_jax(features), jnp.asarray(labels), explained=share)


@pytest.mark.filterwarnings("ignore:C3R may cost accuracy", "ignore:C3R trains plainly")
@pytest.mark.filterwarnings("ignore:the first stages of a and b are weak")
def test_what_both_modalities_together_say_is_not_lost():
    """Classes by the sum of two numbers, one in each modality; with the gate off, accuracy falls by half."""
    rng = np.random.default_rng(0)
    inputs = {name: rng.standard_normal((1100, 4)) for name in ("a", "b")}
    labels = np.digitize(sum(x[:, 0] for x in inputs.values()), (-2, -1, 0, 1, 2))
    train, test = ({name: x[rows] for name, x in inputs.items()} for rows in (slice(600), slice(600, None)))
    settings = {"steps": 150, "learning_rate": 0.01, "hidden": (32,), "dim": 8}
    found = {}
    for name, config in (("plain", None), ("c3r", C3RConfig(expert=0.5)), ("no gate", C3RConfig(gate=False))):
        model = C3RClassifier(config, strength=float(config is not None), **settings)
        found[name] = model.fit(train, labels[:600]).score(test, labels[600:])
    assert found["c3r"] > found["plain"] - 0.02
    assert found["no gate"] < found["plain"] - 0.1
