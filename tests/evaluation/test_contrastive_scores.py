"""Contrastive pretraining end to end: training, retrieval, classes by phrases, linear probes."""

import json
import subprocess
import sys

import numpy as np
import pytest

from c3r_jax.errors import ConfigError
from c3r_jax.evaluation.contrastive_scores import pretrained_table
from c3r_jax.evaluation.evaluate import evaluate
from c3r_jax.experiments.experiment import build_experiment
from c3r_jax.experiments.metrics_log import read_history
from c3r_jax.training.loop import fit
from tests.processes import REPOSITORY, command_environment


@pytest.fixture
def contrastive(small_config):
    small_config.task, small_config.c3r.necessity = "softmax", "hinge"
    return small_config


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_pretraining_is_evaluated(contrastive, tmp_path):
    fit(contrastive, tmp_path)
    values = [line["values"] for line in read_history(tmp_path) if line["split"] == "validation"][-1]
    assert {"task", "accuracy", "mean_accuracy", "sufficiency", "necessity", "risk_total"} <= values.keys()
    results = evaluate(tmp_path)
    rows = {(row["condition"], row["modalities"]): row for row in results["conditions"]}
    assert len(rows) == 7 * 3  # clean and two protocols of three levels, three subsets each
    assert set(results["retrieval"]) == {"image to text", "text to image"}
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

    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "eval.py"), f"--workdir={tmp_path}"],
        capture_output=True,
        text=True,
        env=command_environment(),
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "results.md").read_text() == table
    again = json.loads((tmp_path / "results.json").read_text())
    assert again["conditions"] == results["conditions"]


def test_every_class_has_phrases(small_config):
    info = build_experiment(small_config).sources["train"].info
    assert set(info.phrases) == set(info.class_names) and all(len(some) >= 5 for some in info.phrases.values())


def test_dropping_modalities_is_refused(contrastive):
    contrastive.modality_dropout.switch = "on"
    with pytest.raises(ConfigError, match=r"config\.task is 'softmax'.*modality_dropout would remove them"):
        build_experiment(contrastive)
