"""The training loop: exact resume, selection, and what stops it."""

import dataclasses
import json
import signal
import subprocess
import sys
import time

import chex
import jax
import numpy as np
import pytest

import c3r_jax.evaluation.validate as validation
from c3r_jax.commands import train
from c3r_jax.errors import CheckpointError, ConfigError, NonFiniteError, WorkdirError
from c3r_jax.experiments.experiment import Experiment, build_experiment
from c3r_jax.experiments.metrics_log import read_history
from c3r_jax.training import health as watching
from c3r_jax.training.loop import LoopState, fit
from tests.comparing import last_state
from tests.processes import command_environment, run_here, train_command


@pytest.fixture
def whole_run(small_config, tmp_path):
    result = fit(small_config, tmp_path / "whole")
    return result


def test_run_writes_all_its_files(small_config, whole_run):
    path = whole_run.workdir
    assert whole_run.steps == 12 and not whole_run.stopped_early
    history = read_history(path)
    assert [(line["step"], line["split"]) for line in history] == [
        *[(step, "train") for step in range(1, 5)],
        (4, "validation"),
        *[(step, "train") for step in range(5, 9)],
        (8, "validation"),
        *[(step, "train") for step in range(9, 13)],
        (12, "validation"),
    ]
    train = history[0]["values"]
    terms = {"loss", "task", "sufficiency", "necessity", "relevance", "closeness", "learning_rate"}
    risks = {"risk_sufficiency", "risk_necessity", "risk_total", "risk_lower", "risk_upper", "risk_joint"}
    assert terms | risks | {"r2/image", "f/image", "r2/text", "f/text"} <= train.keys()
    validation = [line["values"] for line in history if line["split"] == "validation"]
    best = max(values["mean_accuracy"] for values in validation)
    assert whole_run.best == best
    for values in validation:
        subsets = [values["accuracy"], values["accuracy/image"], values["accuracy/text"]]
        np.testing.assert_allclose(values["mean_accuracy"], np.mean(subsets))
        assert values["risk_lower"] <= values["risk_joint"] + 1e-6 <= values["risk_upper"] + 2e-6
    assert list((path / "tensorboard").glob("events.*"))
    assert json.loads((path / "config.json").read_text())["method"] == "c3r"


def test_a_smoke_run_is_shorter_than_its_warm_up_and_says_so(small_config, tmp_path, caplog, capsys):
    small_config.optimizer.warmup_steps, small_config.train.steps = 30, 4
    with caplog.at_level("WARNING", "absl"):
        result = fit(small_config, tmp_path)
    assert result.steps == 4
    first, at_validation = capsys.readouterr().out.splitlines()  # the first long before a validation of a real run
    loss = read_history(tmp_path)[0]["values"]["loss"]
    assert " step 1/4 " in first and first.endswith(f"loss {loss:.3f}") and " step 4/4 " in at_validation
    assert "warmup_steps is 30, but the run has 4 steps: the warm-up is cut to 3" in caplog.text
    rates = [line["values"]["learning_rate"] for line in read_history(tmp_path) if line["split"] == "train"]
    np.testing.assert_allclose(rates, small_config.optimizer.learning_rate * np.arange(1, 5) / 4, rtol=1e-5)


def test_interrupted_run_ends_like_an_uninterrupted_one(small_config, whole_run, tmp_path, monkeypatch):
    """An error at step 7, after the checkpoint of step 4: resumed, everything is equal to the last bit."""

    class Interrupted(Exception):
        pass

    original = watching.first_non_finite
    looked = []

    def stop_at_seven(values):
        looked.append(1)
        if len(looked) == 7:
            raise Interrupted
        return original(values)

    monkeypatch.setattr(watching, "first_non_finite", stop_at_seven)
    with pytest.raises(Interrupted):
        fit(small_config, tmp_path / "parts")
    monkeypatch.setattr(watching, "first_non_finite", original)
    assert read_history(tmp_path / "parts")[-1]["step"] == 6
    result = fit(small_config, tmp_path / "parts")
    assert (result.best, result.best_step) == (whole_run.best, whole_run.best_step)
    assert read_history(tmp_path / "parts") == read_history(tmp_path / "whole")
    whole, parts = last_state(small_config, tmp_path / "whole"), last_state(small_config, tmp_path / "parts")
    assert whole[0] == parts[0] == 12
    chex.assert_trees_all_equal(whole[1], parts[1])
    assert fit(small_config, tmp_path / "parts").steps == 12  # and a finished run has nothing left to do


