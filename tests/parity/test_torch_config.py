"""C3RConfig of c3r_jax.torch is that of c3r_jax: fields, defaults, words about them, presets and refusals."""

import dataclasses
import re

import pytest

import c3r_jax
import c3r_jax.torch as c3r_torch
from c3r_jax.core.counterfactual_modes import MODES
from c3r_jax.core.tasks.base import NECESSITY_KINDS
from c3r_jax.torch import config, counterfactual_modes

pytestmark = pytest.mark.torch


def described(kind):
    """{field: what the docstring says of it}; references differ by where they point."""
    words = re.sub(r"c3r_jax\.(core|torch)?\.?", "", kind.__doc__.partition("Attributes:")[2].partition("Raises:")[0])
    return dict(re.findall(r"^      (\w+): (.*(?:\n        .*)*)", words, re.MULTILINE))


def test_fields_defaults_and_descriptions():
    ours, theirs = c3r_torch.C3RConfig, c3r_jax.C3RConfig
    assert [(f.name, f.type, f.default) for f in dataclasses.fields(ours)] == [
        (f.name, f.type, f.default) for f in dataclasses.fields(theirs)
    ]
    found, expected = described(ours), described(theirs)
    assert set(found) == {field.name for field in dataclasses.fields(ours)}
    assert {name for name in found if found[name] != expected[name]} == {"expert"}  # train.py has no PyTorch
    assert expected["expert"].startswith(found["expert"].removesuffix("."))


@pytest.mark.parametrize("preset", ["strong", "hinge", "paper"])
def test_presets(preset):
    ours, theirs = (getattr(of.C3RConfig, preset) for of in (c3r_torch, c3r_jax))
    assert dataclasses.asdict(ours()) == dataclasses.asdict(theirs())
    assert dataclasses.asdict(ours(ridge=0.5)) == dataclasses.asdict(theirs(ridge=0.5))
    assert ours.__doc__ == theirs.__doc__


def test_choices():
    assert config.MODES == tuple(MODES) == tuple(counterfactual_modes.MODES)
    assert config.NECESSITY_KINDS == NECESSITY_KINDS


@pytest.mark.parametrize(
    "changes",
    [
        {"lambda_n": -1.0},
        {"cap": float("nan")},
        {"label_smoothing": 1.0},
        {"instrument": "lasso"},
        {"counterfactual": "drop"},
        {"necessity": "l2"},
        {"attention_keys": "some"},
        {"stage_rows": "most"},
        {"num_steps": 0},
        {"num_heads": 1.5},
        {"expert": 2.0},
        {"expert": 1.0, "instrument": "none"},
        {"counterfactual": "instrumented", "instrument": "none"},
        {"shuffled": True, "instrument": "attention"},
        {"shuffled": True, "expert": 0.5},
        {"through_fuse": True},
    ],
)
def test_refusals_are_in_the_same_words(changes):
    with pytest.raises(ValueError) as expected:
        c3r_jax.C3RConfig(**changes)
    with pytest.raises(ValueError, match=re.escape(str(expected.value))):
        c3r_torch.C3RConfig(**changes)
