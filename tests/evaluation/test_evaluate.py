"""eval.py's results: complete, repeatable, and the same as evaluating every condition the long way."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from c3r_jax.commands import eval as command_eval
from c3r_jax.commands.eval import check_route
from c3r_jax.data.conditions.protocols import Condition
from c3r_jax.errors import CheckpointError, ConfigError, DataError, WorkdirError
from c3r_jax.evaluation import evaluate as module
from c3r_jax.evaluation.evaluate import evaluate, evaluated
from c3r_jax.experiments import open as trained
from c3r_jax.experiments.encode import encode_split, without_encoders
from c3r_jax.experiments.settings import read_settings
from c3r_jax.training.loop import fit
from tests.processes import run_here

REPOSITORY = pathlib.Path(__file__).parents[2]


@pytest.fixture
def finished(small_config, tmp_path):
    fit(small_config, tmp_path / "run")
    return tmp_path / "run"


def test_results_hold_everything(finished, monkeypatch):
    scored = module.scored_run
    monkeypatch.setattr(module, "scored_run", lambda *a: {**scored(*a), "undefined": float("nan")})
    results = evaluate(finished)
    on_disk = json.loads((finished / "results.json").read_text())
    assert on_disk == results and results["undefined"] is None  # JSON, whoever writes it
    names = [row["name"] for row in results["conditions"]]
    assert names == [
        "clean",
        "image only",
        "text only",
        *[f"{kind} {i}" for kind in ("noise", "salt") for i in (1, 2, 3)],
    ]
    for row in results["conditions"]:
        for scores in row["routes"].values():
            assert set(scores) == {"accuracy", "balanced_accuracy", "macro_f1", "nll", "ece"}
            assert 0 <= scores["accuracy"] <= 1 and scores["nll"] > 0
    for route, summary in results["summary"].items():
        accuracies = [row["routes"][route]["accuracy"] for row in results["conditions"]]
        np.testing.assert_allclose(summary["mean_accuracy"], np.mean(accuracies))
        assert summary["worst_accuracy"] == min(accuracies)
    risk = results["risk"]
    np.testing.assert_allclose(risk["total"], risk["sufficiency"] + risk["necessity"], rtol=1e-6)
    assert risk["intervals"]["necessity"][0] <= risk["necessity"] <= risk["intervals"]["necessity"][1]
    assert set(results["first_stage"]) == {"image", "text"}
    assert sum(results["reliability"]["representation"]["count"]) == results["num_examples"]


def test_results_of_the_same_checkpoint_are_not_computed_twice(small_config, tmp_path, monkeypatch):
    run = tmp_path / "run"
    step = fit(small_config, run).best_step
    made = evaluated(run, step)
    assert made["checkpoint"]["step"] == step and made == json.loads((run / "results.json").read_text())
    asked = []
    monkeypatch.setattr(module, "evaluate", lambda workdir, split: asked.append(split) or {})
    assert evaluated(run, step) == made and asked == []
    assert evaluated(run, step, "train") == {} and asked == ["train"]  # that split has none yet
    for changed in ({"checkpoint": {"step": step + 1}}, {"versions": {**made["versions"], "jax": "0.1"}}):
        (run / "results.json").write_text(json.dumps({**made, **changed}))
        assert evaluated(run, step) == {}
    for damaged in ("", "[]", "{}"):
        (run / "results.json").write_text(damaged)
        assert evaluated(run, step) == {}
    assert asked[1:] == [None] * 5


def test_evaluation_repeats_and_ignores_the_batch_size(finished, small_config, monkeypatch):
    first = evaluate(finished)
    small_config.eval.batch_size = 24
    monkeypatch.setattr(trained, "read_config", lambda path: small_config)
    again = evaluate(finished)
    for a, b in zip(first["conditions"], again["conditions"], strict=True):
        for route in a["routes"]:
            assert a["routes"][route]["accuracy"] == b["routes"][route]["accuracy"]
            np.testing.assert_allclose(a["routes"][route]["nll"], b["routes"][route]["nll"], rtol=1e-5)
    np.testing.assert_allclose(first["risk"]["total"], again["risk"]["total"], rtol=1e-6)


def test_a_subset_is_what_encoding_without_the_others_gives(finished, small_config):
    """Modality subsets reuse the clean representations; emptied inputs through the encoders give the same scores."""
    results = evaluate(finished)
    experiment = trained.open_run(finished)
    _, replicated = trained.restore_best(experiment, finished)
    moments = trained.training_moments(experiment, replicated)
    condition = Condition("text only", "modality_subset", 0, ("text",))
    h, present, labels, _ = encode_split(experiment, replicated, "test", condition)
    assert not present[:, 0].any() and present[:, 1].all()
    after_encoders = experiment.devices.host(without_encoders(replicated))
    branches = experiment.branches(after_encoders, moments, h, present, labels)
    row = next(row for row in results["conditions"] if row["name"] == "text only")
    for route, logits in branches.logits.items():
        assert row["routes"][route]["accuracy"] == np.mean(logits.argmax(1) == labels)


def test_methods_without_c3r_are_evaluated_through_both_routes(small_config, tmp_path):
    """Post hoc: the instrument's route exists for a model that was trained without C3R."""
    small_config.method = "plain"
    fit(small_config, tmp_path)
    results = evaluate(tmp_path)
    assert results["method"] == "plain" and set(results["summary"]) == {"representation", "instrument"}
    rows = results["conditions"][0]["routes"]
    assert rows["representation"]["nll"] != rows["instrument"]["nll"]


