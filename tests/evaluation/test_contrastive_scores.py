"""Contrastive pretraining end to end: training, retrieval, classes by phrases, linear probes."""

import dataclasses
import json

import numpy as np
import pytest

from c3r_jax.commands import eval as command_eval
from c3r_jax.errors import ConfigError
from c3r_jax.evaluation import validate
from c3r_jax.evaluation.contrastive_scores import pretrained_table
from c3r_jax.evaluation.evaluate import evaluate
from c3r_jax.evaluation.zero_shot import class_keys
from c3r_jax.experiments.check_config import check_data
from c3r_jax.experiments.experiment import build_experiment
from c3r_jax.experiments.metrics_log import read_history
from c3r_jax.experiments.open import restore_best
from c3r_jax.experiments.settings import read_settings
from c3r_jax.step.train_step import step_columns
from c3r_jax.training.health import baseline_of
from c3r_jax.training.loop import fit
from tests.processes import run_here


@pytest.fixture
def contrastive(small_config):
    small_config.task, small_config.train.select_by = "softmax", "mean_zero_shot"
    small_config.c3r.cap, small_config.c3r.gate = 1.0, True
    return small_config


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_pretraining_is_evaluated(contrastive, tmp_path, monkeypatch):
    done = fit(contrastive, tmp_path)
    history = read_history(tmp_path)
    validations = [(line["step"], line["values"]) for line in history if line["split"] == "validation"]
    expected = {"task", "accuracy", "mean_accuracy", "sufficiency", "necessity", "risk_total", "explained"}
    expected |= {"zero_shot", "zero_shot/text", "retrieval", "retrieval/image to text", "retrieval/text to image"}
    assert [step for step, _ in validations] == [4, 8, 12] and all(
        expected <= values.keys() for _, values in validations
    )
    assert done.best == max(values["mean_zero_shot"] for _, values in validations)
    assert done.best == dict(validations)[done.best_step]["mean_zero_shot"]
    trained = [line["values"] for line in history if line["split"] == "train"]
    assert all(0 <= values["cap_scale"] <= 1 for values in trained)
    # A first stage with fewer rows than columns is warned about, as with labels.
    assert {values["first_stage_rows"] for values in trained} == {contrastive.train.batch_size}
    assert baseline_of(build_experiment(contrastive)).num_instruments == contrastive.model.dim
    results = evaluate(tmp_path)
    rows = {(row["condition"], row["modalities"]): row for row in results["conditions"]}
    assert len(rows) == 7 * 3  # clean and two protocols of three levels, three subsets each
    assert set(results["retrieval"]) == {"image to text", "text to image"}
    assert results["retrieval_examples"] == dict.fromkeys(results["retrieval"], results["num_examples"])
    table = pretrained_table(results)
    assert "| clean | image+text |" in table and "zero-shot" in table

    # Zero-shot of clean names, by hand: encode phrases and names alone, compare unit vectors.
    experiment = build_experiment(contrastive)
    from c3r_jax.experiments.checkpoints import Checkpoints

    checkpoints = Checkpoints(tmp_path)
    _, state, _ = checkpoints.restore(checkpoints.best_first, experiment.devices.template(experiment.state_maker()))
    checkpoints.close()

    def encode(texts):
        ids = np.stack([experiment.tokenizer.encode(text, contrastive.data.text_length) for text in texts])
        inputs = {"text": ids, "image": np.zeros((len(ids), 16, 16, 3), np.uint8)}
        present = np.tile([False, True], (len(ids), 1))
        h = experiment.model.apply({"params": state.params}, inputs, present, method=experiment.model.encode)
        return unit(np.asarray(h["text"], np.float64))

    source = experiment.sources["test"]
    keys = np.stack([unit(encode(source.info.phrases[name]).mean(0)) for name in source.info.class_names])
    found = (encode(source.texts) @ keys.T).argmax(1)
    np.testing.assert_allclose(rows["clean", "text"]["zero_shot"], np.mean(found == source.labels), atol=0.02)

    # Phrases are of no environment, though examples may be.
    params = restore_best(experiment, tmp_path)[1]
    of_phrases, train = class_keys(experiment, params), experiment.sources["train"]
    np.testing.assert_allclose(of_phrases, unit(keys), atol=1e-4)
    with monkeypatch.context() as patch:
        patch.setattr(train, "info", dataclasses.replace(train.info, environment="maker", environments=("A", "B")))
        np.testing.assert_array_equal(class_keys(experiment, params), of_phrases)

    assert run_here(command_eval, monkeypatch, f"--workdir={tmp_path}") is None
    assert (tmp_path / "results.md").read_text() == table
    again = json.loads((tmp_path / "results.json").read_text())
    assert again["conditions"] == results["conditions"]