def test_the_gate_is_that_of_the_last_validation(small_config, tmp_path, monkeypatch):
    """Shut where that finds nothing explained; it is kept with the checkpoint, and older ones have none."""
    small_config.optimizer.learning_rate, small_config.train.eval_every = 0.03, 6
    shares = {}
    for share in (0.0, 1.0):
        monkeypatch.setattr(validation, "validation_share", lambda *_, share=share: share)
        fit(small_config, tmp_path / str(share))
        history = read_history(tmp_path / str(share))
        shares[share] = [line["values"]["explained"] for line in history if line["split"] == "train"]
    assert shares[0.0][:6] == shares[1.0][:6]
    assert shares[0.0][6:] == [0.0] * 6 and shares[1.0][6:] == [1.0] * 6
    state = LoopState(explained=0.25)
    progress = json.loads(json.dumps(dataclasses.asdict(state)))
    assert LoopState.read(progress, 4) == state
    assert LoopState.read({"selection": progress["selection"]}, 4).explained is None


@pytest.mark.slow
def test_killed_run_ends_like_an_uninterrupted_one(small_config, whole_run, tmp_path):
    """kill -9 once the first checkpoint stands; the same command then goes on and ends with the same numbers."""
    workdir = tmp_path / "killed"
    with open(tmp_path / "log", "w") as log:
        process = subprocess.Popen(
            train_command(small_config, workdir), stdout=log, stderr=log, env=command_environment()
        )
        deadline = time.monotonic() + 240
        while not (workdir / "checkpoints" / "4").exists():
            assert process.poll() is None and time.monotonic() < deadline, (tmp_path / "log").read_text()
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert fit(small_config, workdir).steps == 12  # what `whole_run` compiled serves again
    assert read_history(workdir) == read_history(tmp_path / "whole")
    chex.assert_trees_all_equal(last_state(small_config, workdir)[1], last_state(small_config, whole_run.workdir)[1])


