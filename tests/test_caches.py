"""Compiled programs are forgotten before a process runs out of memory mappings, and nothing else changes."""

import json
import os
import subprocess
import sys

import jax
import pytest
from ml_collections import ConfigDict

from c3r_jax import C3RClassifier
from c3r_jax import caches as programs
from c3r_jax.data.sets.structural import StructuralModel
from c3r_jax.experiments.compiled import compiled_for
from c3r_jax.experiments.experiment import build_experiment
from c3r_jax.step.in_memory import run_of
from c3r_jax.sweep.engine import compiled_chunk
from c3r_jax.sweep.grid import SweepRun, read_cells, run_structure
from c3r_jax.sweep.settings import read_sweep
from c3r_jax.training.loop import fit
from configs.sweeps import base
from tests.processes import command_environment


def test_programs_of_many_settings_are_forgotten_and_compiled_again_to_the_same_numbers(small_config, tmp_path):
    small_config.train.steps = small_config.train.eval_every = 2
    small_config.optimizer.warmup_steps, small_config.method = 1, "plain"
    programs.make_room(share=0.0)  # else what earlier tests compiled may be forgotten in the middle of this one
    losses, counts = [], []
    for i, width in enumerate((4, 6, 4)):
        small_config.model.dim = width
        fit(small_config, tmp_path / str(i))
        lines = (tmp_path / str(i) / "metrics.jsonl").read_text().splitlines()
        losses.append([json.loads(line)["values"]["loss"] for line in lines if '"train"' in line])
        counts.append(programs.count_mappings())
        if i == 1:
            assert programs.make_room(share=0.0)
    assert losses[0] == losses[2] != losses[1]
    assert counts[1] - counts[0] > 200  # what one more setting takes
    assert counts[2] < counts[1]


@pytest.mark.parametrize("build", ["experiment", "estimator", "study"])
def test_room_is_made_before_a_new_setting_is_built(build, small_config, monkeypatch):
    calls = []
    monkeypatch.setattr(jax, "clear_caches", lambda: calls.append(1))
    monkeypatch.setattr(programs.make_room, "__defaults__", (0.0,))
    for function in (compiled_for, run_of, compiled_chunk):
        function.cache_clear()
    if build == "experiment":
        build_experiment(small_config), build_experiment(small_config)
    elif build == "study":
        study = base.get_config()
        study.cells = ConfigDict({"plain": {"regularised": False}})
        settings = read_sweep(study)
        made = run_structure(settings, read_cells(settings)[0], SweepRun("anticausal", "plain", (), 0))
        assert compiled_chunk(made) is compiled_chunk(made)
    else:
        sample = StructuralModel("confounded").sample(64, seed=0)
        for seed in (0, 1):
            model = C3RClassifier(dim=4, hidden=(4,), steps=2, seed=seed, validation_fraction=0.0)
            with pytest.warns(UserWarning, match="validation_fraction is 0"):
                model.fit(sample.inputs, sample.labels)
    assert calls == [1]  # a setting that is known is not new


@pytest.mark.parametrize(
    ("taken", "most", "forgotten"), [(400, 1000, False), (401, 1000, True), (401, None, False), (None, 1000, False)]
)
def test_programs_are_forgotten_beyond_the_share_where_the_system_tells(taken, most, forgotten, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(jax, "clear_caches", lambda: calls.append(1))
    for name, text in (("MAPS_FILE", taken and "a\n" * taken), ("MAPS_LIMIT_FILE", most and f"{most}\n")):
        monkeypatch.setattr(programs, name, tmp_path / name)
        if text is not None:
            (tmp_path / name).write_text(text)
    assert programs.count_mappings() == (taken or 0)
    assert programs.make_room() is forgotten and calls == [1] * forgotten


def run_with_cache(folder, program, **changes):
    unset = ("JAX_ENABLE_COMPILATION_CACHE", "JAX_COMPILATION_CACHE_DIR")
    environment = {name: value for name, value in command_environment().items() if name not in unset}
    environment |= {"XDG_CACHE_HOME": str(folder), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", **changes}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr
    return done.stdout.split()


def test_commands_keep_programs_in_the_users_folder_unless_they_are_asked_not_to(tmp_path):
    compile_one = """
from c3r_jax import caches
kept = caches.keep_programs()
import jax, jax.numpy as jnp
{}
print(kept, float(jax.jit(lambda x: jnp.tanh(x) * 3 + x)(1.0)))
"""
    first = run_with_cache(tmp_path / "on", compile_one.format(""))
    files = {path.name for path in (tmp_path / "on/c3r_jax/programs").glob("*/*-cache")}
    assert files and first[0] == "True"
    assert run_with_cache(tmp_path / "on", compile_one.format("")) == first
    assert {path.name for path in (tmp_path / "on/c3r_jax/programs").glob("*/*-cache")} == files
    assert run_with_cache(tmp_path / "leaf", compile_one.format("caches.stop_keeping()")) == first
    off = run_with_cache(tmp_path / "off", compile_one.format(""), JAX_ENABLE_COMPILATION_CACHE="false")
    assert off == ["False", first[1]]
    assert not list(tmp_path.glob("leaf/**/*-cache")) and not (tmp_path / "off").exists()


def test_without_a_limit_no_programs_are_kept(tmp_path):
    program = """
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "filelock" else find(name, *rest)
from c3r_jax import caches
print(caches.keep_programs())
"""
    assert run_with_cache(tmp_path, program) == ["False"] and not list(tmp_path.iterdir())


def test_programs_have_no_folder_where_none_can_be_made(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.delenv("JAX_ENABLE_COMPILATION_CACHE", raising=False)
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.delitem(sys.modules, "jax")
    assert not programs.keep_programs() and "JAX_COMPILATION_CACHE_DIR" not in os.environ
