"""Runs on features and sequences: trained, kept with the means of their training split, and evaluated with those."""

import numpy as np
import pytest

from c3r_jax.data.array_source import ArraySource
from c3r_jax.data.catalogue import SOURCES
from c3r_jax.data.sets.standardised import standardisation_from_json
from c3r_jax.data.source import DatasetInfo
from c3r_jax.evaluation.evaluate import evaluate
from c3r_jax.evaluation.run_scores import NO_INSTRUMENT
from c3r_jax.experiments.experiment import build_experiment
from c3r_jax.training.loop import fit

SIZES = {"train": 96, "validation": 32, "test": 32}


@pytest.fixture
def scales():
    """What the training split is multiplied with."""
    return {"train": 1.0}


@pytest.fixture
def config(small_config, monkeypatch, scales):
    def load(split, **how):
        rng = np.random.default_rng(list(SIZES).index(split))
        labels = rng.integers(0, 3, SIZES[split])
        table = (labels[:, None] + 0.3 * rng.standard_normal((len(labels), 2))) * (1e-3, 1e3)
        sound = labels[:, None, None] + 0.3 * rng.standard_normal((len(labels), 6, 2)) + 50
        columns = {"sound": sound * scales.get(split, 1), "table": table * scales.get(split, 1)}
        columns = {name: value.astype(np.float32) for name, value in columns.items()}
        return ArraySource(columns, labels, info=DatasetInfo("made", ("sound", "table"), ("a", "b", "c")))

    monkeypatch.setitem(SOURCES, "emoji", (load, tuple(SIZES)))
    small_config.model.features.hidden = (8,)
    small_config.model.sequence.width, small_config.model.sequence.depth = 8, 0
    small_config.eval.protocols = ()
    small_config.method, small_config.c3r.instrument = "plain", "none"  # less to compile
    small_config.optimizer.learning_rate = 3e-2
    small_config.train.steps = small_config.train.eval_every = 25
    return small_config


def test_evaluation_uses_what_training_measured(config, tmp_path, scales):
    fit(config, tmp_path)
    text = (tmp_path / "standardisation.json").read_text()
    np.testing.assert_allclose(standardisation_from_json(text).mean["sound"], 51, atol=0.3)
    results = evaluate(tmp_path)
    assert NO_INSTRUMENT in results["warnings"]
    scores = results["conditions"]
    assert scores[0]["routes"]["representation"]["accuracy"] > 0.7  # both scales are learned from
    assert build_experiment(config).standardisation.to_json() == text  # as a run that goes on measures it
    scales["train"] = 10.0
    assert evaluate(tmp_path)["conditions"] == scores
    assert build_experiment(config).standardisation.to_json() != text


def test_it_can_be_switched_off(config):
    config.data.standardise = False
    made = build_experiment(config)
    assert made.standardisation.mean == {} and isinstance(made.sources["train"], ArraySource)
