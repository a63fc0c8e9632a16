"""Each task from arrays to results: one loop, one step, one evaluator, on one device as on eight."""

import functools
import json

import jax
import numpy as np
import pytest

from c3r_jax.core.tasks.multilabel import MultiLabel
from c3r_jax.core.tasks.segmentation import Segmentation
from c3r_jax.data.array_source import ArraySource
from c3r_jax.data.catalogue import SOURCES
from c3r_jax.data.preparation.layouts.brats import Brats2020
from c3r_jax.data.source import DatasetInfo
from c3r_jax.errors import ConfigError, DataError
from c3r_jax.evaluation.evaluate import evaluate
from c3r_jax.evaluation.segmentation import VolumeScorer, volume_scores
from c3r_jax.experiments.encode import encode_each, encoded_batches, without_encoders
from c3r_jax.experiments.experiment import build_experiment
from c3r_jax.experiments.metrics_log import read_history
from c3r_jax.experiments.open import training_moments
from c3r_jax.models.twin import apply
from c3r_jax.parallel.replicated import AXIS, Replicated
from c3r_jax.report.write import write_report
from c3r_jax.step.train_step import step_columns, train_step
from c3r_jax.training.loop import fit
from configs import base

SIZES = {"train": 64, "validation": 32, "test": 33}
NAMES = {"multilabel": ("a", "b", "c"), "regression": (), "binary": ("no", "yes")}
BRATS = ("background", "necrotic core", "oedema", "enhancing tumour")
HEADLINE = {"binary": "accuracy", "multilabel": "macro_f1", "regression": "mae", "segmentation": "dice"}


