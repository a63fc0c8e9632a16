"""Health checks of a run's numbers: broken parts of the state, loss spikes, a collapsed representation."""

import types

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from c3r_jax.errors import NonFiniteError
from c3r_jax.evaluation.collapse import relative_spread
from c3r_jax.settings.train import TrainSettings
from c3r_jax.step.finite import BROKEN, first_non_finite, guarded
from c3r_jax.step.state import TrainState
from c3r_jax.training.health import Health, StepWatch


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("params", {"w": jnp.array([1.0, jnp.nan])}),
        ("opt_state", optax.ScaleByAdamState(jnp.int32(3), {"w": jnp.zeros(2)}, {"w": jnp.array([jnp.inf, 1.0])})),
        ("instrument", {"count": jnp.array(jnp.nan)}),
        ("ema", {"w": jnp.array([-jnp.inf, 0.0])}),
    ],
)
def test_every_part_of_the_state_is_checked(part, value):
    fine = TrainState(jnp.int32(4), jnp.uint32(0), {"w": jnp.ones(2)}, (), {}, {})
    before = fine._replace(**{part: jax.tree.map(jnp.zeros_like, value)})
    after = fine._replace(step=jnp.int32(5), **{part: value})
    metrics = {"loss": jnp.array(1.0), "gradient_norm": jnp.array(1.0)}
    _, metrics_after = guarded(lambda state, batch: (after, metrics), skip=False)(before, None)
    words = {"params": "parameters", "opt_state": "optimiser", "instrument": "moments", "ema": "averaged parameters"}
    assert words[part] in str(first_non_finite({name: float(value) for name, value in metrics_after.items()}))
    kept, _ = guarded(lambda state, batch: (after, metrics), skip=True)(before, None)
    chex.assert_trees_all_equal(kept, before._replace(step=jnp.int32(5)))


def test_frozen_parameters_are_not_checked():
    params = {"head": jnp.ones(2), "frozen": jnp.array([jnp.nan])}
    state = TrainState(jnp.int32(0), jnp.uint32(0), params, (), {}, {})
    for trained, broken in ((lambda p: {"head": p["head"]}, 0), (lambda p: {"rest": p["frozen"]}, 1)):
        step = guarded(lambda state, batch: (state, {"loss": jnp.array(1.0)}), skip=False, trained=trained)
        assert step(state, None)[1][BROKEN] == broken


def test_an_infinite_best_loss_of_the_plateau_is_none():
    state = TrainState(jnp.int32(0), jnp.uint32(0), {}, optax.contrib.reduce_on_plateau().init({}), {}, {})
    assert guarded(lambda state, batch: (state, {"loss": jnp.array(1.0)}), skip=False)(state, None)[1][BROKEN] == 0


@pytest.fixture
def watched(tmp_path):
    """A watch over steps without a run, and what it writes."""
    lines = []
    log = types.SimpleNamespace(write=lambda step, split, values: lines.append((step, split, values)))
    checkpoints = types.SimpleNamespace(directory=tmp_path / "checkpoints", seal=lambda: None, steps=lambda: [])
    settings = TrainSettings(log_every=1000)
    return StepWatch(dict, log, lambda step: 0.1, checkpoints, settings, Health(), lambda_n=3.0), lines


def test_spikes_are_reported(watched, caplog):
    watch, lines = watched
    noise = np.random.default_rng(0).normal(size=200)
    for step in range(1, 201):
        loss = 3.0 / step + 0.05 * noise[step - 1] + (2.0 if step in (10, 90) else 0.0)
        watch.add(step, {"loss": loss, BROKEN: 0.0}, {})
    watch.check()
    assert [(step, split) for step, split, _ in lines] == [(90, "spike")]  # at step 10 nothing is usual yet
    assert lines[0][2]["loss"] > 1.9 and abs(lines[0][2]["usual"]) < 0.3
    assert "step 90: the loss spikes" in caplog.text


def test_collapse_is_reported(watched, caplog):
    watch, _ = watched
    watch.check_collapse(8, {"z_spread": 0.3})
    watch.check_collapse(8, {"risk_total": 0.3})
    assert not caplog.text
    watch.check_collapse(8, {"z_spread": relative_spread(np.ones((9, 3)) + 1e-5 * np.eye(9, 3))})
    assert "step 8: the representation has collapsed" in caplog.text and "lower lambda_n" in caplog.text


def test_examples_with_inputs_that_are_not_finite_are_named(watched, tmp_path):
    watch, _ = watched
    inputs = {"a": np.zeros((3, 2), np.float32), "text": np.zeros((3, 4), np.int32)}
    inputs["a"][1, 0] = np.nan
    watch.add(1, {"loss": np.nan, BROKEN: 0.0}, {"index": np.array([7, 8, 9]), "inputs": inputs})
    with pytest.raises(NonFiniteError, match="loss is nan"):
        watch.check()
    assert '"a": [\n   8\n  ]' in (tmp_path / "non_finite" / "step-1.json").read_text()
