"""Health checks of a run's numbers: broken parts of the state, spikes, collapse, and C3R at its limits."""

import dataclasses
import json
import types

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from c3r_jax.errors import NonFiniteError
from c3r_jax.evaluation.collapse import relative_spread
from c3r_jax.evaluation.watch import Baseline
from c3r_jax.experiments.experiment import build_experiment
from c3r_jax.methods.losses import INVALID
from c3r_jax.settings.train import TrainSettings
from c3r_jax.step.finite import BROKEN, broken_parts, first_non_finite, guarded
from c3r_jax.step.state import TrainState
from c3r_jax.training.health import Health, StepWatch, baseline_of


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
    broken = {**metrics, BROKEN: broken_parts(after)}
    words = {"params": "parameters", "opt_state": "optimiser", "instrument": "moments", "ema": "averaged parameters"}
    assert words[part] in str(first_non_finite({name: float(value) for name, value in broken.items()}))
    kept, found = guarded(lambda state, batch: (after, metrics), skip=True)(before, None)
    assert found[BROKEN] == broken[BROKEN]
    _, seen = guarded(lambda state, batch: (after, metrics), skip=False)(before, None)  # at once, or before it is saved
    assert seen[BROKEN] == (broken[BROKEN] if part == "instrument" else 0)
    chex.assert_trees_all_equal(kept, before._replace(step=jnp.int32(5)))


def test_frozen_parameters_are_not_checked():
    params = {"head": jnp.ones(2), "frozen": jnp.array([jnp.nan])}
    state = TrainState(jnp.int32(0), jnp.uint32(0), params, (), {}, {})
    for trained, broken in ((lambda p: {"head": p["head"]}, 0), (lambda p: {"rest": p["frozen"]}, 1)):
        assert broken_parts(state, trained=trained) == broken


def test_an_infinite_best_loss_of_the_plateau_is_none():
    state = TrainState(jnp.int32(0), jnp.uint32(0), {}, optax.contrib.reduce_on_plateau().init({}), {}, {})
    assert broken_parts(state) == 0


@pytest.fixture
def watched(tmp_path):
    """A watch over steps without a run, and what it writes."""
    lines = []
    log = types.SimpleNamespace(write=lambda step, split, values: lines.append((step, split, values)))
    checkpoints = types.SimpleNamespace(directory=tmp_path / "checkpoints", seal=lambda: None, steps=lambda: [])
    settings = TrainSettings(log_every=1000)
    baseline = Baseline(0.4, "the commonest label's share", 500, 5, 16)
    watch = StepWatch(dict, log, lambda step: 0.1, checkpoints, settings, Health(), lambda_n=3.0, baseline=baseline)
    return watch, lines


def test_a_state_is_looked_at_before_it_is_saved(watched):
    """An infinity in the optimiser's state, which makes an update 0 and shows in no loss."""
    watch, _ = watched
    batch = {"index": np.array([7]), "inputs": {}}
    watch.add(1, {"loss": 1.0, BROKEN: 0.0}, batch)
    watch.check(lambda: 0.0)
    watch.add(2, {"loss": 1.0, BROKEN: 0.0}, batch)
    with pytest.raises(NonFiniteError, match="step 2: the optimiser's state is not finite"):
        watch.check(lambda: 2.0)


def test_what_broke_in_a_step_is_said_where_the_kept_state_is_whole(watched):
    """A skipped step keeps the state from before it: looking at that state must not make the step a good one."""
    watch, _ = watched
    watch.add(3, {"loss": 1.0, BROKEN: 1.0}, {"index": np.array([7]), "inputs": {}})
    with pytest.raises(NonFiniteError, match="step 3: .* not finite"):
        watch.check(lambda: 0.0)


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
    watch.check_validation(8, {"z_spread": 0.3})
    watch.check_validation(8, {"risk_total": 0.3})
    assert not caplog.text
    watch.check_validation(8, {"z_spread": relative_spread(np.ones((9, 3)) + 1e-5 * np.eye(9, 3))})
    assert "step 8: the representation has collapsed" in caplog.text and "lower lambda_n" in caplog.text


def test_worse_than_a_constant_is_said_once_and_not_at_the_beginning(watched, caplog):
    watch, lines = watched
    watch.check_validation(10, {"accuracy": 0.2, "nll": 1.6})
    watch.check_validation(20, {"accuracy": 0.5, "nll": 1.4})
    watch.check_validation(30, {"accuracy": 0.37, "nll": 1.4})  # within two standard errors of 0.4
    assert not lines and watch.health.below == 0
    for step in (40, 50, 60):
        watch.check_validation(step, {"accuracy": 0.2, "nll": 1.6})
    assert lines == [(50, "below_constant", {"accuracy": 0.2, "constant": 0.4})]
    assert "step 50: validation accuracy 0.200 is below the commonest label's share 0.400" in caplog.text
    assert "lower config.c3r.strength" in caplog.text and "inverted labels" not in caplog.text
    # What was said before is not said by a run that goes on from a checkpoint.
    watch.health = Health(**json.loads(json.dumps(dataclasses.asdict(watch.health))))
    watch.check_validation(70, {"accuracy": 0.2, "nll": 1.6}, last=True)
    assert len(lines) == 1


