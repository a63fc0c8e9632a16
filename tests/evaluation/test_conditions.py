"""Protocols end to end: the short way to missing and misaligned representations, and training on altered data."""

import json

import numpy as np
import pytest

from c3r_jax.data.array_source import ArraySource
from c3r_jax.data.conditions.missing import DegradedSource, parse_shares
from c3r_jax.data.conditions.protocols import protocol_conditions
from c3r_jax.data.source import DatasetInfo
from c3r_jax.data.text.tokens import MASK_ID
from c3r_jax.errors import ConfigError
from c3r_jax.evaluation.conditions import conditions_of, rearranged
from c3r_jax.evaluation.evaluate import evaluate
from c3r_jax.experiments.encode import encode_split
from c3r_jax.experiments.experiment import build_experiment
from c3r_jax.experiments.metrics_log import read_history
from c3r_jax.training.loop import fit


def test_rearranging_equals_encoding_again(small_config):
    """Missing and misaligned inputs through the encoders give the rows that are put together from clean ones."""
    experiment = build_experiment(small_config)
    params = experiment.devices.init(experiment.state_maker()).params
    clean = encode_split(experiment, params, "test")
    for condition in conditions_of(experiment, ["missing", "misaligned", "subsets"]):
        if condition.name.split()[-2:] in (["30", "%"], ["100", "%"]) or condition.group == "modality_subset":
            found = rearranged(condition, clean, experiment.model.modalities, 0)
            assert found is not None
            h, present, labels, index = encode_split(experiment, params, "test", condition)
            np.testing.assert_array_equal(found[1], present)
            np.testing.assert_array_equal(labels, clean[2])
            np.testing.assert_array_equal(index, clean[3])
            for m, name in enumerate(experiment.model.modalities):
                np.testing.assert_allclose(found[0][name][present[:, m]], h[name][present[:, m]], atol=1e-6)
    noise = protocol_conditions(["gaussian"], experiment.model.modalities)[1]
    assert rearranged(noise, clean, experiment.model.modalities, 0) is None


def test_rearranging_respects_what_is_missing_in_the_data():
    """Row numbers as representations: the short way keeps and swaps the rows that an altered source does."""
    n, names = 40, ("a", "b", "c")
    present = np.random.default_rng(0).random((n, 3)) < 0.6
    present[~present.any(1), 0] = True
    column = np.arange(n, dtype=np.float32)[:, None] + 1
    info = DatasetInfo("demo", names, ("x", "y"))
    columns = dict.fromkeys(names, column)
    source = ArraySource(columns, np.arange(n) % 2, info=info, present=present, index=np.arange(n)[::-1] * 7)
    conditions = protocol_conditions(["missing", "misaligned"], names)[1:]
    for condition in conditions:
        how = {"missing": condition.change} if "missing" in condition.group else {"misaligned": condition.change}
        altered = DegradedSource(source, 5, **how)
        found = rearranged(condition, (columns, present, source.labels, source.index), names, 5)
        assert found is not None
        np.testing.assert_array_equal(found[1], [altered[i]["present"] for i in range(n)])
        assert found[1].any(1).all()
        for m, name in enumerate(names):
            expected = np.stack([altered[i][name] for i in range(n)])
            np.testing.assert_array_equal(np.where(found[1][:, m, None], found[0][name], 0), expected)


def test_named_protocols_on_a_run_trained_on_altered_data(small_config, tmp_path):
    """Text is never there in training, some images are noisy: nothing breaks, and the results are of what was asked."""
    small_config.data.train_missing = ("text=1",)
    small_config.data.train_misaligned = ("image=0.25",)
    small_config.data.train_noise = "official_gaussian:10"
    small_config.train.steps = small_config.train.eval_every = 4
    fit(small_config, tmp_path)
    assert all(np.isfinite(line["loss"]) for line in read_history(tmp_path) if "loss" in line)
    results = evaluate(tmp_path, protocols=["official_salt", "missing"])
    written = json.loads((tmp_path / "protocols/official_salt+missing/results.json").read_text())
    assert written == results and "baseline" not in written
    assert not (tmp_path / "results.json").exists()
    names = [row["name"] for row in results["conditions"]]
    assert names[:4] == ["clean", "official salt 5", "official salt 10", "missing 10 %"] and len(names) == 33
    curve = results["robustness"]["representation"]["official_salt"]
    assert curve["conditions"] == names[:3] and curve["levels"] == [0, 5, 10]
    assert curve["mean"] == pytest.approx(np.mean(curve["values"]))
    again = evaluate(tmp_path, protocols=["official_salt", "missing"], baseline=tmp_path)
    assert {v["effective"] for v in again["robustness"]["instrument"].values()} == {0.0}
    assert again["baseline"]["workdir"] == str(tmp_path)
    with pytest.raises(ConfigError, match="Protocol 'rain' is unknown: expected some of official, "):
        evaluate(tmp_path, protocols=["rain"])


def test_training_data_are_altered_and_nothing_else(small_config):
    plain = build_experiment(small_config)
    small_config.data.train_missing = ("text=0.5", "image@0=1")
    small_config.data.train_noise = "nyud2_gaussian:10"
    small_config.data.augment.word_drop = 0.0
    experiment = build_experiment(small_config)
    assert isinstance(experiment.sources["train"], DegradedSource)
    assert type(experiment.sources["test"]) is type(plain.sources["test"])
    assert experiment.tokenizer.to_json() == plain.tokenizer.to_json() and experiment.method == plain.method
    assert experiment.step is plain.step  # nothing is compiled again
    batches = experiment.train_iterator()
    present = np.concatenate([next(batches)["present"] for _ in range(8)])
    assert 0.4 < present[:, 1].mean() < 0.7  # rows of class 0 keep their text: they have nothing else
    batch = next(batches)
    assert not batch["present"][batch["labels"] == 0, 0].any()
    assert not batch["inputs"]["text"][~batch["present"][:, 1]].any()
    assert (batch["inputs"]["text"] == MASK_ID).sum() == 0  # nyud2 has no text noise
    batches.close()


@pytest.mark.parametrize(
    ("leaf", "value", "message"),
    [
        ("train_missing", ("text",), "train_missing has 'text': expected modality=share"),
        ("train_missing", ("sound=0.5",), "one of the modalities image, text"),
        ("train_missing", ("text=1.5",), "with a share of 0 to 1"),
        ("train_missing", ("text@nobody=0.5",), "a class id or name"),
        ("train_missing", ("text=0.5", "text=0.6"), "has 'text' twice"),
        ("train_misaligned", ("text@0=0.5",), "train_misaligned names a class"),
        ("train_noise", "official:5", "expected family:level, one of gaussian:1"),
    ],
)
def test_what_cannot_be_trained_on(small_config, leaf, value, message):
    small_config.data[leaf] = value
    with pytest.raises(ConfigError, match=message):
        build_experiment(small_config)


def test_classes_by_name_and_number(small_config):
    info = build_experiment(small_config).sources["train"].info
    name = info.class_names[1]
    by_name, by_number = (parse_shares("leaf", (f"text@{x}=0.5",), info) for x in (name, 1))
    assert by_name == by_number == parse_shares("leaf", ("text@1=.5",), info)


def test_contrastive_runs_take_noise_alone(small_config):
    small_config.task, small_config.c3r.necessity = "softmax", "hinge"
    experiment = build_experiment(small_config)
    assert len(conditions_of(experiment, ["qmf"])) == 5
    with pytest.raises(ConfigError, match="Protocol 'missing' is not for config.task='softmax'"):
        conditions_of(experiment, ["missing"])
