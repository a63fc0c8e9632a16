"""config.eval.calibrate: fitted on validation rows, and part of every prediction of results and exports."""

import jax
import numpy as np
import pytest

from c3r_jax.errors import ConfigError
from c3r_jax.evaluation.evaluate import evaluate
from c3r_jax.experiments.calibrate import fitted_calibration
from c3r_jax.experiments.encode import encode_split, without_encoders
from c3r_jax.experiments.experiment import build_experiment
from c3r_jax.experiments.open import open_run, restore_best, training_moments
from c3r_jax.export.stablehlo import flat_weights, prediction
from c3r_jax.metrics.biases import fit_biases
from c3r_jax.metrics.classification import classification_metrics
from c3r_jax.models.twin import with_moments
from c3r_jax.training.loop import fit


def test_results_and_exports_are_calibrated_on_validation_rows(small_config, tmp_path):
    small_config.eval.calibrate, small_config.eval.protocols = "biases", ()
    small_config.train.steps = small_config.train.eval_every = 4
    fit(small_config, tmp_path)
    results = evaluate(tmp_path)
    experiment = open_run(tmp_path)
    _, params = restore_best(experiment, tmp_path)
    moments = training_moments(experiment, params)
    fitted = fitted_calibration(experiment, params, moments)
    after = experiment.devices.host(without_encoders(params))

    def logits(split):
        h, present, labels, _ = encode_split(experiment, params, split)
        return experiment.branches(after, moments, h, present, labels).logits, labels

    known, labels = logits("validation")
    unseen, test_labels = logits("test")
    clean = results["conditions"][0]["routes"]
    for route, found in fitted.items():
        expected = fit_biases(known[route], labels)
        np.testing.assert_allclose(found.bias, expected.bias, atol=1e-4)
        assert results["calibration"][route]["temperature"] == pytest.approx(found.temperature, rel=1e-4)
        scores = classification_metrics(found(unseen[route]), test_labels)
        assert clean[route]["nll"] == pytest.approx(scores["nll"], rel=1e-4)
        assert clean[route]["nll"] != pytest.approx(classification_metrics(unseen[route], test_labels)["nll"], rel=1e-4)

    batch = next(experiment.eval_iterator("test"))
    variables = with_moments({"params": experiment.devices.host(params)}, moments)
    predict = jax.jit(prediction(experiment.model, experiment.standardisation))
    plain, calibrated = (
        predict(flat_weights(variables, experiment.standardisation, given), batch["inputs"], batch["present"])
        for given in ({}, fitted)
    )
    for route, found in fitted.items():
        np.testing.assert_allclose(calibrated[route], found(np.asarray(plain[route])), atol=1e-5)


def test_biases_are_for_one_class_per_example(small_config):
    small_config.task, small_config.eval.calibrate = "softmax", "biases"
    small_config.c3r.necessity = "hinge"
    with pytest.raises(ConfigError, match=r"config.eval.calibrate is 'biases'.*config.task is 'softmax'"):
        build_experiment(small_config)
