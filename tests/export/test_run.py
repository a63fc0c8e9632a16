"""An export is compared with the run on rows as users have them: no fault of the exported program goes unseen."""

import numpy as np
import pytest

from c3r_jax.data.array_source import ArraySource
from c3r_jax.data.catalogue import SOURCES
from c3r_jax.data.source import DatasetInfo
from c3r_jax.errors import CheckpointError
from c3r_jax.experiments.experiment import build_experiment
from c3r_jax.export import run, stablehlo
from c3r_jax.export.loader import load
from configs import base

SIZES = {"train": 64, "validation": 32, "test": 24}


def features(split, **how):
    """Columns of very different sizes, and sequences with padding; some rows lack a modality."""
    del how
    rng, n = np.random.default_rng(list(SIZES).index(split)), SIZES[split]
    table = rng.normal(size=(n, 2)) * (50, 1e-4) + (1000, 0)
    sound = rng.normal(size=(n, 4, 2)) + 30
    sound[::3, 2:] = 0
    present = np.ones((n, 2), bool)
    present[::5, 0] = False
    columns = {"sound": sound.astype(np.float32), "table": table.astype(np.float32)}
    info = DatasetInfo("made", ("sound", "table"), ("a", "b", "c"))
    return ArraySource(columns, rng.integers(0, 3, n), present=present, info=info)


def volumes(split, **how):
    """Small volumes with a class per voxel."""
    del how
    labels = np.random.default_rng(list(SIZES).index(split)).integers(0, 3, (SIZES[split] // 4, 2, 2, 2))
    columns = {name: labels[..., None].astype(np.float32) for name in ("t1", "t2")}
    info = DatasetInfo("volumes", ("t1", "t2"), ("a", "b", "c"), task="segmentation")
    return ArraySource(columns, labels, info=info)


@pytest.fixture
def exported(monkeypatch, tmp_path):
    """Exports a network as it is before the first step; returns its experiment and the difference."""

    def export(source, scale=1.0, **leaves):
        monkeypatch.setitem(SOURCES, "made", (source, tuple(SIZES)))
        config = base.get_config()
        config.data.name, config.task = "made", source("train").info.task
        config.model.dim, config.model.features.hidden, config.model.volume.width = 3, (8,), 4
        config.model.sequence.width, config.model.sequence.depth, config.model.volume.depth = 8, 0, 1
        config.train.batch_size = config.eval.batch_size = 8 if source is volumes else 32
        for name, value in leaves.items():
            config.eval[name] = value
        experiment = build_experiment(config)
        state = experiment.devices.init(experiment.state_maker())
        head = state.params["head"]
        params = {**state.params, "head": {name: value * scale for name, value in head.items()}}
        monkeypatch.setattr(run, "open_run", lambda workdir: experiment)
        monkeypatch.setattr(run, "restore_best", lambda *a: (0, params))
        return experiment, run.export_run(tmp_path, tmp_path / "out")

    return export


@pytest.mark.parametrize("calibrate", ["none", "biases"])
def test_rows_are_standardised_once(exported, tmp_path, calibrate):
    experiment, difference = exported(features, calibrate=calibrate)
    assert difference < 1e-5
    table = features("test")[1]["table"]
    logits = load(tmp_path / "out").predict([{"table": table}])["representation"]
    assert np.abs(logits).max() < 100  # twice standardised, the column of 1e-4 would be of the size of 1e8
    np.testing.assert_array_equal(experiment.raw["test"][1]["table"], table)


def test_large_logits_may_differ_by_more(exported):
    _, difference = exported(features, scale=1e6)
    assert 1e-4 < difference < 1e3


def test_maps_are_compared_voxel_by_voxel(exported):
    assert exported(volumes)[1] < 1e-5


@pytest.mark.parametrize("part", ["mean/table", "scale/sound"])
def test_wrong_standardisation_is_refused(exported, monkeypatch, part):
    def tampered(*arguments):
        weights = stablehlo.flat_weights(*arguments)
        return {**weights, f"standardisation/{part}": weights[f"standardisation/{part}"] * 1.01}

    monkeypatch.setattr(run, "flat_weights", tampered)
    with pytest.raises(CheckpointError, match="differs from the model by"):
        exported(features)


def test_a_fault_of_the_exported_program_is_refused(exported, monkeypatch):
    def faulty(model, standardisation):
        right = prediction(model, standardisation)
        return lambda weights, inputs, present: right(weights, inputs, present | True)

    prediction = stablehlo.prediction
    monkeypatch.setattr(stablehlo, "prediction", faulty)
    with pytest.raises(CheckpointError, match="differs from the model by"):
        exported(features)
