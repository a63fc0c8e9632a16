"""C3RConfig of c3r_jax.torch is that of c3r_jax, and its choices are those of both libraries."""

import pytest

import c3r_jax
import c3r_jax.torch as c3r_torch
from c3r_jax import objective_config
from c3r_jax.core.counterfactual_modes import MODES
from c3r_jax.torch import counterfactual_modes

pytestmark = pytest.mark.torch


def test_there_is_one():
    assert c3r_torch.C3RConfig is c3r_jax.C3RConfig


def test_choices():
    assert objective_config.MODES == tuple(MODES) == tuple(counterfactual_modes.MODES)


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
def test_refusals(changes):
    """In words that name the field and, but for a single choice, its value."""
    with pytest.raises(ValueError, match=f"C3RConfig.{next(iter(changes))} is "):
        c3r_torch.C3RConfig(**changes)
