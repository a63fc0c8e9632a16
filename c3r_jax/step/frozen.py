"""Frozen parameters: splitting them from the trained ones and joining both."""

from typing import Any

import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from c3r_jax.models.twin import TwinNetwork, frozen_encoders
from c3r_jax.step.layer_decay import BACKBONE


def split_frozen(params: Any, model: TwinNetwork) -> tuple[Any, Any]:
    """Splits the parameters into trained ones, and frozen backbones with the statistics of all batch norms."""
    frozen = _frozen(model)
    trained, frozen_part = {}, {}
    for path, value in flatten_dict(params).items():
        fixed = path[-1].startswith("running_") or path[:2] in frozen
        (frozen_part if fixed else trained)[path] = value
    return unflatten_dict(trained), unflatten_dict(frozen_part)


def blank_frozen(params: Any, model: TwinNetwork) -> Any:
    """Fresh parameters with zeros for frozen backbones, whose weights are read later: no random values are needed."""
    frozen = _frozen(model)
    leaves: dict[tuple[str, ...], Any] = flatten_dict(params)
    return unflatten_dict({path: jnp.zeros_like(x) if path[:2] in frozen else x for path, x in leaves.items()})


def _frozen(model: TwinNetwork) -> set[tuple[str, str]]:
    """Paths of frozen backbones among the parameters."""
    return {(f"encoders_{name}", BACKBONE) for name in frozen_encoders(model.encoders)}


def joined(trained: Any, kept: Any) -> Any:
    """The parameters that :func:`split_frozen` split."""
    return unflatten_dict({**flatten_dict(trained), **flatten_dict(kept)})