@pytest.mark.parametrize("damage", ["truncate", "delete", "flip"])
def test_corrupt_checkpoint_is_named_and_the_one_before_used(small_config, whole_run, damage, caplog):
    path = whole_run.workdir
    expected = last_state(small_config, path)[1]
    history = read_history(path)
    files = [file for file in (path / "checkpoints" / "12" / "state").rglob("*") if file.is_file()]
    victim = max(files, key=lambda file: file.stat().st_size)
    content = victim.read_bytes()
    if damage == "delete":
        victim.unlink()
    elif damage == "truncate":
        victim.write_bytes(content[: len(content) // 2])
    else:
        victim.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert fit(small_config, path).steps == 12
    assert f"Checkpoint 12 in {path / 'checkpoints'} is damaged" in caplog.text
    assert victim.name in caplog.text and ("missing" if damage == "delete" else "changed or truncated") in caplog.text
    assert read_history(path) == history
    chex.assert_trees_all_equal(last_state(small_config, path)[1], expected)


def test_no_usable_checkpoint_is_an_error(small_config, whole_run):
    for directory in (whole_run.workdir / "checkpoints").iterdir():
        for file in (directory / "state").rglob("*"):
            if file.is_file():
                file.write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"No usable checkpoint in .*checkpoint 12: its file state"):
        fit(small_config, whole_run.workdir)


def test_another_configuration_is_refused_by_name(small_config, whole_run):
    small_config.optimizer.learning_rate = 1e-3
    with pytest.raises(WorkdirError, match=r"config\.optimizer\.learning_rate: 0\.004 there, 0\.001 given"):
        fit(small_config, whole_run.workdir)


def test_patience_stops_on_validation_alone(small_config, tmp_path):
    small_config.optimizer.learning_rate = 0.0  # nothing changes, so nothing gets better after the first validation
    small_config.train.steps = 40
    small_config.train.patience = 2
    result = fit(small_config, tmp_path)
    assert (result.steps, result.best_step, result.stopped_early) == (12, 4, True)
    assert fit(small_config, tmp_path).steps == 12


@pytest.fixture
def poisoned(monkeypatch):
    """A function that puts labels out of range, which are NaN on the device, into the given steps' batches."""
    original = Experiment.train_iterator

    def poison(*steps):
        def train_iterator(self, **settings):
            iterator = original(self, **settings)
            draw = type(iterator).__next__

            class Poisoned(type(iterator)):
                def __next__(self):
                    batch = draw(self)
                    if self.get_state()["next_batch"] in steps:
                        batch["labels"] = np.full_like(batch["labels"], 99)
                    return batch

            iterator.__class__ = Poisoned
            return iterator

        monkeypatch.setattr(Experiment, "train_iterator", train_iterator)

    return poison


def test_non_finite_loss_stops_and_keeps_the_last_checkpoint(small_config, tmp_path, poisoned):
    poisoned(7)
    with pytest.raises(NonFiniteError, match=r"step 7: task is nan.*checkpoint 4 in .* is the last good one"):
        fit(small_config, tmp_path)
    step, state = last_state(small_config, tmp_path)
    assert step == 4
    chex.assert_tree_all_finite(state.params)
    record = json.loads((tmp_path / "non_finite" / "step-7.json").read_text())
    batches = build_experiment(small_config).train_iterator()
    index = [next(batches)["index"].tolist() for _ in range(7)][-1]
    batches.close()
    assert record["step"] == 7 and record["not_finite"] == "task" and record["examples"] == index
    assert record["values"]["task"] == "nan" and record["inputs_not_finite"] == {}


def test_non_finite_steps_may_be_left_out_and_are_counted(small_config, tmp_path, poisoned, caplog):
    small_config.train.skip_non_finite = 1
    poisoned(2, 7)
    small_config.train.steps = 8
    assert fit(small_config, tmp_path / "left_out").steps == 8
    history = read_history(tmp_path / "left_out")
    skipped = [(line["step"], line["values"]) for line in history if line["split"] == "skipped"]
    assert skipped == [(2, {"count": 1}), (7, {"count": 2})]
    assert "step 7: task is nan, for 64 examples have a label that is no class of the model; its" in caplog.text
    assert "update is skipped (2 so far)" in caplog.text
    step, state = last_state(small_config, tmp_path / "left_out")
    assert step == state.step == 8
    chex.assert_tree_all_finite(state)
    counts = [x for path, x in jax.tree_util.tree_leaves_with_path(state.opt_state) if "count" in str(path)]
    assert counts and all(count == 6 for count in counts)  # updates that were made
    poisoned(6, 7)
    with pytest.raises(NonFiniteError, match=r"step 7: task is nan.*\(1 steps in a row were skipped before\)"):
        fit(small_config, tmp_path / "too_many")
    step, state = last_state(small_config, tmp_path / "too_many")
    assert step == 4
    chex.assert_tree_all_finite(state)


def test_workdir_that_cannot_be_made(small_config, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkdirError, match="cannot be made"):
        fit(small_config, tmp_path / "file" / "run")


@pytest.mark.slow
def test_full_disk_is_one_sentence(small_config, tmp_path):
    """No file may grow beyond 20 kB: the checkpoint cannot be written, and the error says so, with the remedy."""
    program = (
        "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000)); "
        "sys.argv = sys.argv[1:]; sys.dont_write_bytecode = True; "
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    command = [sys.executable, "-c", program, *train_command(small_config, tmp_path / "run")[1:]]
    done = subprocess.run(command, capture_output=True, text=True, env=command_environment())
    assert done.returncode == 1
    # The storage library's own threads print to the same stream, before our sentence or after it.
    sentences = [line for line in done.stderr.splitlines() if line.startswith("train.py: ")]
    assert len(sentences) == 1 and "cannot be written" in sentences[0] and "free space" in sentences[0], done.stderr


def test_a_mistyped_setting_stops_before_any_work(small_config, tmp_path, monkeypatch):
    arguments = [*train_command(small_config, tmp_path / "run")[2:], "--config.method=c4r"]
    said = run_here(train, monkeypatch, *arguments)
    assert said == "c3r: config.method is 'c4r': expected one of plain, modality_dropout, c3r."
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("leaf", "value", "message"),
    [
        ("data.name", "emojis", "expected one of emoji"),
        ("task", "clip", "expected one of classification, multilabel, regression, segmentation, softmax, sigmoid"),
        ("data.tokenizer", "words", "expected 'bytes', 'word_piece' or the path"),
        ("model.fusion", "sum", "expected one of mean, concat, gated, cross_attention"),
        ("model.dtype", "float16", "expected one of float32, bfloat16"),
        ("optimizer.name", "adamax", "expected one of adamw, adam, sgd, adafactor, lion"),
        ("optimizer.schedule", "step", "expected one of cosine, linear, constant, plateau"),
        ("optimizer.warmup_steps", -1, "expected"),
        ("optimizer.weight_decay", -1.0, "expected a number >= 0"),
        ("train.batch_size", 60, "expected a positive multiple of 8 (8 devices"),
        ("train.accumulation", 0, "expected a whole number"),
        ("train.ema_decay", 1.0, "expected 0 (off) <= decay < 1"),
        ("parallel.strategy", "ddp", "expected one of pmap, mesh"),
        ("parallel.fsdp", 2, "use config.parallel.strategy='mesh'"),
        ("train.steps", 0, "expected a whole number of at least 1"),
        ("train.select_by", "auroc", "two classes"),
        ("train.select_by", "loss", "expected 'accuracy' or 'mean_accuracy'"),
        ("seed", 2**32, "config.seed is 4294967296: expected a whole number below 2**32"),
        ("train.moments_decay", 1.0, "expected 0 <= decay < 1"),
        ("modality_dropout.rate", 1.5, "expected a share between 0 and 1"),
        ("modality_dropout.switch", "maybe", "expected 'auto', 'on' or 'off'"),
        ("c3r.necessity", "hing", "expected one of hinge, log, kl"),
        ("c3r.lambda_n", -1.0, "expected"),
        ("eval.split", "train", "expected one of validation, test"),
    ],
)
def test_unusable_leaves_are_named(small_config, leaf, value, message):
    small_config.update_from_flattened_dict({leaf: value})
    with pytest.raises(ConfigError) as caught:
        build_experiment(small_config)
    assert leaf.split(".")[-1] in str(caught.value) and message in str(caught.value)
