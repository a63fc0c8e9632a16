"""Runs as one program: equal to stepping by hand, alone or under vmap; batches that cover what they should."""

import dataclasses
import functools

import flax.linen as nn
import jax
import numpy as np
import optax
import pytest

from c3r_jax.core.config import C3RConfig
from c3r_jax.methods.method import Method
from c3r_jax.models.encoders.features import FeatureEncoder
from c3r_jax.models.fusion.representations import MaskedMean
from c3r_jax.models.twin import TwinNetwork
from c3r_jax.step import in_memory
from c3r_jax.step.in_memory import Rows, Structure, batch_plan, run_of, structure_of, train_on_arrays, weights_of
from c3r_jax.step.in_memory import model_of as model_module
from c3r_jax.step.state import init_state
from c3r_jax.step.train_step import train_step

CONFIG = C3RConfig.hinge(lambda_n=1.0)
STEPS, BATCH = 6, 32


def model_of(config: C3RConfig) -> TwinNetwork:
    return TwinNetwork({m: FeatureEncoder(4, (8,)) for m in "ab"}, MaskedMean(), nn.Dense(3), config, 4)


def rows_of(seed: int) -> Rows:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, 80)
    inputs = {m: (rng.normal(size=(80, 5)) + labels[:, None]).astype(np.float32) for m in "ab"}
    present = rng.random((80, 2)) < 0.9
    present[:, 0] |= ~present.any(1)
    return Rows(inputs, present, labels.astype(np.int32))


OPTIMIZER = optax.sgd(0.05, momentum=0.9)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_equals_stepping_by_hand(dropout):
    model, method = model_of(CONFIG), Method("c3r", True, CONFIG, dropout)
    rows, plan = rows_of(0), batch_plan(80, batch_size=BATCH, steps=STEPS, seed=3)
    run = jax.jit(functools.partial(train_on_arrays, model=model, method=method, optimizer=OPTIMIZER))
    state, metrics = run(rows, plan, 7)
    by_hand = init_state(model, OPTIMIZER, {"inputs": rows.inputs}, 7)
    step = jax.jit(functools.partial(train_step, model=model, method=method, optimizer=OPTIMIZER, moments_decay=0.9))
    for number, chosen in enumerate(plan):
        batch = {
            "inputs": {m: x[chosen] for m, x in rows.inputs.items()},
            "present": rows.present[chosen],
            "labels": rows.labels[chosen],
            "where": np.ones(BATCH, bool),
        }
        by_hand, values = step(by_hand, batch)
        np.testing.assert_allclose(metrics["loss"][number], values["loss"], rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), state, by_hand)
    assert int(state.step) == STEPS


@pytest.mark.parametrize("c3r", [CONFIG, C3RConfig()], ids=["hinge", "default"])
def test_vmapped_runs_equal_each_alone(c3r):
    """Different data, batches, seeds and weights at once."""
    model = model_of(c3r)
    seeds, weights = np.array([1, 2, 3]), np.array([0.0, 0.5, 2.0], np.float32)
    rows = [rows_of(seed) for seed in seeds]
    plans = [batch_plan(80, batch_size=BATCH, steps=STEPS, seed=int(seed)) for seed in seeds]

    def run(rows, plan, seed, weight):
        config = dataclasses.replace(c3r, lambda_n=weight)
        method = Method("c3r", True, config, 0.3)
        return train_on_arrays(rows, plan, seed, model=model, method=method, optimizer=OPTIMIZER)

    together = jax.jit(jax.vmap(run))(jax.tree.map(lambda *a: np.stack(a), *rows), np.stack(plans), seeds, weights)
    alone = jax.jit(run)
    finals = []
    for i in range(3):
        expected = alone(rows[i], plans[i], seeds[i], weights[i])
        own = jax.tree.map(lambda a, i=i: a[i], together)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), own, expected)
        finals.append(np.asarray(jax.tree.leaves(own[0].params)[0]))
    assert np.abs(finals[0] - finals[1]).max() > 1e-3
    assert ("cap_scale" in together[1]) == (c3r.cap > 0)


def test_weights_are_arguments_and_the_newer_parts_are_compiled_in():
    config = C3RConfig(lambda_n=0.5, cap=0.7)
    structure = Structure(("a", "b"), 3, (8,), 4, structure_of(config), True, 0.0)
    assert (structure.config.lambda_n, structure.config.cap, structure.config.subsets) == (1.0, 0.7, 0.95)
    rows, plan = rows_of(0), batch_plan(80, batch_size=BATCH, steps=STEPS, seed=3)
    params, losses = run_of(structure)(rows, plan, 7, weights_of(config), 0.05, 1e-3)
    model, method = model_module(structure)[0], Method("c3r", True, config, 0.0)
    run = functools.partial(train_on_arrays, model=model, method=method, optimizer=optax.adamw(0.05, weight_decay=1e-3))
    state, metrics = jax.jit(run)(rows, plan, 7)
    np.testing.assert_allclose(losses, metrics["loss"], rtol=1e-4)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), params, state.params)


