"""Validation while a run trains: parameters are scored with their own moments, as after training."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import c3r_jax.evaluation.explained as explained
import c3r_jax.evaluation.validate as validation
from c3r_jax.core.held_out import held_out_share
from c3r_jax.evaluation.conditions import conditions_of
from c3r_jax.evaluation.explained import measures_share
from c3r_jax.evaluation.run_scores import scored_run
from c3r_jax.evaluation.validate import validate, validation_moments
from c3r_jax.experiments.encode import encode_split, without_encoders
from c3r_jax.experiments.experiment import build_experiment
from c3r_jax.models.branches import measured_risk
from c3r_jax.models.twin import apply
from c3r_jax.report.cells import number
from c3r_jax.report.plots import series_of
from c3r_jax.report.tables import RISK_NAMES, risks_table
from c3r_jax.step.train_step import step_columns


def test_averaged_parameters_are_scored_with_moments_of_their_own(small_config):
    """The trained parameters and their running moments are far off: no score shows it."""
    small_config.train.ema_decay = 0.9
    experiment = build_experiment(small_config)
    made = jax.device_get(jax.jit(experiment.state_maker())())
    trained = jax.tree.map(lambda x: 3 * x + 1, made.params)
    state = experiment.devices.put(
        made._replace(params=trained, instrument=jax.tree.map(lambda x: jnp.full_like(x, 7), made.instrument))
    )
    scores = validate(experiment, state)

    averaged = experiment.devices.put(made.ema)
    h, present, *_ = encode_split(experiment, averaged, "train")
    exact = experiment.branches.measure_moments(made.ema, h, present)
    alone = made._replace(ema={}, instrument=exact._asdict())
    expected = validate(experiment, experiment.devices.put(alone))
    assert scores.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(scores[name], value, atol=1e-6, err_msg=name)
    h, present, labels, _ = encode_split(experiment, averaged, "validation")
    wrong = exact._replace(**jax.tree.map(lambda x: np.full_like(x, 7), exact._asdict()))
    off = measured_risk(experiment.branches(made.ema, wrong, h, present, labels), labels)  # and it would show
    assert abs(off.total - expected["risk_total"]) > 0.05


def test_risks_during_training_are_those_of_the_results(small_config):
    """One definition: the picture's point at the chosen step is the table's number of the same split."""
    small_config.eval.split = "validation"
    experiment = build_experiment(small_config)
    made = jax.device_get(jax.jit(experiment.state_maker())())
    running = jax.tree.map(lambda x: jnp.full_like(x, 7), made.instrument)
    state = experiment.devices.put(made._replace(instrument=running))
    history = [{"step": 12, "split": "validation", "values": validate(experiment, state)}]
    clean = [condition for condition in conditions_of(experiment, ()) if condition.group == "clean"]
    results = scored_run(experiment, state.evaluated, clean)
    for risk in ("sufficiency", "necessity", "total", "lower", "upper", "joint"):
        np.testing.assert_allclose(history[0]["values"][f"risk_{risk}"], results["risk"][risk], atol=1e-6, err_msg=risk)
    shown = {row[0]: row[1].split(" ")[0] for row in risks_table([results]).rows}
    for risk in ("sufficiency", "necessity"):
        assert shown[RISK_NAMES[risk]] == number(series_of([history], f"risk_{risk}", "validation")[12].mean)


def test_moments_of_a_large_training_split_are_those_of_some_of_it(small_config, monkeypatch):
    experiment = build_experiment(small_config)
    state = experiment.devices.put(jax.device_get(jax.jit(experiment.state_maker())()))
    count = len(experiment.sources["train"])
    assert validation_moments(experiment, state).count == count
    monkeypatch.setattr(validation, "MOST", 64)  # one batch
    first, second = (validation_moments(experiment, state) for _ in range(2))
    assert first.count == second.count == 64 < count
    np.testing.assert_array_equal(first.cov, second.cov)


def test_the_explained_share_is_that_of_validation_examples(small_config, monkeypatch):
    """Of the split's own rows with the training split's first stage; of evenly spaced ones where there are many."""
    small_config.optimizer.learning_rate = 0.03
    small_config.c3r.necessity = "kl"  # with which a few steps are enough for a share above 0
    experiment = build_experiment(small_config)
    state, batches = experiment.first_state(), experiment.train_iterator()
    for _ in range(12):  # an untrained network's predictions are worth nothing, so nothing of them is explained
        state, _ = experiment.step(state, experiment.devices.split(step_columns(next(batches), explained=1.0)))
    batches.close()
    found = validate(experiment, state)["explained"]
    params = experiment.devices.host(state.params)
    train, present, *_ = encode_split(experiment, state.params, "train")
    moments = experiment.branches.measure_moments(without_encoders(params), train, present)
    h, present, labels, _ = encode_split(experiment, state.params, "validation")
    model = experiment.model
    fuse, predict = (functools.partial(apply, model, {"params": params}, part) for part in (model.fuse, model.predict))

    def share(rows):
        of = {name: value[rows] for name, value in h.items()}
        shared = {"config": model.c3r, "present": present[rows]}
        return float(held_out_share(predict, fuse, of, labels[rows], moments, **shared))

    everything = np.arange(len(labels))
    np.testing.assert_allclose(found, share(everything), rtol=1e-4, atol=1e-6)
    monkeypatch.setattr(explained, "MOST", 30)
    some = np.linspace(0, len(labels) - 1, 30).round().astype(int)
    assert len(labels) > 60 and some[-1] == len(labels) - 1
    np.testing.assert_allclose(validate(experiment, state)["explained"], share(some), rtol=1e-4, atol=1e-6)
    assert 0 < found < 1 and abs(share(some) - found) > 1e-4


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, True),
        ({"method": "plain"}, False),
        ({"c3r.gate": False}, False),
        ({"c3r.strength": 0.0}, False),
        ({"c3r.instrument": "none"}, False),
        ({"task": "softmax"}, False),
    ],
)
def test_only_where_there_is_a_gate_is_the_share_measured(small_config, changed, expected):
    small_config.update_from_flattened_dict(changed)
    experiment = build_experiment(small_config)
    assert measures_share(experiment) is expected and explained.unmeasured_note(experiment) is None


def test_of_few_examples_no_share_is_measured(small_config, monkeypatch):
    experiment = build_experiment(small_config)
    monkeypatch.setattr(explained, "FEWEST", len(experiment.sources["validation"]) + 1)
    assert not measures_share(experiment)
    assert "the validation split has" in (explained.unmeasured_note(experiment) or "")
