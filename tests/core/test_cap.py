"""The cap: gradients of the formula, whatever stands before the features, on one device and on several."""

from __future__ import annotations

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

import c3r_jax
from c3r_jax.core.cap import capped_loss
from tests.core.jitted import c3r_loss


def parts(rows, shared):
    """A task loss and a penalty that both read rows and shared parameters."""
    outputs = rows["a"] @ shared["w"] + rows["b"].sum(1, keepdims=True)
    return (jnp.square(outputs - 1).mean(), 5 * jnp.square(rows["a"]).mean() + jnp.abs(shared["w"]).sum()), outputs


@pytest.fixture
def inputs():
    rng = np.random.default_rng(0)
    rows = {"a": jnp.asarray(rng.standard_normal((16, 3))), "b": jnp.asarray(rng.standard_normal((16, 2)))}
    return rows, {"w": jnp.asarray(rng.standard_normal((3, 2)))}


def expected(rows, shared, cap):
    gradients = [jax.grad(lambda *x, i=i: parts(*x)[0][i], argnums=(0, 1))(rows, shared) for i in (0, 1)]
    task, penalty = (np.concatenate([np.ravel(x) for x in jax.tree.leaves(g)]) for g in gradients)
    scale = min(1.0, cap * np.linalg.norm(task) / np.linalg.norm(penalty))
    return task + scale * penalty, scale


@pytest.mark.parametrize("cap", [0.1, 1.0, 1e6])
def test_the_gradient_is_the_formula(inputs, cap, x64):
    rows, shared = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), inputs)
    gradient = jax.grad(lambda *x: capped_loss(parts, *x, cap=cap)[0], argnums=(0, 1))(rows, shared)
    found = np.concatenate([np.ravel(x) for x in jax.tree.leaves(gradient)])
    wanted, scale = expected(rows, shared, cap)
    np.testing.assert_allclose(found, wanted, rtol=1e-10)
    loss, measured, outputs = capped_loss(parts, rows, shared, cap=cap)
    (task, penalty), same = parts(rows, shared)
    np.testing.assert_allclose(loss, task + penalty, rtol=1e-12)
    np.testing.assert_array_equal(outputs, same)
    np.testing.assert_allclose(measured.scale, scale, rtol=1e-10)
    depends = lambda outputs: cap * jnp.square(outputs).sum() / jnp.square(same).sum()  # noqa: E731
    gradient = jax.grad(lambda *x: capped_loss(parts, *x, cap=depends)[0], argnums=(0, 1))(rows, shared)
    np.testing.assert_allclose(np.concatenate([np.ravel(x) for x in jax.tree.leaves(gradient)]), wanted, rtol=1e-10)


def test_encoders_get_the_capped_gradient(inputs, x64):
    """d loss / d encoder is the capped gradient at the features times the encoder's own derivative."""
    rows, shared = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), inputs)

    def total(gain):
        encoded = jax.tree.map(lambda x: jnp.tanh(gain * x), rows)
        return capped_loss(parts, encoded, shared, cap=0.3)[0]

    encoded = jax.tree.map(lambda x: jnp.tanh(0.7 * x), rows)
    at_features = jax.grad(lambda x: capped_loss(parts, x, shared, cap=0.3)[0])(encoded)
    slopes = jax.tree.map(lambda x: x * (1 - jnp.tanh(0.7 * x) ** 2), rows)
    chain = sum((at_features[name] * slopes[name]).sum() for name in rows)
    np.testing.assert_allclose(jax.grad(total)(0.7), chain, rtol=1e-10)


def test_no_gradient_of_the_task_leaves_none(inputs):
    rows, shared = inputs

    def flat(rows, shared):
        return (jnp.zeros(()), parts(rows, shared)[0][1]), None

    gradient = jax.grad(lambda x: capped_loss(flat, x, shared)[0])(rows)
    assert all(not np.asarray(x).any() for x in gradient.values())


def c3r(features, head, labels, where, axis_name=None):
    config = c3r_jax.C3RConfig.strong(cap=0.2)
    fuse = lambda h, present: sum(h.values()) / len(h)  # noqa: E731
    return c3r_loss(lambda z: z @ head, fuse, features, labels, config=config, where=where, axis_name=axis_name)


