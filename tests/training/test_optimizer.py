"""Optimisers and schedules by name: what each does to a parameter, by its formula."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from c3r_jax.errors import ConfigError
from c3r_jax.training.optimizer import build_optimizer, build_schedule, plateau_scale
from configs.base import get_config

GRADIENT = np.array([0.3, -2.0, 0.0])
START = np.array([1.0, -1.0, 2.0])


@pytest.fixture
def config():
    config = get_config().optimizer
    config.learning_rate, config.weight_decay, config.warmup_steps = 0.1, 0.01, 0
    config.schedule, config.clip_norm = "constant", 0.0
    return config


def step(config, losses=(1.0,), steps=100):
    """The parameter after one update per loss, always with the same gradient, and the plateau's scale after each."""
    optimizer = optax.with_extra_args_support(build_optimizer(config, steps))
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
def test_first_update_of_every_optimizer(config, name, expected):
    config.name = name
    np.testing.assert_allclose(step(config)[0], expected, rtol=1e-5, atol=1e-6)


def test_clipping_scales_the_global_gradient(config):
    config.name, config.weight_decay, config.clip_norm = "sgd", 0.0, 0.5
    expected = START - 0.1 * GRADIENT * 0.5 / np.linalg.norm(GRADIENT)
    np.testing.assert_allclose(step(config)[0], expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "middle", "end"),
    [("cosine", 0.05, 0.0), ("linear", 0.05, 0.0), ("constant", 0.1, 0.1), ("plateau", 0.1, 0.1)],
)
def test_schedules_after_a_linear_warm_up(config, name, middle, end):
    config.schedule, config.warmup_steps = name, 20
    schedule = build_schedule(config, 120)
    np.testing.assert_allclose([schedule(i) for i in range(21)], 0.1 * np.minimum(np.arange(1, 22) / 21, 1), rtol=1e-5)
    np.testing.assert_allclose([schedule(70), schedule(120)], [middle, end], rtol=1e-5, atol=1e-8)


def test_plateau_lowers_the_rate_when_the_loss_stops_falling(config):
    """Windows of 3 steps and patience 2: two whole windows without a better mean halve the rate, once."""
    config.name, config.schedule = "sgd", "plateau"
    config.plateau_window, config.plateau_patience, config.plateau_factor = 3, 2, 0.5
    assert step(config, [1.0] * 12)[1] == [1.0] * 8 + [0.5] * 4
    assert set(map(float, step(config, [0.9**i for i in range(30)])[1])) == {1.0}
    config.schedule = "constant"
    assert step(config)[1] == [None]


def test_plateau_scales_the_update_itself(config):
    config.name, config.schedule, config.weight_decay = "sgd", "plateau", 0.0
    config.plateau_window, config.plateau_patience = 1, 1
    # Momentum makes the steps g, 1.9 g; the second reading is no better, so its update is halved.
    np.testing.assert_allclose(step(config, [1.0, 1.0])[0], START - 0.1 * GRADIENT * (1 + 1.9 * 0.5), rtol=1e-5)


@pytest.mark.parametrize(
    ("leaf", "value", "message"),
    [
        ("plateau_factor", 1.0, "plateau_factor is 1.0: expected 0 < factor < 1"),
        ("plateau_window", 0, "plateau_window is 0: expected a whole number"),
        ("plateau_patience", 0, "plateau_patience is 0: expected a whole number"),
    ],
)
def test_unusable_plateaus_are_refused(config, leaf, value, message):
    config.schedule = "plateau"
    config[leaf] = value
    with pytest.raises(ConfigError, match=message):
        build_optimizer(config, 10)


def test_adafactor_keeps_vectors_for_matrices(config):
    config.name = "adafactor"
    state = build_optimizer(config, 10).init({"w": jnp.zeros((256, 512))})
    assert sum(leaf.size for leaf in jax.tree.leaves(state)) < 1000
