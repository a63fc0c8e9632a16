"""Metrics and figures reach every writer, once; missing packages are reported before any work."""

import importlib.machinery
import json
import struct
import sys
import time
import types

import numpy as np
import pytest
from PIL import Image

from c3r_jax.errors import ConfigError
from c3r_jax.experiments import metric_writers as module
from c3r_jax.experiments.metrics_log import MetricsLog, read_history
from c3r_jax.experiments.workdir import config_text
from c3r_jax.training.loop import fit


@pytest.fixture
def workdir(small_config, tmp_path):
    (tmp_path / "config.json").write_text(config_text(small_config))
    return tmp_path


@pytest.fixture
def figure(tmp_path):
    Image.fromarray(np.full((6, 8, 3), 200, np.uint8)).save(tmp_path / "figure.png")
    return tmp_path / "figure.png"


@pytest.fixture
def services(monkeypatch):
    """Stand-ins for wandb and mlflow with the calls that they would get."""
    calls = []

    def note(name, result=None):
        def called(*args, **kwargs):
            calls.append((name, args, kwargs))
            return result

        return called

    run = types.SimpleNamespace(id="abc", log=note("wandb.log"), finish=note("wandb.finish"))
    started = types.SimpleNamespace(info=types.SimpleNamespace(run_id="xyz"))
    made = {
        "wandb": {"init": note("wandb.init", run), "Image": lambda path, caption: (path, caption)},
        "mlflow": {
            "start_run": note("mlflow.start_run", started),
            **{name: note(f"mlflow.{name}") for name in ("log_dict", "log_metrics", "log_artifact", "end_run")},
        },
    }
    for name, contents in made.items():
        fake = types.ModuleType(name)
        fake.__spec__ = importlib.machinery.ModuleSpec(name, None)
        fake.__dict__.update(contents)
        monkeypatch.setitem(sys.modules, name, fake)
    return calls


def events(workdir):
    """(step, tag, kind) of every event of every file, in order."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for path in sorted((workdir / "tensorboard").iterdir()):
        content = path.read_bytes()
        while content:
            (length,) = struct.unpack("<Q", content[:8])
            event = Event.FromString(content[12 : 12 + length])
            content = content[16 + length :]
            found += [(event.step, value.tag, value.WhichOneof("value")) for value in event.summary.value]
    return found


def test_all_writers_get_the_same(workdir, figure, services):
    for after, step in ((0, 3), (3, 4)):  # a run, and the same run gone on with
        log = MetricsLog(workdir, after, after, ("tensorboard", "wandb", "mlflow"))
        log.write(step, "train", {"loss": 0.5, "r2/image": 0.25})
        log.close()
    names = ("tensorboard", "wandb", "mlflow")
    module.write_figures(names, workdir, {"figures/shift/robustness": figure}, 4)
    assert [line["step"] for line in read_history(workdir)] == [3, 4]
    tags = [(step, f"train/{name}", "simple_value") for step in (3, 4) for name in ("loss", "r2/image")]
    assert events(workdir) == [*tags, (4, "figures/shift/robustness", "image")]
    values = {"train/loss": 0.5, "train/r2/image": 0.25}
    by_name = {}
    for name, args, kwargs in services:
        by_name.setdefault(name, []).append((args, kwargs))
    resumed = [(given["id"], given["resume"], given["name"]) for _, given in by_name["wandb.init"]]
    assert resumed == [(None, None, workdir.name), *[("abc", "allow", workdir.name)] * 2]
    assert by_name["wandb.init"][0][1]["config"]["method"] == "c3r"
    image = ({"figures/shift/robustness": (str(figure), "step 4")},)
    assert by_name["wandb.log"] == [((values,), {"step": 3}), ((values,), {"step": 4}), (image, {})]
    assert by_name["mlflow.start_run"] == [((), {"run_name": workdir.name}), *[((), {"run_id": "xyz"})] * 2]
    assert by_name["mlflow.log_metrics"] == [((values,), {"step": 3}), ((values,), {"step": 4})]
    assert by_name["mlflow.log_artifact"] == [((str(figure),), {"artifact_path": "figures/shift"})]
    assert len(by_name["mlflow.log_dict"]) == 1 and len(by_name["wandb.finish"]) == len(by_name["mlflow.end_run"]) == 3


def test_writers_within_one_second_have_files_of_their_own(workdir, figure, monkeypatch):
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    monkeypatch.setattr(time, "time_ns", lambda: int(now * 1e9))
    for loss in (0.25, 0.5):  # the same start twice
        log = MetricsLog(workdir, 2, 2, ("tensorboard",))
        log.write(3, "train", {"loss": loss})
        log.close()
    for name in ("figures/a", "figures/b"):
        module.write_figures(("tensorboard",), workdir, {name: figure}, 3)
    assert len(list((workdir / "tensorboard").iterdir())) == 4
    assert [tag for _, tag, _ in events(workdir)] == ["train/loss", "train/loss", "figures/a", "figures/b"]


def test_missing_packages_are_refused_before_any_work(small_config, tmp_path, figure, monkeypatch):
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None if name == "wandb" else object())
    small_config.train.writers = ("tensorboard", "wandb")
    with pytest.raises(ConfigError, match="has 'wandb', but the package wandb is not installed: pip install wandb, or"):
        fit(small_config, tmp_path / "run")
    small_config.train.writers = ("tensorbord",)
    with pytest.raises(ConfigError, match="has 'tensorbord': expected any of tensorboard, wandb, mlflow"):
        fit(small_config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    (tmp_path / "config.json").write_text(json.dumps({}))
    module.write_figures(["wandb"], tmp_path, {"figures/a": figure}, 1)  # evaluated elsewhere: it is left out
    assert not (tmp_path / "tensorboard").exists()


def test_nothing_is_imported_that_is_not_written_to(workdir, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)  # importing it is an error
    log = MetricsLog(workdir, 0, 0)
    log.write(1, "train", {"loss": 1.0})
    log.close()
    assert read_history(workdir)[0]["values"] == {"loss": 1.0}