def load(split, *, task, **_):
    """Two views of a cause of three numbers, which determines the labels; volumes are brighter by class."""
    seed, n = list(SIZES).index(split), SIZES[split]
    rng = np.random.default_rng(seed)
    if task == "segmentation":
        labels = rng.choice(4, (n // 4, 4, 4, 4), p=[0.4, 0.3, 0.2, 0.1])
        views = {m: (labels + 0.1 * rng.normal(size=labels.shape)).astype(np.float32)[..., None] for m in ("t1", "t2")}
        info = DatasetInfo("volumes", ("t1", "t2"), BRATS, task=task, regions=Brats2020.regions)
        return ArraySource(views, labels, info=info)
    cause = rng.normal(size=(n, 3))
    labels = {
        "multilabel": (cause > 0.3).astype(int),
        "regression": cause[:, 0],
        "binary": (cause[:, 0] > 0).astype(int),
    }
    views = {m: (cause + 0.3 * rng.normal(size=cause.shape)).astype(np.float32) for m in ("sound", "touch")}
    info = DatasetInfo("views", ("sound", "touch"), NAMES[task], task="classification" if task == "binary" else task)
    return ArraySource(views, labels[task], info=info)


@pytest.fixture
def config_of(monkeypatch):
    def make(task):
        monkeypatch.setitem(SOURCES, "made", (functools.partial(load, task=task), tuple(SIZES)))
        config = base.get_config()
        config.task = "classification" if task == "binary" else task
        config.data.name = "made"
        config.model.dim, config.model.features.hidden = 3, (8,)
        config.model.volume.width, config.model.volume.depth = 8, 1
        config.data.volume_size = (2, 4, 3)  # of the volumes of 4 x 4 x 4
        config.train.batch_size = config.eval.batch_size = 8 if task == "segmentation" else 32
        config.train.steps = config.train.eval_every = 40
        config.train.log_every = 1
        config.train.select_by = {"binary": "mean_auroc", "regression": "mae"}.get(task, f"mean_{HEADLINE[task]}")
        config.optimizer.learning_rate, config.optimizer.warmup_steps = 0.03, 2
        config.c3r.lambda_n, config.c3r.lambda_v = 0.3, 0.3
        config.eval.protocols = ()
        return config

    return make


@pytest.mark.parametrize("task", HEADLINE)
def test_a_task_is_trained_and_evaluated(config_of, tmp_path, task, monkeypatch):
    config, score = config_of(task), HEADLINE[task]
    seen, call = [], VolumeScorer.__call__
    monkeypatch.setattr(VolumeScorer, "__call__", lambda self, *a: seen.append(a[2].shape[1:]) or call(self, *a))
    ended = fit(config, tmp_path)
    history = read_history(tmp_path)
    losses = [line["values"]["task"] for line in history if line["split"] == "train"]
    assert losses[-1] < 0.9 * losses[0]
    validation = history[-1]["values"]
    assert ended.best == validation[config.train.select_by] and ended.best >= 0
    assert {
        f"{score}/{m}" for m in (("t1", "t2") if task == "segmentation" else ("sound", "touch"))
    } <= validation.keys()
    assert set(seen) == ({(2, 4, 3)} if task == "segmentation" else set())
    seen.clear()
    results = evaluate(tmp_path)
    assert set(seen) <= {(4, 4, 4)}  # whole volumes in the end
    assert results["metric"] == score and len(results["conditions"]) == 3
    for route, summary in results["summary"].items():
        values = [row["routes"][route][score] for row in results["conditions"]]
        np.testing.assert_allclose(summary[f"mean_{score}"], np.mean(values))
        assert summary[f"worst_{score}"] == (max if score == "mae" else min)(values)
    risk = results["risk"]
    assert risk["lower"] <= risk["joint"] + 1e-6 and risk["joint"] <= risk["upper"] + 1e-6
    assert risk["sufficiency"] < 0.6
    assert risk["chance"] <= 1 and 0 < risk["label_probability"] < 1 and risk["probe_accuracy"] > 0.2
    json.loads((tmp_path / "results.json").read_text())  # no NaN in it
    written = write_report([results], tmp_path / "report", histories={results["method"]: [history]})
    words = {"binary": "Accuracy", "multilabel": "Macro-F1", "regression": "MAE", "segmentation": "Mean Dice"}[task]
    assert words in written["markdown"].read_text() and words in written["html"].read_text()


def test_sampled_voxels_are_those_that_the_risk_counts(config_of):
    experiment = build_experiment(config_of("segmentation"))
    state = experiment.devices.init(experiment.state_maker())
    moments = training_moments(experiment, state.params)
    scorer = VolumeScorer(experiment, experiment.devices.host(without_encoders(state.params)), moments)
    encoded = list(encode_each(experiment, state.params, encoded_batches(experiment, state.params, "test")))
    found = scorer.sample(encoded)  # of volumes of 64 voxels: all of them
    labels = np.concatenate([labels.ravel() for _, _, labels, _ in encoded])
    np.testing.assert_array_equal(found.labels, labels)
    assert found.present.shape == (len(labels), 2) and found.present.all()
    for name, value in found.h.items():
        expected = np.concatenate([maps[name].reshape(-1, value.shape[1]) for maps, *_ in encoded])
        np.testing.assert_array_equal(value, expected)
    head = {"params": experiment.devices.host(state.params)}
    logits = apply(experiment.model, head, experiment.model.predict, found.z_bar)
    right = (np.asarray(logits).argmax(-1) == labels) * found.weights
    necessity = volume_scores(encoded, scorer, [None])[0]["instrument"].risk().necessity
    np.testing.assert_allclose(right.sum() / found.weights.sum(), necessity, rtol=1e-5)
    probability = np.take_along_axis(np.asarray(jax.nn.softmax(logits)), labels[:, None], 1)[:, 0]
    np.testing.assert_allclose(found.label_probability, probability, rtol=1e-5)


class Without:
    """A split in which no example has a modality."""

    def __init__(self, source, name):
        self.source, self.name, self.info, self.labels = source, name, source.info, source.labels

    def __len__(self):
        return len(self.source)

    def __getitem__(self, position):
        return {**self.source[position], self.name: None}


def test_a_split_without_a_modality_is_evaluated(config_of, tmp_path, monkeypatch):
    config = config_of("binary")
    fit(config, tmp_path)
    whole = evaluate(tmp_path)
    load_whole, splits = SOURCES["made"]

    def load_less(split, **settings):
        source = load_whole(split, **settings)
        return Without(source, "touch") if split == "test" else source

    monkeypatch.setitem(SOURCES, "made", (load_less, splits))
    less = evaluate(tmp_path)
    by_name = [{row["name"]: row["routes"]["representation"] for row in own["conditions"]} for own in (whole, less)]
    alone = next(name for name in by_name[0] if name.startswith("sound"))
    for metric, value in by_name[0][alone].items():
        for name in (alone, "clean"):
            np.testing.assert_allclose(by_name[1][name][metric], value, rtol=1e-5, err_msg=metric)


def test_all_fifteen_subsets_of_four_modalities():
    from c3r_jax.data.conditions.protocols import protocol_conditions

    assert len(protocol_conditions(("subsets",), ("flair", "t1", "t1ce", "t2"))) == 15


@pytest.mark.parametrize("task", ["segmentation"])
def test_eight_devices_train_as_one(config_of, task):
    config = config_of(task)
    config.modality_dropout.switch, config.optimizer.name = "on", "sgd"
    experiment = build_experiment(config)
    step = functools.partial(
        train_step,
        model=experiment.model,
        method=experiment.method,
        optimizer=experiment.optimizer,
        moments_decay=0.9,
        axis_name=AXIS,
    )
    batch = step_columns(next(experiment.eval_iterator("train")))
    batch["where"] = np.arange(len(batch["where"])) != 1
    found = []
    for count in (1, 8):
        devices = Replicated(jax.local_devices()[:count])
        state, metrics = devices.compile_step(step)(devices.init(experiment.state_maker()), devices.split(batch))
        found.append((devices.host(metrics), devices.host(state.params)))
    (one, params), (eight, params_eight) = found
    for name in one:
        loose = 1e-3 if name.startswith("f/") else 1e-5
        np.testing.assert_allclose(one[name], eight[name], rtol=loose, atol=1e-6, err_msg=name)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), params, params_eight)