@pytest.mark.parametrize("tracked", [False, True], ids=["pmap", "shard_map"])
def test_a_split_batch_has_the_same_capped_gradient(tracked):
    """Also under shard_map as it is by default, which sums the gradients of shared values by itself."""
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, 64)
    cause = np.eye(3)[labels] + 0.5 * rng.standard_normal((64, 3))
    features = {m: jnp.asarray(cause + 0.5 * rng.standard_normal((64, 3)), jnp.float32) for m in ("a", "b")}
    head, where = 2 * jnp.eye(3), jnp.asarray(rng.random(64) < 0.9)
    value = lambda x, w, y, m, axis=None: c3r(x, w, y, m, axis)  # noqa: E731
    whole, terms = jax.grad(value, argnums=(0, 1), has_aux=True)(features, head, jnp.asarray(labels), where)
    assert float(terms.cap.scale) < 1 and terms.experts is not None and 0.1 < float(terms.explained) < 0.9
    assert float(terms.cap.limit) == pytest.approx(0.2 * float(terms.explained))

    def part(x, w, y, m):
        gradient, terms = jax.grad(lambda x, w: value(x, w, y, m, "devices"), argnums=(0, 1), has_aux=True)(x, w)
        return gradient, terms.cap.scale

    if tracked:
        mesh = jax.make_mesh((4,), ("devices",), axis_types=(AxisType.Auto,), devices=jax.devices()[:4])
        rows, same = PartitionSpec("devices"), PartitionSpec()
        run = jax.shard_map(part, mesh=mesh, in_specs=(rows, same, rows, rows), out_specs=((rows, same), same))
        gradient, scale = jax.jit(run)(features, head, jnp.asarray(labels), where)
        assert float(scale) == pytest.approx(float(terms.cap.scale), rel=1e-3)
        chex.assert_trees_all_close(gradient, whole, atol=1e-4)
        return
    split = lambda x: jnp.asarray(x).reshape(4, 16, *x.shape[1:])  # noqa: E731
    many = jax.tree.map(lambda x: jnp.broadcast_to(x, (4, *x.shape)), head)
    (of_rows, of_head), scale = jax.pmap(part, axis_name="devices")(
        jax.tree.map(split, features), many, split(labels), split(where)
    )
    np.testing.assert_allclose(scale, np.full(4, terms.cap.scale), rtol=1e-3)
    np.testing.assert_allclose(of_head.mean(0), whole[1], atol=1e-4)
    for name in features:  # each device's rows have 4 times the gradient, which averaging over devices takes back
        np.testing.assert_allclose(of_rows[name].reshape(64, 3) / 4, whole[0][name], atol=1e-5)


@pytest.mark.parametrize("gate", [True, False])
def test_where_nothing_passes_the_instrument_only_the_task_is_trained(gate):
    """Modalities without anything in common: the gate shuts out sufficiency too. Without it, C3R pulls."""
    rng = np.random.default_rng(3)
    labels = jnp.asarray(rng.integers(0, 2, (2, 200)))
    h = {
        m: jnp.asarray(2 * (y[:, None] - 0.5) + 0.1 * rng.standard_normal((200, 1)))
        for m, y in zip("ab", labels, strict=True)
    }
    head = jnp.asarray(rng.standard_normal((1, 2)), jnp.float32)

    def gradient(**fields):
        config, fuse = c3r_jax.C3RConfig(gate=gate, **fields), lambda h, _: h["a"] + 0.1 * h["b"]
        loss = lambda h: c3r_loss(lambda z: z @ head, fuse, h, labels[0], config=config)[0]  # noqa: E731
        return np.concatenate([*jax.jit(jax.grad(loss))(h).values()])

    of_task = gradient(lambda_s=0.0, lambda_n=0.0)
    pulled = np.abs(gradient() - of_task).max() / np.abs(of_task).max()
    assert pulled < 1e-6 if gate else pulled > 0.01


def test_gradients_of_float16_are_above_its_smallest_numbers():
    """Of a mean over many rows, a row's gradient is below them; a loss scale of the caller's comes too late for it."""
    a = jax.random.normal(jax.random.key(0), (4096, 3))

    def losses(rows, shared):
        means = [1e-3 * each.astype(jnp.float32).mean() for each in (jnp.square(rows["a"]), jnp.abs(rows["a"]))]
        return tuple(means), shared

    def gradient(dtype):
        return jax.grad(lambda a: 2.0**15 * capped_loss(losses, {"a": a}, ())[0])(a.astype(dtype)).astype(jnp.float32)

    single = gradient(jnp.float32)
    assert jnp.abs(single / 2.0**15).max() < 1e-6
    np.testing.assert_allclose(gradient(jnp.float16), single, rtol=5e-3, atol=1e-5)


def test_a_head_in_the_closure_is_trained():
    """What predict and fuse close over counts in the lengths, and gets the capped gradient."""
    rng = np.random.default_rng(2)
    labels = jnp.asarray(rng.integers(0, 2, 40))
    features = {m: jnp.asarray(rng.standard_normal((40, 2)) + labels[:, None], jnp.float32) for m in ("a", "b")}

    def loss(head):
        return c3r(features, head, labels, jnp.ones(40, bool))[0]

    gradient = jax.grad(loss)(jnp.eye(2))
    assert np.isfinite(gradient).all() and float(jnp.abs(gradient).max()) > 1e-3
    assert jax.tree.all(jax.tree.map(lambda x: bool(jnp.isfinite(x).all()), jax.jit(jax.grad(loss))(jnp.eye(2))))


