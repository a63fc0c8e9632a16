"""The estimator's compiled run, shared by all fits of one shape: a grid search over weights compiles once."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
import optax

from c3r_jax.core.regularizer import C3RConfig
from c3r_jax.evaluation.branches import BranchRunner
from c3r_jax.models.blocks import Intervener
from c3r_jax.models.build import build_fusion, head_of
from c3r_jax.models.encoders import FeatureEncoder
from c3r_jax.models.fusion import OfficialFusion
from c3r_jax.models.twin import TwinNetwork
from c3r_jax.programs import make_room
from c3r_jax.rivals.settings import NO_RIVAL, Rival
from c3r_jax.training.arrays import Rows, train_on_arrays
from c3r_jax.training.method import Method

WEIGHTS = ("w_task", "lambda_s", "lambda_n", "lambda_v", "lambda_fe")
STRENGTH = len(WEIGHTS)  # the place of the rival's strength behind them
BLOCK = 1024  # training sets are padded to a multiple of it, so that folds of nearly equal size share a program


class Structure(NamedTuple):
    """What a compiled program depends on, besides the shapes of its arrays.

    Attributes:
      modalities: names.
      num_classes: K.
      hidden: widths of the encoders' hidden layers.
      dim: width of the representations.
      config: modes; weights that are not 0 count as 1 (their values are arguments of the program).
      regularised: whether C3R terms are trained on.
      dropout: rate of modality dropout.
      official: train on the public PyTorch code's objective instead.
      fusion: as ``config.model.fusion`` names it.
      rival: as ``config.rival`` gives it; its strength counts as 1, like the weights.
    """

    modalities: tuple[str, ...]
    num_classes: int
    hidden: tuple[int, ...]
    dim: int
    config: C3RConfig
    regularised: bool
    dropout: float
    official: bool = False
    fusion: str = "mean"
    rival: Rival = NO_RIVAL


def structure_of(config: C3RConfig) -> C3RConfig:
    """The configuration with every weight 0 or 1: a weight that is 0 switches its term off in the program."""
    return dataclasses.replace(config, **{name: float(getattr(config, name) > 0) for name in WEIGHTS})


def weights_of(config: C3RConfig, strength: float = 1.0) -> np.ndarray:
    """The weights in the order of :data:`WEIGHTS` and the rival's strength, (6,) float32."""
    return np.array([*(getattr(config, name) for name in WEIGHTS), strength], np.float32)


@functools.lru_cache(maxsize=32)
def model_of(structure: Structure) -> tuple[TwinNetwork, BranchRunner, Callable[..., Any]]:
    """The network of a structure, the runner of its branches, and its compiled encoders."""
    encoders = {name: FeatureEncoder(structure.dim, structure.hidden) for name in structure.modalities}
    fusion: nn.Module = OfficialFusion(structure.dim)
    if not structure.official:
        fusion = build_fusion(structure.fusion, structure.dim, structure.num_classes)
    intervener = Intervener() if structure.rival.name == "casn" else None
    head = head_of(fusion, structure.num_classes)
    model = TwinNetwork(encoders, fusion, head, structure.config, structure.dim, intervener)

    def encode(params: Any, inputs: Any, present: Any) -> Any:
        return model.apply({"params": params}, inputs, present, method=model.encode)

    return model, BranchRunner(model), jax.jit(encode)


def train_run(
    structure: Structure, rows: Rows, plan: Any, seed: Any, weights: Any, learning_rate: Any, weight_decay: Any
) -> tuple[Any, Any]:
    """One run; pure. All but the structure may be traced.

    Args:
      structure: what is compiled in.
      rows: the training set.
      plan: (steps, batch) rows of every batch.
      seed: of everything random.
      weights: (6,) of :func:`weights_of`; those that the structure has as 0 are not read.
      learning_rate: of AdamW.
      weight_decay: of AdamW.

    Returns:
      Parameters and the loss of every step (steps,).
    """
    on = {name: weights[i] for i, name in enumerate(WEIGHTS) if getattr(structure.config, name)}
    config = dataclasses.replace(structure.config, **on)
    rival = dataclasses.replace(structure.rival, strength=weights[STRENGTH])
    method = Method("c3r", structure.regularised, config, structure.dropout, official=structure.official, rival=rival)
    optimizer = optax.adamw(learning_rate, weight_decay=weight_decay)
    model = model_of(structure)[0]
    state, metrics = train_on_arrays(rows, plan, seed, model=model, method=method, optimizer=optimizer)
    return state.params, metrics["loss"]


@functools.lru_cache(maxsize=32)
def run_of(structure: Structure) -> Callable[..., Any]:
    """:func:`train_run` of a structure, compiled once per shape of its arrays."""
    make_room()
    return jax.jit(functools.partial(train_run, structure))


def padded(rows: Rows) -> Rows:
    """Rows padded with zeros to a multiple of :data:`BLOCK`; no plan names the padding."""
    extra = -len(rows.labels) % BLOCK
    return jax.tree.map(lambda x: np.pad(x, ((0, extra), *[(0, 0)] * (x.ndim - 1))), rows)
