"""Every leaf of every configuration is read by the code: a setting that does nothing is a trap."""

import importlib
import pathlib

import numpy as np
import pytest
from ml_collections import ConfigDict

from c3r_jax.evaluation.conditions import conditions_of
from c3r_jax.evaluation.trained import as_evaluated
from c3r_jax.models.build import build_model
from c3r_jax.training import experiment as module
from c3r_jax.training.compiled import compiled_for
from c3r_jax.training.loop import fit
from c3r_jax.training.method import build_method
from c3r_jax.training.workdir import flatten
from configs import base

REPOSITORY = pathlib.Path(__file__).parents[2]
SHARED = ("__init__", "base", "benchmark")  # what the configurations are made of
CONFIGS = sorted(path.stem for path in (REPOSITORY / "configs").glob("*.py") if path.stem not in SHARED)


def record_reads(config, prefix, seen):
    """A copy of ``config`` that notes which leaves are asked for one by one (a dump of the whole does not count)."""

    class Recording(ConfigDict):
        def __getitem__(self, name):
            value = super().__getitem__(name)
            if not isinstance(value, ConfigDict):
                seen.add(self.get_path() + name)
            return value

        def __getattr__(self, name):
            value = super().__getattr__(name)
            if not isinstance(value, ConfigDict) and not name.startswith("_"):
                seen.add(self.get_path() + name)
            return value

        def get_path(self):
            return object.__getattribute__(self, "_path")

    made = Recording()
    object.__setattr__(made, "_path", prefix)
    for name in config:
        value = config[name]
        inner = isinstance(value, ConfigDict)
        made[name] = record_reads(value, f"{prefix}{name}.", seen) if inner else value
    return made


def without_recording(dump, seen):
    """Dumping a part for a cache key or a file reads every leaf of it, and uses none."""

    def quiet(*args, **kwargs):
        before = set(seen)
        result = dump(*args, **kwargs)
        seen.intersection_update(before)
        return result

    return quiet


@pytest.mark.parametrize("name", CONFIGS)
def test_every_configuration_has_the_leaves_of_the_base(name):
    config = importlib.import_module(f"configs.{name}").get_config()
    assert flatten(config.to_dict()).keys() == flatten(base.get_config().to_dict()).keys()


def test_every_leaf_is_read(small_config, tmp_path, monkeypatch):
    seen: set[str] = set()
    reads = record_reads(small_config, "", seen)
    seen.clear()
    for dump in ("to_dict", "to_json"):
        monkeypatch.setattr(ConfigDict, dump, without_recording(getattr(ConfigDict, dump), seen))
    compiled_for.cache_clear()
    fit(reads, tmp_path)
    reads.data.tokenizer = "word_piece"  # the other tokeniser reads its own size
    made = module.build_experiment(as_evaluated(reads))
    conditions_of(made)
    reads.model.fusion, reads.optimizer.schedule = "cross_attention", "plateau"
    module.build_experiment(reads)
    kinds = {"a": "features", "b": "sequence", "c": "volume"}
    build_model(reads.model, kinds, 2, 4, made.method.c3r)
    reads.train.label_smoothing = 0.0
    for reads.task in ("regression", "segmentation"):
        build_method(reads, np.arange(4) % 2, 2)
    leaves = set(flatten(small_config.to_dict()))
    assert leaves - seen == set(), f"never read: {sorted(leaves - seen)}"


def test_recording_notices_a_leaf_nobody_reads(small_config):
    seen: set[str] = set()
    small_config.unlock()
    small_config.data.unused = 1
    reads = record_reads(small_config, "", seen)
    seen.clear()
    module.build_experiment(reads)
    assert "data.unused" not in seen and "data.name" in seen