def test_an_error_above_that_of_a_constant_is_said(watched, caplog):
    watch, lines = watched
    for error, accuracy in ((1.15, 0.4), (1.3, 0.4)):
        watch._baseline = Baseline(0.4, "", 500, 0, 0, (1.0, 0.1))
        watch.check_validation(10, {"accuracy": accuracy, "mae": error}, last=True)
    assert lines == [(10, "below_constant", {"error": 1.3, "constant": 1.0})]
    assert "validation mean absolute error 1.3 is above the 1 of the training median" in caplog.text


@pytest.mark.parametrize(("accuracy", "loss"), [(0.3, 2.6), (0.05, 1.5)])
def test_inverted_labels_are_called_by_name(watched, caplog, accuracy, loss):
    watch, lines = watched
    watch.check_validation(10, {"accuracy": accuracy, "nll": loss}, last=True)
    assert [split for _, split, _ in lines] == ["below_constant", "inverted_labels"]
    assert f"labels are inverted: validation accuracy is {accuracy:.3f} where guessing has 0.200" in caplog.text


@pytest.mark.parametrize(("rows", "words"), [(3, "means nothing"), (40, "is mostly noise"), (65, None)])
def test_a_first_stage_with_too_few_rows_is_said(watched, caplog, rows, words):
    watch, lines = watched
    for step in range(1, 61):
        watch.add(step, {"loss": 1.0, BROKEN: 0.0, "first_stage_rows": rows + (-1.0) ** step}, {})
    watch.check()
    expected = [(20, "first_stage_rows", {"rows": rows, "instruments": 16.0})] if words else []
    assert lines == expected
    assert (f"step 20: the first stage {words}: {rows:.1f} rows" in caplog.text) == bool(words)


def test_terms_that_would_overrule_the_task_are_said(watched, caplog):
    watch, lines = watched
    for step in range(1, 201):
        scale = 0.15 if step <= 10 or step > 100 else 0.3  # gentle cuts are usual
        watch.add(step, {"loss": 1.0, BROKEN: 0.0, "cap_scale": scale, "cap_limit": 1.0}, {})
    watch.check()
    assert lines == [(126, "capped", {"share": 26 / 50, "steps": 50.0})]
    assert (
        "would overrule the task: in 52% of the last 50 steps" in caplog.text and "config.c3r.strength" in caplog.text
    )


def test_terms_that_the_gate_holds_back_overrule_nothing(watched):
    watch, lines = watched
    for step in range(1, 101):
        watch.add(step, {"loss": 1.0, BROKEN: 0.0, "cap_scale": 0.05, "cap_limit": 0.1}, {})
    watch.check()
    assert lines == []


def test_what_a_run_is_compared_with(small_config):
    experiment = build_experiment(small_config)
    found = baseline_of(experiment)
    train, validation = (experiment.sources[split].labels for split in ("train", "validation"))
    assert found.constant == np.mean(validation == np.bincount(train).argmax())
    assert found[2:5] == (len(validation), 9, 4)  # two modalities: the instrument is the other one's representation
    small_config.method = "plain"
    assert baseline_of(build_experiment(small_config)).num_instruments == 0 and np.isnan(found.error).all()


def test_examples_with_inputs_that_are_not_finite_are_named(watched, tmp_path):
    watch, _ = watched
    inputs = {"a": np.zeros((3, 2), np.float32), "text": np.zeros((3, 4), np.int32)}
    inputs["a"][1, 0] = np.nan
    watch.add(1, {"loss": np.nan, BROKEN: 0.0}, {"index": np.array([7, 8, 9]), "inputs": inputs})
    with pytest.raises(NonFiniteError, match="loss is nan"):
        watch.check()
    assert '"a": [\n   8\n  ]' in (tmp_path / "non_finite" / "step-1.json").read_text()


def test_labels_out_of_range_are_named(watched, tmp_path):
    watch, lines = watched
    inputs = {"a": np.zeros((3, 2), np.float32)}
    watch.add(1, {"loss": 1.0, BROKEN: 0.0, INVALID: 0.0}, {})  # the usual: not said
    watch.add(2, {"loss": np.nan, BROKEN: 0.0, INVALID: 2.0}, {"index": np.array([7, 8, 9]), "inputs": inputs})
    message = "step 2: loss is nan, for 2 examples have a label that is no class of the model.*: correct their labels"
    with pytest.raises(NonFiniteError, match=message):
        watch.check()
    assert [INVALID in values for _, _, values in lines][-1:] == [True] and '"invalid_labels": 2.0' in (
        tmp_path / "non_finite" / "step-2.json"
    ).read_text()