def test_what_is_missing_is_named(small_config, tmp_path):
    with pytest.raises(WorkdirError, match="config.json does not exist: give the workdir of a run"):
        evaluate(tmp_path)
    small_config.train.steps = small_config.train.eval_every = 4
    fit(small_config, tmp_path / "run")
    for file in (tmp_path / "run/checkpoints").rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[:3])
    with pytest.raises(CheckpointError, match="No usable checkpoint"):
        evaluate(tmp_path / "run")
    (tmp_path / "run/config.json").write_text("{")
    with pytest.raises(WorkdirError, match="cannot be read"):
        evaluate(tmp_path / "run")


def test_corrupt_data_is_named_before_any_work(small_config, tmp_path):
    path = tmp_path / "emoji.zip"
    path.write_bytes(pathlib.Path(small_config.data.path).read_bytes()[:-1])
    path.with_name("emoji.zip.sha256").write_text("0" * 64)
    small_config.data.path = str(path)
    with pytest.raises(DataError, match="SHA-256"):
        fit(small_config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_without_an_instrument_there_is_no_route_through_it(small_config):
    check_route(read_settings(small_config), "instrument")
    small_config.c3r.instrument = "none"
    settings = read_settings(small_config)
    check_route(settings, "representation")
    with pytest.raises(ConfigError, match="--route is 'instrument', but in this run config.c3r.instrument is 'none'"):
        check_route(settings, "instrument")


@pytest.mark.slow
def test_command_line_writes_the_report(finished, monkeypatch):
    command = [sys.executable, str(REPOSITORY / "eval.py"), f"--workdir={finished}"]
    done = subprocess.run(
        [*command, "--route=instrument"], capture_output=True, text=True, cwd=REPOSITORY, env=dict(os.environ)
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("instrument: mean accuracy")
    assert "route instrument (z_c); mean" in (finished / "results.md").read_text()
    for name in (
        "results.json",
        "results.md",
        "report.html",
        "figures/robustness.png",
        "figures/modalities.png",
        "figures/risks.png",
        "figures/reliability.png",
    ):
        assert (finished / name).stat().st_size > 500, name
    flags = ["--protocol=qmf_salt,subsets", "--protocol=missing", f"--baseline={finished}"]
    named = run_here(command_eval, monkeypatch, f"--workdir={finished}", *flags)
    expected = f"evaluate it first, by python -m c3r_jax eval --workdir={finished} --protocol=qmf_salt,subsets,missing"
    assert named.count("\n") == 0 and expected in named
    missing = run_here(command_eval, monkeypatch, "--workdir=nowhere")
    assert missing.count("\n") == 0 and "nowhere" in missing


def test_a_shifted_split_goes_to_its_own_folder(small_config, tmp_path):
    """The same checkpoint on the test split and on the one with reversed cues."""
    small_config.data.name = "emoji_shift"
    small_config.eval.protocols = ()
    fit(small_config, tmp_path)
    test, shift = evaluate(tmp_path), evaluate(tmp_path, split="shift")
    assert (test["split"], shift["split"]) == ("test", "shift")
    assert test["num_examples"] == shift["num_examples"] and test["checkpoint"] == shift["checkpoint"]
    assert json.loads((tmp_path / "shift" / "results.json").read_text())["split"] == "shift"
    assert json.loads((tmp_path / "results.json").read_text())["split"] == "test"
    assert test["conditions"][0]["routes"] != shift["conditions"][0]["routes"]


def test_a_run_of_other_machines_is_evaluated_here(finished):
    """Its layout (three devices to a parameter, 64 chunks a batch) fits no eight devices; the scores are the same."""
    expected = evaluate(finished)
    path = finished / "config.json"
    config = json.loads(path.read_text())
    config["parallel"] |= {"strategy": "mesh", "fsdp": 3, "min_size": 0}
    config["train"]["accumulation"] = 64
    path.write_text(json.dumps(config))
    found = evaluate(finished)
    for a, b in zip(expected["conditions"], found["conditions"], strict=True):
        for route in a["routes"]:
            assert a["routes"][route]["accuracy"] == b["routes"][route]["accuracy"]
            np.testing.assert_allclose(a["routes"][route]["nll"], b["routes"][route]["nll"], rtol=1e-5)
