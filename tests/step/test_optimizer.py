"""Optimisers and schedules by name: what each does to a parameter, by its formula."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from c3r_jax.errors import ConfigError
from c3r_jax.settings.optimizer import OptimizerSettings
from c3r_jax.step.optimizer import build_optimizer, build_schedule, plateau_scale

GRADIENT = np.array([0.3, -2.0, 0.0])
START = np.array([1.0, -1.0, 2.0])


def made(**changes):
    """Plain settings of an optimiser, with some changes."""
    plain = {"learning_rate": 0.1, "weight_decay": 0.01, "warmup_steps": 0, "schedule": "constant", "clip_norm": 0.0}
    return OptimizerSettings(**plain | changes)


def step(settings, losses=(1.0,), steps=100):
    """The parameter after one update per loss, always with the same gradient, and the plateau's scale after each."""
    optimizer = optax.with_extra_args_support(build_optimizer(settings, steps))
    params = jnp.asarray(START)
    state, scales = optimizer.init(params), []
    update = jax.jit(optimizer.update)
    for loss in losses:
        updates, state = update(jnp.asarray(GRADIENT), state, params, value=jnp.float32(loss))
        params = optax.apply_updates(params, updates)
        scales.append(plateau_scale(state))
    return np.asarray(params), scales


def adam(gradient):
    return gradient / (np.abs(gradient) + 1e-8)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("adamw", START - 0.1 * (adam(GRADIENT) + 0.01 * START)),
        ("adam", START - 0.1 * adam(GRADIENT + 0.01 * START)),
        ("sgd", START - 0.1 * (GRADIENT + 0.01 * START)),
        ("lion", START - 0.1 * (np.sign(GRADIENT) + 0.01 * START)),
        # A vector has no factors: in the first step its second moment is its square, and the decay follows the rate.
        ("adafactor", START - 0.1 * (np.sign(GRADIENT) / max(1.0, np.sqrt(2 / 3)) + 0.01 * START)),
    ],
)
def test_first_update_of_every_optimizer(name, expected):
    np.testing.assert_allclose(step(made(name=name))[0], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd", "lion", "adafactor"])
def test_single_numbers_do_not_decay(name):
    """As a temperature is one. All else is as with Optax's own, down to the state that checkpoints hold."""
    params = {"kernel": jnp.asarray(START), "log_scale": jnp.float32(3.0)}
    optimizer = build_optimizer(made(name=name), 100)
    state = optimizer.init(params)
    updates, _ = optimizer.update(jax.tree.map(jnp.zeros_like, params), state, params)
    assert updates["log_scale"] == 0
    np.testing.assert_allclose(
        updates["kernel"], -0.1 * (adam(0.01 * START) if name == "adam" else 0.01 * START), rtol=1e-5
    )
    own = {"adamw": optax.adamw(lambda step: 0.1, weight_decay=0.01), "lion": optax.lion(lambda step: 0.1)}
    if name in own:
        assert jax.tree.structure(own[name].init(params)) == jax.tree.structure(state)


def test_clipping_scales_the_global_gradient():
    settings = made(name="sgd", weight_decay=0.0, clip_norm=0.5)
    expected = START - 0.1 * GRADIENT * 0.5 / np.linalg.norm(GRADIENT)
    np.testing.assert_allclose(step(settings)[0], expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "middle", "end"),
    [("cosine", 0.05, 0.0), ("linear", 0.05, 0.0), ("constant", 0.1, 0.1), ("plateau", 0.1, 0.1)],
)
def test_schedules_after_a_linear_warm_up(name, middle, end):
    schedule = build_schedule(made(schedule=name, warmup_steps=20), 120)
    np.testing.assert_allclose([schedule(i) for i in range(21)], 0.1 * np.minimum(np.arange(1, 22) / 21, 1), rtol=1e-5)
    np.testing.assert_allclose([schedule(70), schedule(120)], [middle, end], rtol=1e-5, atol=1e-8)


def test_plateau_lowers_the_rate_when_the_loss_stops_falling():
    """Windows of 3 steps and patience 2: two complete windows without a better mean halve the rate, once."""
    settings = made(name="sgd", schedule="plateau", plateau_window=3, plateau_patience=2, plateau_factor=0.5)
    assert step(settings, [1.0] * 12)[1] == [1.0] * 8 + [0.5] * 4
    assert set(map(float, step(settings, [0.9**i for i in range(30)])[1])) == {1.0}
    assert step(made(name="sgd"))[1] == [None]


def test_plateau_scales_the_update_itself():
    settings = made(name="sgd", schedule="plateau", weight_decay=0.0, plateau_window=1, plateau_patience=1)
    # Momentum makes the steps g, 1.9 g; the second reading is no better, so its update is halved.
    np.testing.assert_allclose(step(settings, [1.0, 1.0])[0], START - 0.1 * GRADIENT * (1 + 1.9 * 0.5), rtol=1e-5)


@pytest.mark.parametrize(
    ("leaf", "value", "message"),
    [
        ("plateau_factor", 1.0, "plateau_factor is 1.0: expected 0 < factor < 1"),
        ("plateau_window", 0, "plateau_window is 0: expected a whole number"),
        ("plateau_patience", 0, "plateau_patience is 0: expected a whole number"),
    ],
)
def test_unusable_plateaus_are_refused(leaf, value, message):
    with pytest.raises(ConfigError, match=message):
        made(**{leaf: value})


def test_adafactor_keeps_vectors_for_matrices():
    state = build_optimizer(made(name="adafactor"), 10).init({"w": jnp.zeros((256, 512))})
    assert sum(leaf.size for leaf in jax.tree.leaves(state)) < 1000