@pytest.mark.parametrize("c3r", [C3RConfig(expert=0.5), C3RConfig.hinge()], ids=["strong", "hinge"])
def test_cap_and_experts_are_logged_where_there_are_any(c3r):
    rows, model = rows_of(0), model_of(c3r)
    run = functools.partial(train_on_arrays, model=model, method=Method("c3r", True, c3r, 0.0), optimizer=OPTIMIZER)
    _, metrics = jax.eval_shape(run, rows, np.zeros((STEPS, BATCH), np.int32), 7)
    newer = {name for name in metrics if name.startswith(("cap", "expert"))}
    assert newer == ({"cap_scale", "cap_limit", "expert_accuracy/a", "expert_accuracy/b"} if c3r.expert else set())


def test_the_gate_is_that_of_held_out_rows():
    """Held-out labels that follow nothing shut it; padding, and rows of no modality, do not count."""
    model, method = model_of(C3RConfig()), Method("c3r", True, C3RConfig(), 0.0)
    rows, plan = rows_of(0), batch_plan(80, batch_size=BATCH, steps=41, seed=3)
    held = rows_of(1)
    empty = jax.tree.map(lambda x: np.concatenate([x, np.zeros_like(x[:7])]), held)
    run = jax.jit(functools.partial(train_on_arrays, model=model, method=method, optimizer=OPTIMIZER))
    (_, free), (kept, own), (padded, same), (_, shut) = (
        run(rows, plan, 7, held=x)
        for x in (None, held, empty, held._replace(labels=np.random.default_rng(2).permutation(held.labels)))
    )
    explained = [np.asarray(found["explained"]) for found in (free, own, same, shut)]
    np.testing.assert_allclose(explained[1], explained[2], rtol=1e-4, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), kept.params, padded.params)
    assert explained[1][30:].min() > 0.3 and np.ptp(explained[1][30:40]) == 0  # measured every ten steps
    assert np.ptp(explained[0][30:40]) > 0  # of each batch
    assert explained[3].max() < 0.1, explained


def test_the_gate_is_shut_while_single_modalities_learn_rows_by_heart(monkeypatch):
    def noisy(seed):
        rows, rng = rows_of(seed), np.random.default_rng([seed, 1])
        inputs = {
            m: np.concatenate([x, rng.normal(size=(80, 40))], 1, dtype=np.float32) for m, x in rows.inputs.items()
        }
        return rows._replace(inputs=inputs)

    model, method = model_of(C3RConfig()), Method("c3r", True, C3RConfig(), 0.0)
    rows, plan = noisy(0), batch_plan(80, batch_size=BATCH, steps=71, seed=3)

    def compiled():
        return jax.jit(functools.partial(train_on_arrays, model=model, method=method, optimizer=optax.adam(0.01)))

    run = compiled()
    of_others, of_known = (run(rows, plan, 7, held=held)[1]["explained"] for held in (noisy(1), rows))
    monkeypatch.setattr(in_memory, "generalising_share", lambda *_: 1.0)
    without = compiled()(rows, plan, 7, held=noisy(1))[1]["explained"]
    assert of_others[-1] == 0 < 0.3 < min(without[-1], of_known[-1])


def test_an_epoch_is_a_permutation():
    plan = batch_plan(10, batch_size=5, steps=6, seed=0)
    assert plan.shape == (6, 5) and plan.dtype == np.int32
    epochs = plan.reshape(3, 10)
    assert (np.sort(epochs, axis=1) == np.arange(10)).all()
    assert (epochs[0] != epochs[1]).any()
    np.testing.assert_array_equal(plan, batch_plan(10, batch_size=5, steps=6, seed=0))
    assert (plan != batch_plan(10, batch_size=5, steps=6, seed=1)).any()
    assert batch_plan(3, batch_size=5, steps=2, seed=0).shape == (2, 3)


def test_weights_are_shares_of_the_draws():
    weights = np.array([0.0, 1.0, 2.5, 0.5, 0.0])
    counts = np.bincount(batch_plan(5, batch_size=5, steps=400, seed=1, weights=weights).ravel(), minlength=5)
    assert (np.abs(counts - 2000 * weights / weights.sum()) <= 1).all()
    assert counts[0] == counts[4] == 0