def test_the_slope_of_the_task_does_not_go_through_the_first_stage():
    """One solve of the first stage and its transpose, as without a cap: the task's gradient needs neither."""
    h = {name: jax.random.normal(jax.random.key(i), (64, 4)) for i, name in enumerate("ab")}
    labels, head = jnp.arange(64) % 3, jnp.ones((4, 3))

    def solves(cap):
        def loss(h, head):
            config = c3r_jax.C3RConfig(cap=cap)
            fuse = lambda h, present: (h["a"] + h["b"]) / 2  # noqa: E731
            return c3r_jax.c3r_loss(lambda z: z @ head, fuse, h, labels, config=config)[0]

        return str(jax.make_jaxpr(jax.grad(loss, (0, 1)))(h, head)).count("custom_linear_solve")

    assert solves(1.0) == solves(0.0) == 2


@pytest.mark.parametrize("cap", [0.1, 1e6])
def test_a_task_that_is_not_counted_only_bounds_the_penalty(inputs, cap, x64):
    rows, shared = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), inputs)
    settings = {"cap": cap, "counted": False}
    gradient = jax.grad(lambda *x: capped_loss(parts, *x, **settings)[0], argnums=(0, 1))(rows, shared)
    found = np.concatenate([np.ravel(x) for x in jax.tree.leaves(gradient)])
    wanted, scale = expected(rows, shared, cap)
    of_task = expected(rows, shared, 0.0)[0]
    np.testing.assert_allclose(found, wanted - of_task, atol=1e-12)
    loss, measured, _ = capped_loss(parts, rows, shared, **settings)
    np.testing.assert_allclose([loss, measured.scale], [parts(rows, shared)[0][1], scale], rtol=1e-10)


def test_terms_beside_a_task_loss_of_ones_own_are_within_its_length():
    """With w_task = 0 the result is C3R's terms alone, held back as far as with the cross-entropy of weight 1."""
    key = jax.random.key(0)
    h = {name: jax.random.normal(jax.random.fold_in(key, i), (64, 4)) for i, name in enumerate(("image", "text"))}
    labels = (h["image"][:, 0] + h["text"][:, 1] > 0).astype(int)
    head = jax.random.normal(key, (4, 2))

    def loss(h, **fields):
        fields = {"expert": 0.0, "lambda_v": 4.0, "cap": 1.0, "gate": False} | fields
        config = c3r_jax.C3RConfig.strong(**fields)
        return c3r_loss(lambda z: z @ head, lambda h, _: (h["image"] + h["text"]) / 2, h, labels, config=config)

    whole, alone, free = (
        jax.jit(jax.value_and_grad(functools.partial(loss, **fields), has_aux=True))(h)
        for fields in ({}, {"w_task": 0.0}, {"w_task": 0.0, "cap": 0.0})
    )
    terms, cap = whole[0][1], alone[0][1].cap
    np.testing.assert_allclose(alone[0][0], whole[0][0] - terms.task, rtol=1e-5)
    np.testing.assert_allclose(alone[0][0], free[0][0], rtol=1e-6)
    assert 0.01 < cap.scale < 0.9
    np.testing.assert_allclose(cap.scale, terms.cap.scale, rtol=1e-5)
    for name in h:  # the cap's own lengths are of features and head; the features' direction is that of the terms
        np.testing.assert_allclose(alone[1][name], cap.scale * free[1][name], rtol=1e-3, atol=1e-6)


def test_a_task_loss_of_ones_own_from_the_terms_is_trained():
    """With w_task = 0, logits and z of the terms are differentiated, once and in full."""
    h = {name: jax.random.normal(jax.random.key(i), (64, 4)) for i, name in enumerate(("image", "text"))}
    labels, head = (h["image"][:, 0] > 0).astype(int), jax.random.normal(jax.random.key(2), (4, 2))

    def own(head, cap):
        config = c3r_jax.C3RConfig(w_task=0.0, cap=cap)
        terms = c3r_loss(lambda z: z @ head, lambda h, _: (h["image"] + h["text"]) / 2, h, labels, config=config)[1]
        return -jax.nn.log_softmax(terms.logits)[jnp.arange(64), labels].mean() + jnp.square(terms.z).mean()

    capped, free = (jax.jit(jax.grad(functools.partial(own, cap=cap)))(head) for cap in (1.0, 0.0))
    np.testing.assert_allclose(capped, free, rtol=1e-5)
    assert float(jnp.abs(capped).max()) > 0.01
