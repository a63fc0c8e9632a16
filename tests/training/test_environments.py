"""Environments from a column of a data set to batches, rivals, selection and the report."""

import json

import numpy as np
import pytest

from c3r_jax.core.tasks.classification import CLASSIFICATION
from c3r_jax.data.array_source import ArraySource
from c3r_jax.data.catalogue import find_loader
from c3r_jax.data.sets.emoji import load_emoji
from c3r_jax.data.sets.records import load_records, write_records
from c3r_jax.data.source import DatasetInfo, count_environments
from c3r_jax.errors import ConfigError, DataError
from c3r_jax.evaluation.environments import worst_of
from c3r_jax.evaluation.evaluate import evaluate
from c3r_jax.experiments.experiment import build_experiment
from c3r_jax.experiments.metrics_log import read_history
from c3r_jax.report.tables import environments_table
from c3r_jax.step.train_step import step_columns
from c3r_jax.training.loop import fit

NAMES = ("north", "south", "east", "west")  # training has the first three


def where_from(index, split):
    """The environment of an example: known by its index alone; a tenth are not known."""
    return np.where(index % 10 == 9, -1, index // 7 % (3 if split == "train" else 4))


@pytest.fixture(scope="module")
def directory(tmp_path_factory, small_emoji):
    """The small emoji set in shards whose records have a field "environment"."""
    path = tmp_path_factory.mktemp("environments")
    for split in ("train", "validation", "test"):
        found = load_emoji(split, path=small_emoji, image_size=16)
        info = DatasetInfo(
            "places", ("image", "text"), found.info.class_names, environment="environment", environments=NAMES
        )
        ids = where_from(found.index, split)
        write_records(ArraySource(found.columns, found.labels, info=info, environment=ids), path, split, shard_size=100)
    about = {"name": "places", "class_names": found.info.class_names, "environments": {"environment": NAMES}}
    (path / "dataset.json").write_text(json.dumps(about))
    return path


@pytest.fixture
def config(small_config, directory):
    small_config.data.name, small_config.data.path = "records", str(directory)
    small_config.data.keep = True
    small_config.c3r.instrument, small_config.method = "none", "plain"
    small_config.train.steps = small_config.train.eval_every = 2
    small_config.train.writers, small_config.optimizer.warmup_steps = (), 0
    small_config.eval.protocols = ()
    return small_config


def ids_of(directory, split):
    return np.load(directory / f"{split}-environment.npy")


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_have_the_ids_of_their_rows(config, directory, workers):
    config.data.num_workers = workers
    experiment = build_experiment(config)
    iterator = experiment.train_iterator()
    for _ in range(2):
        batch = next(iterator)
        np.testing.assert_array_equal(batch["environment"], ids_of(directory, "train")[batch["index"]])
        assert batch["environment"].dtype == np.int32
    iterator.close()
    assert experiment.sources["train"].info.environments == NAMES
    config.data.train_missing = ("text=0.5",)
    degraded = next(build_experiment(config).train_iterator())
    np.testing.assert_array_equal(degraded["environment"], batch_ids(directory, degraded))


def batch_ids(directory, batch):
    return ids_of(directory, "train")[batch["index"]]


def test_only_a_rival_that_compares_them_reads_them(config):
    plain = build_experiment(config)
    assert "environment" not in step_columns(plain.example_batch(), plain.method.rival)
    config.rival.name = "irm"
    irm = build_experiment(config)
    assert irm.method.rival.environments == 3
    columns = step_columns(irm.example_batch(), irm.method.rival)
    assert columns["environment"].shape == columns["labels"].shape
    state = irm.devices.init(irm.state_maker())
    with pytest.raises(ConfigError, match="'irm' compares environments, but the batch has no column 'environment'"):
        irm.step(state, irm.devices.split(step_columns(irm.example_batch())))


@pytest.mark.parametrize("rival", ["irm", "vrex", "group_dro"])
def test_rivals_train_and_the_worst_environment_selects(config, directory, tmp_path, rival):
    config.rival.name, config.rival.warmup = rival, 0
    config.train.select_by = "worst_environment_accuracy"
    config.eval.environment_size = 5
    config.c3r.instrument = "none" if rival == "irm" else "two_stage"  # beside whose moments group DRO has a state
    done = fit(config, tmp_path)
    history = read_history(tmp_path)
    trained = [row["values"] for row in history if row["split"] == "train"]
    assert len(trained) == 2 and all(np.isfinite(row["rival"]) for row in trained)
    assert (trained[0]["rival"] > 0) == (rival != "group_dro") and ("rival_task" in trained[0]) == (
        rival == "group_dro"
    )
    validated = next(row["values"] for row in history if row["split"] == "validation")
    assert done.best == pytest.approx(validated["worst_environment_accuracy"])
    if rival == "group_dro":
        check_report(evaluate(tmp_path), directory)


def check_report(results, directory):
    ids = ids_of(directory, "test")
    report = results["environments"]
    assert report["column"] == "environment" and report["unknown"] == (ids == -1).sum()
    for route, found in report["routes"].items():
        each = found["each"]
        assert {name: row["examples"] for name, row in each.items()} == {
            NAMES[i]: (ids == i).sum() for i in np.unique(ids[ids >= 0])
        }
        correct = sum(row["accuracy"] * row["examples"] for row in each.values())
        whole = results["conditions"][0]["routes"][route]["accuracy"] * len(ids)
        assert 0 <= whole - correct <= report["unknown"] + 1e-6
        worst = found["worst"]["accuracy"]
        assert worst["value"] == min(row["accuracy"] for row in each.values() if row["examples"] >= 5)
    table = environments_table(results)
    assert table.header[0] == "environment" and len(table.rows) == len(each) and "Worst, of" in table.notes[0]


def test_scores_by_environment_are_those_of_its_rows(config, directory):
    from c3r_jax.evaluation.environments import environment_report
    from c3r_jax.models.branches import Branches

    experiment = build_experiment(config)
    source = experiment.sources["validation"]
    logits = np.random.default_rng(0).normal(size=(len(source), 9)).astype(np.float32)
    branches = Branches(**dict.fromkeys(Branches._fields) | {"logits": {"representation": logits}})
    report = environment_report(experiment, "validation", branches, source.labels, ("representation",))
    ids, each = ids_of(directory, "validation"), report["routes"]["representation"]["each"]
    for number, name in enumerate(NAMES):
        rows = ids == number
        expected = CLASSIFICATION.spec.measure(logits[rows], source.labels[rows], tolerance=0.5, num_bins=10)
        assert each[name]["accuracy"] == pytest.approx((logits[rows].argmax(1) == source.labels[rows]).mean())
        assert each[name] == {"examples": rows.sum(), **expected}


def test_the_worst_environment():
    each = {
        "A": {"examples": 30, "accuracy": 0.9, "mae": 2.0, "auroc": float("nan")},
        "B": {"examples": 12, "accuracy": 0.7, "mae": 1.0, "auroc": float("nan")},
        "C": {"examples": 2, "accuracy": 0.0, "mae": 9.0, "auroc": 0.1},
    }
    assert worst_of(each, 10) == {"accuracy": {"name": "B", "value": 0.7}, "mae": {"name": "A", "value": 2.0}}
    assert worst_of(each, 1)["auroc"] == {"name": "C", "value": 0.1}
    assert worst_of(each, 99) == {}  # of one or two examples, the worst would be chance


@pytest.mark.parametrize(
    ("leaf", "value", "message"),
    [
        ("data.environments", "site", "'site' for 'places': expected one of environment"),
        ("train.select_by", "worst_environment_loss", "or 'worst_environment_' before a score"),
    ],
)
def test_what_cannot_be_used_is_said(config, leaf, value, message):
    config.update_from_flattened_dict({leaf: value})
    with pytest.raises((ConfigError, DataError), match=message):
        build_experiment(config)


def test_sets_without_environments_say_so(small_config):
    with pytest.raises(ConfigError, match="'site', but 'emoji' has no columns of environments"):
        find_loader("emoji", "", environments="site")
    small_config.train.select_by = "worst_environment_accuracy"
    with pytest.raises(ConfigError, match="'emoji' does not say which environment"):
        build_experiment(small_config)
    small_config.train.select_by, small_config.rival.name = "accuracy", "group_dro"
    with pytest.raises(ConfigError, match="'group_dro', which compares environments, .* from 0 known ones"):
        build_experiment(small_config)


def test_ids_are_checked(directory):
    info = DatasetInfo("demo", ("sound",), ("low", "high"), environment="site", environments=("A", "B"))
    columns, labels = {"sound": np.ones((3, 4), np.float32)}, np.array([0, 1, 1])
    with pytest.raises(DataError, match="names 2 environments, but its source has no column 'environment'"):
        ArraySource(columns, labels, info=info)
    with pytest.raises(DataError, match="Example 1 of 'demo' has environment 2, expected -1"):
        ArraySource(columns, labels, info=info, environment=np.array([0, 2, 1]))
    with pytest.raises(DataError, match="expected one whole number for each of 3 examples"):
        ArraySource(columns, labels, info=info, environment=np.array([0.5, 0, 1]))
    source = ArraySource(columns, labels, info=info, environment=np.array([-1, 1, 1]))
    assert source[0]["environment"] == -1 and source.gather(np.array([2]))["environment"].tolist() == [1]
    with pytest.raises(DataError, match="name those of the training split first"):
        count_environments(source)
    assert count_environments(load_records("train", path=directory)) == 3
