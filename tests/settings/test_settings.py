"""The base configuration is made of the settings' parts, and nothing of it has changed."""

import json
import pathlib

import pytest

from c3r_jax.errors import ConfigError
from c3r_jax.experiments.settings import Settings, all_leaves, default_config, read_settings
from configs import base

SNAPSHOT = json.loads((pathlib.Path(__file__).parent / "base_leaves.json").read_text(encoding="utf-8"))


def flat(config, prefix=""):
    """[name, type, value] of every leaf, in the configuration's own order; tuples as lists."""
    found = []
    for name, value in config.items():
        if hasattr(value, "items"):
            found += flat(value, f"{prefix}{name}.")
        else:
            found.append([prefix + name, type(value).__name__, list(value) if isinstance(value, tuple) else value])
    return found


def test_the_base_configuration_has_the_leaves_it_always_had():
    assert flat(base.get_config()) == SNAPSHOT and len(SNAPSHOT) == 150


def test_every_leaf_has_one_line_that_says_what_it_means():
    found = {leaf.name: leaf for leaf in all_leaves()}
    assert sorted(found) == [name for name, _, _ in SNAPSHOT]
    assert all(len(leaf.meaning) > 5 and "\n" not in leaf.meaning for leaf in found.values())
    assert found["train.ema_decay"].bounds == "0 (off) <= decay < 1"
    assert (
        found["c3r.lambda_v"].meaning
        == "Weight of the relevance loss (first stage), which by default is measured and not trained."
    )


def test_a_configuration_read_from_json_is_the_same():
    saved = json.loads(default_config().to_json())
    assert saved["model"]["text"]["orders"] == [2, 3, 4, 5]
    assert read_settings(type(default_config())(saved)) == read_settings(default_config())
    assert read_settings(default_config()).model == Settings().model


@pytest.mark.parametrize(
    ("leaf", "value", "message"),
    [
        ("seed", -1, "config.seed is -1: expected a whole number of at least 0."),
        ("train.steps", "many", "config.train.steps is 'many': expected a whole number of at least 1."),
        ("train.steps", True, "config.train.steps is True: expected a whole number"),
        ("train.spike", float("nan"), r"config.train.spike is nan: expected 0 \(off\) or a positive number."),
        ("data.keep", 1, "config.data.keep is 1: expected True or False."),
        ("data.name", 1, "config.data.name is 1: expected a text."),
        ("data.augment.flip", "yes", "config.data.augment.flip is 'yes': expected True or False."),
        ("data.volume_size", (8,), r"config.data.volume_size is \(8,\): expected three sides of at least 1 voxel"),
        ("model.image.block", "conv", "config.model.image.block is 'conv': expected 'mixer' or 'transformer'."),
        ("eval.protocols", "salt", "config.eval.protocols is 'salt': expected a tuple."),
        ("regression.tolerance", float("inf"), "config.regression.tolerance is inf: expected a positive number."),
        ("c3r.ridge", "small", "config.c3r.ridge is 'small': expected a number."),
        ("c3r.ridge", -1.0, "config.c3r cannot be used: C3RConfig.ridge is -1.0"),
        ("c3r.lambda", 1.0, "config.c3r.lambda is unknown: expected one of w_task, lambda_s"),
        ("rival.warmup", 1.5, "config.rival.warmup is 1.5: expected a whole number."),
        ("train.epochs", 1, "config.train.epochs is unknown: expected one of steps, "),
        ("trian", 1, "config.trian is unknown: expected one of seed, task"),
    ],
)
def test_what_cannot_be_used_is_named(leaf, value, message):
    tree = json.loads(default_config().to_json())
    part = tree
    *parents, last = leaf.split(".")
    for parent in parents:
        part = part[parent]
    part[last] = value
    with pytest.raises(ConfigError, match=message):
        read_settings(type(default_config())(tree))