def test_retrieval_is_said_with_the_examples_that_were_compared():
    results = {"method": "plain", "task": "softmax", "dataset": "toy", "split": "test", "num_examples": 60}
    results |= {"chance": 0.5, "conditions": []}
    results["retrieval"] = {"audio to image": 0.5, "audio to text": None, "image to audio": 0.25}
    results["retrieval_examples"] = {"audio to image": 40, "audio to text": 0, "image to audio": 40}
    lines = pretrained_table(results).splitlines()
    assert "Retrieval among 40 examples (chance 2.5): audio to image 50.0, image to audio 25.0." in lines
    assert "No retrieval, as no example has both modalities: audio to text." in lines


@pytest.mark.parametrize("absent", [0.5, 1.0])
def test_validation_compares_examples_with_both_modalities(contrastive, monkeypatch, absent):
    experiment = build_experiment(contrastive)
    state = experiment.devices.init(experiment.state_maker())
    rng = np.random.default_rng(0)
    h = rng.normal(size=(40, contrastive.model.dim)).astype(np.float32)
    present = np.ones((40, 2), bool)
    present[: int(40 * absent), 1] = False
    encoded = {"image": h, "text": np.where(present[:, 1:], h, 0)}, present, np.zeros(40, int), np.arange(40)
    monkeypatch.setattr(validate, "encode_batches", lambda *_: encoded)
    values = validate.validate(experiment, state)
    found = [values[name] for name in ("retrieval", "mean_retrieval", "retrieval/text to image")]
    np.testing.assert_equal(found, [1.0 if absent < 1 else np.nan] * 3)


@pytest.mark.parametrize("key_chunks", [0, 2])
def test_keys_go_round_where_that_is_set(contrastive, key_chunks):
    contrastive.train.key_chunks = key_chunks
    experiment = build_experiment(contrastive)
    iterator = experiment.train_iterator()
    state, batch = experiment.devices.abstract(experiment.state_maker(), step_columns(next(iterator)))
    iterator.close()
    program = experiment.step.lower(state, batch).as_text()
    assert ("collective_permute" in program) == (key_chunks > 0)


def test_every_class_has_phrases(small_config):
    info = build_experiment(small_config).sources["train"].info
    assert set(info.phrases) == set(info.class_names) and all(len(some) >= 5 for some in info.phrases.values())


def test_selection_by_phrases_needs_phrases(contrastive):
    info = build_experiment(contrastive).sources["train"].info
    without = dataclasses.replace(info, phrases={})
    with pytest.raises(ConfigError, match=r"select_by is 'mean_zero_shot'.*has no phrases for its classes"):
        check_data(read_settings(contrastive), without)


def test_dropping_modalities_is_refused(contrastive):
    contrastive.modality_dropout.switch = "on"
    with pytest.raises(ConfigError, match=r"config\.task is 'softmax'.*modality_dropout would remove them"):
        build_experiment(contrastive)


def test_what_evaluation_could_not_score_is_refused_before_training(contrastive, tmp_path):
    contrastive.eval.protocols = ("missing",)
    with pytest.raises(ConfigError, match=r"Protocol .* is not for config\.task='softmax'"):
        fit(contrastive, tmp_path)


def test_a_batch_never_has_more_rows_than_there_are_examples(contrastive):
    contrastive.train.batch_size = 4096
    with pytest.raises(ConfigError, match=r"batch_size is 4096, but data set '\w+' has \d+ training examples"):
        build_experiment(contrastive)


def test_without_classes_only_retrieval_is_scored():
    results = {"method": "plain", "task": "softmax", "dataset": "toy", "split": "test", "num_examples": 60}
    results |= {"chance": None, "conditions": [], "retrieval": {"a to b": 0.5}, "retrieval_examples": {"a to b": 60}}
    table = pretrained_table(results)
    assert "Retrieval among 60 examples" in table and "zero-shot" not in table