def test_what_the_method_takes_from_the_labels(config_of):
    target, prior = (lambda m: (m.target, m.c3r.prior))(build_experiment(config_of("multilabel")).method)
    labels = load("train", task="multilabel").labels
    assert target == MultiLabel()
    np.testing.assert_allclose(prior, labels.mean(0))
    config = config_of("segmentation")
    config.segmentation.max_weight = 3.0
    method = build_experiment(config).method
    shares = (
        np.bincount(load("train", task="segmentation").labels.ravel()) / load("train", task="segmentation").labels.size
    )
    weights = np.minimum(shares.max() / shares, 3.0)
    assert method.target == Segmentation(class_weights=tuple(weights.tolist()))
    np.testing.assert_allclose(method.c3r.prior, weights * shares / (weights * shares).sum())
    prior = build_experiment(config_of("regression")).method.c3r.prior
    numbers = load("train", task="regression").labels
    np.testing.assert_allclose(prior, (numbers.mean(), numbers.std()), rtol=1e-5)


@pytest.mark.parametrize(
    ("task", "leaf", "value", "message"),
    [
        ("regression", "task", "classification", "labels for 'regression': set config.task='regression'"),
        ("regression", "regression.tolerance", 0.0, "config.regression.tolerance is 0.0"),
        ("regression", "train.label_smoothing", 0.1, "numbers have no classes to smooth"),
        ("regression", "regression.tolerance", 100.0, "tolerance is 100, .* 100% of the training labels are within it"),
        (
            "regression",
            "regression.tolerance",
            1e-4,
            "select_by is 'accuracy', .* 0.0001, .* use --config.train.select_by=mean_mae",
        ),
        ("regression", "train.select_by", "auroc", "or mae, pearson"),
        ("segmentation", "segmentation.class_weights", (1.0, 2.0), "a positive number for each of 4 classes"),
        ("segmentation", "segmentation.max_weight", 0.5, "max_weight is 0.5"),
    ],
)
def test_leaves_that_do_not_fit_are_named(config_of, task, leaf, value, message):
    config = config_of(task)
    if leaf == "task" or value == 1e-4:
        config.train.select_by = "accuracy"
    config.update_from_flattened_dict({leaf: value})
    with pytest.raises(ConfigError, match=message):
        build_experiment(config)


def test_labels_that_do_not_vary_are_no_regression(config_of, monkeypatch):
    config = config_of("regression")
    same = load("train", task="regression")
    same.labels[:] = 1.0
    monkeypatch.setitem(SOURCES, "made", (lambda split, **_: same, tuple(SIZES)))
    with pytest.raises(DataError, match="all training labels are 1.0"):
        build_experiment(config)
