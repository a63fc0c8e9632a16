"""Every leaf of every configuration is read by the code: a setting that does nothing is a trap."""

import dataclasses
import importlib
import pathlib
import sys

import numpy as np
import pytest

from c3r_jax.data.source import DatasetInfo
from c3r_jax.errors import DataError
from c3r_jax.evaluation.conditions import conditions_of
from c3r_jax.evaluation.environments import environment_report
from c3r_jax.experiments import experiment as module
from c3r_jax.experiments.check_config import check_data
from c3r_jax.experiments.compiled import compiled_for
from c3r_jax.experiments.open import as_evaluated
from c3r_jax.experiments.settings import read_settings
from c3r_jax.experiments.workdir import flatten
from c3r_jax.methods.build import build_method
from c3r_jax.models.branches import Branches
from c3r_jax.models.build import build_model
from c3r_jax.parallel.strategy import build_strategy
from c3r_jax.settings.fields import Part
from c3r_jax.settings.parallel import ParallelSettings
from c3r_jax.training.loop import fit
from configs import base

REPOSITORY = pathlib.Path(__file__).parents[2]
SHARED = ("__init__", "base", "benchmark")  # what the configurations are made of
CONFIGS = sorted(path.stem for path in (REPOSITORY / "configs").glob("*.py") if path.stem not in SHARED)


WHOLE = ("__hash__", "__eq__", "__repr__")  # what dataclasses do with all fields at once


@pytest.fixture
def seen(monkeypatch):
    """Names of the leaves that are asked for one by one, from the moment they are read from a configuration."""
    found: set[str] = set()

    plain = Part.__getattribute__

    def recorded(self, name):
        if sys._getframe(1).f_code.co_name not in WHOLE:
            found.add(f"{type(self).place}.{name}".lstrip("."))
        return plain(self, name)

    monkeypatch.setattr(Part, "__getattribute__", recorded)
    return found


@pytest.mark.parametrize("name", CONFIGS)
def test_every_configuration_has_the_leaves_of_the_base(name):
    config = importlib.import_module(f"configs.{name}").get_config()
    assert flatten(config.to_dict()).keys() == flatten(base.get_config().to_dict()).keys()


def test_every_leaf_is_read(small_config, tmp_path, seen):
    compiled_for.cache_clear()
    fit(small_config, tmp_path)
    small_config.data.tokenizer = "word_piece"  # the other tokeniser reads its own size
    made = module.build_experiment(as_evaluated(small_config))
    conditions_of(made)
    small_config.model.fusion, small_config.optimizer.schedule = "cross_attention", "plateau"
    module.build_experiment(small_config)
    kinds = {"a": "features", "b": "sequence", "c": "volume"}
    build_model(made.settings.model, kinds, 2, 4, made.method.c3r)
    small_config.train.label_smoothing = 0.0
    build_strategy(ParallelSettings(strategy="mesh"))
    for task in ("regression", "segmentation"):
        small_config.task = task
        build_method(read_settings(small_config).of_method, np.arange(4) % 2, 2)
    validation = made.sources["validation"]  # a set that says where its examples are from
    validation.info = dataclasses.replace(validation.info, environment="site", environments=("A",))
    validation.environment = np.zeros(len(validation), int)
    logits = {"representation": np.zeros((len(validation), 9))}
    branches = Branches(**{**dict.fromkeys(Branches._fields), "logits": logits})
    environment_report(made, "validation", branches, validation.labels, ("representation",))
    seen.add("train.keep_programs")  # read by commands before there is a run: tests/test_caches.py
    # The leaves of c3r and rival are the fields of C3RConfig and Rival, by construction.
    leaves = {name for name in flatten(small_config.to_dict()) if not name.startswith(("c3r.", "rival."))}
    assert leaves - seen == set(), f"never read: {sorted(leaves - seen)}"


def test_classes_and_modalities_are_at_least_two(small_config):
    infos = [DatasetInfo("demo", ("image", "text"), names) for names in (("a",), ("a", "b"))]
    with pytest.raises(
        DataError, match=r"'demo' has the classes \['a'\], but at least 2 classes were expected: prepare"
    ):
        check_data(read_settings(small_config), infos[0])
    check_data(read_settings(small_config), infos[1])
    with pytest.raises(DataError, match="'demo' has 'text' alone, but runs need two modalities or more: prepare it"):
        check_data(read_settings(small_config), DatasetInfo("demo", ("text",), ("a", "b")))
    small_config.task = "softmax"
    check_data(read_settings(small_config), infos[0])  # pairs have no labels


def test_recording_notices_a_leaf_nobody_reads(small_config, seen):
    module.build_experiment(small_config)
    assert "train.log_every" not in seen and "data.name" in seen and "data.tokenizer" in seen
