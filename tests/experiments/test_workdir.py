"""Configurations of earlier runs: what they lack has the value of that time, what nothing reads is refused."""

import json

import pytest

from c3r_jax.errors import WorkdirError
from c3r_jax.experiments.workdir import BEFORE, config_text, flatten, open_workdir, read_config
from configs import base
from configs.sweeps import ablation

YOUNGER = ("parallel", "task", ("optimizer", "name"), ("optimizer", "plateau_window"), ("data", "augment"))


@pytest.fixture
def old(small_config, tmp_path):
    """A directory as an early version left it, of ``small_config`` with batch size 32."""
    small_config.train.batch_size = 32
    written = json.loads(config_text(small_config))
    for name in YOUNGER:
        part, leaf = name if isinstance(name, tuple) else (None, name)
        del (written[part] if part else written)[leaf]
    (tmp_path / "config.json").write_text(json.dumps(written))
    return tmp_path


def test_leaves_added_since_the_run_take_their_default(old, caplog):
    config = read_config(old)
    defaults = base.get_config()
    assert flatten(config.to_dict()).keys() == flatten(defaults.to_dict()).keys()
    assert config.parallel.strategy == "pmap" and config.task == "classification"
    assert config.optimizer.name == "adamw" and config.data.augment.shift == defaults.data.augment.shift
    assert config.train.batch_size == 32  # what was written stays
    for leaf in ("config.parallel.fsdp=1", "config.task='classification'", "config.optimizer.plateau_window=50"):
        assert leaf in caplog.text
    caplog.clear()
    (old / "config.json").write_text(config_text(config))
    assert config_text(read_config(old)) == config_text(config) and not caplog.text


def test_an_old_run_keeps_the_objective_from_before_its_newer_parts(old):
    written = json.loads((old / "config.json").read_text())
    for leaf in ("expert", "subsets", "cap"):
        del written["c3r"][leaf]
    (old / "config.json").write_text(json.dumps(written))
    c3r = read_config(old).c3r
    assert (c3r.expert, c3r.subsets, c3r.cap) == (0.0, 0.0, 0.0)
    defaults = base.get_config().c3r
    assert (defaults.expert, defaults.subsets, defaults.cap) == (0.0, 0.95, 1.0)
    assert BEFORE.keys() <= flatten(base.get_config().to_dict()).keys()


@pytest.mark.parametrize(("switch", "share"), [(False, 0.0), (True, 0.9)])
def test_a_switch_of_an_old_run_is_read_as_a_share(old, switch, share, caplog):
    written = json.loads((old / "config.json").read_text())
    written["c3r"]["subsets"] = switch
    (old / "config.json").write_text(json.dumps(written))
    assert read_config(old).c3r.subsets == share
    assert f"has config.c3r.subsets={switch}, a number today: read as {share}." in caplog.text


def test_an_old_run_resumes_only_with_the_defaults(old, small_config):
    small_config.data.augment = base.get_config().data.augment
    small_config.optimizer.plateau_window = 7
    with pytest.raises(WorkdirError, match=r"\(config\.optimizer\.plateau_window: 50 there, 7 given\)"):
        open_workdir(old, small_config)
    small_config.optimizer.plateau_window = 50
    open_workdir(old, small_config)
    assert read_config(old).task == "classification"
    assert json.loads((old / "config.json").read_text())["parallel"]["strategy"] == "pmap"  # now written down


def test_unknown_leaves_are_refused_by_name(old):
    written = json.loads((old / "config.json").read_text())
    written["train"]["epochs"], written["mixup"] = 3, {"alpha": 0.1}
    (old / "config.json").write_text(json.dumps(written))
    with pytest.raises(WorkdirError, match=r"sets config\.mixup\.alpha, config\.train\.epochs, which this version"):
        read_config(old)


def test_a_study_is_no_run(tmp_path):
    (tmp_path / "config.json").write_text(config_text(ablation.get_config()))
    with pytest.raises(WorkdirError, match="holds a study of c3r sweep, but a run of c3r train was expected"):
        read_config(tmp_path)


def test_of_many_leaves_that_differ_the_first_are_named(old, small_config):
    small_config.update_from_flattened_dict({f"train.{name}": 7 for name in ("batch_size", "num_steps", "log_every")})
    small_config.update_from_flattened_dict(
        {f"c3r.{name}": 0.125 for name in ("lambda_s", "lambda_n", "lambda_v", "ridge")}
    )
    small_config.update_from_flattened_dict({f"optimizer.{name}": 7 for name in ("plateau_window", "plateau_patience")})
    with pytest.raises(WorkdirError) as caught:
        open_workdir(old, small_config)
    assert str(caught.value).count(" there, ") == 8 and "more): use another" in str(caught.value)


@pytest.mark.parametrize("content", ["[1, 2]", '{"seed": 0', '"text"'])
def test_corrupt_files_are_one_sentence(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(WorkdirError, match=r"config\.json cannot be read \(.*\): restore it, or train in a new"):
        read_config(tmp_path)
