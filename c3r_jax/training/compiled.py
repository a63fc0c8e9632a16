"""The functions of a run that JAX compiles, made once for all runs of a process that differ in seed or data alone."""

import dataclasses
import functools
import json
from collections.abc import Callable
from typing import Any

import jax
import optax
from ml_collections import ConfigDict

from c3r_jax.evaluation.branches import BranchRunner
from c3r_jax.keyed import Keyed
from c3r_jax.models.build import build_model
from c3r_jax.models.twin import TwinNetwork, apply
from c3r_jax.parallel.strategy import Strategy, build_strategy
from c3r_jax.programs import make_room
from c3r_jax.training.frozen import split_frozen
from c3r_jax.training.guard import guarded
from c3r_jax.training.method import Method
from c3r_jax.training.optimizer import build_optimizer
from c3r_jax.training.step import TrainState, init_state, train_step

COLUMNS = ("present", "labels", "where", "index")  # of a batch, besides its inputs


@dataclasses.dataclass(frozen=True, eq=False)
class Compiled:
    """The parts of an experiment that its data do not make.

    Attributes:
      model: the twin network.
      optimizer: of the training step.
      devices: how batches are spread over devices.
      initial: compiled (inputs, seed) -> the state before the first step.
      step: compiled (state, batch) -> (state, metrics).
      rows: compiled (params, batch) -> per-modality representations, with the batch's other columns.
      vectors: compiled (params, inputs) -> what frozen encoders make of them.
      branches: compiled (params, moments, representations, ...) -> everything after the encoders.
    """

    model: TwinNetwork
    optimizer: optax.GradientTransformation
    devices: Strategy
    initial: Callable[..., TrainState]
    step: Callable[..., Any]
    rows: Callable[..., Any]
    vectors: Callable[..., Any]
    branches: BranchRunner


def settings_of(config: ConfigDict) -> Keyed[ConfigDict]:
    """A configuration, known by the parts of it that the functions depend on."""
    parts = [config[name].to_dict() for name in ("model", "optimizer", "train", "parallel")]
    return Keyed(json.dumps(parts, sort_keys=True), config)


@functools.lru_cache(maxsize=16)
def compiled_for(
    settings: Keyed[ConfigDict], kinds: tuple[tuple[str, str], ...], num_classes: int, vocab_size: int, method: Method
) -> Compiled:
    """Model and mapped functions, once per distinct setting: JAX then compiles each of them once per process.

    Args:
      settings: of :func:`settings_of`.
      kinds: (modality, kind) of each.
      num_classes: outputs of the head.
      vocab_size: of the tokeniser.
      method: what the loss is made of.
    """
    make_room()
    config = settings.value
    model = build_model(
        config.model,
        dict(kinds),
        num_classes,
        vocab_size,
        method.c3r,
        method.task,
        intervener=method.rival.name == "casn",
    )
    optimizer = build_optimizer(config.optimizer, config.train.steps)
    devices = build_strategy(config.parallel)
    step = functools.partial(
        guarded(
            train_step,
            skip=config.train.skip_non_finite > 0,
            trained=lambda params: split_frozen(params, model)[0],
        ),
        model=model,
        method=method,
        optimizer=optimizer,
        moments_decay=config.train.moments_decay,
        axis_name=devices.axis_name,
        accumulation=config.train.accumulation,
        ema_decay=config.train.ema_decay,
    )

    @jax.jit
    def initial(inputs: dict[str, Any], seed: Any) -> TrainState:
        settings = {"ema": config.train.ema_decay > 0, "rival": method.rival}
        return init_state(model, optimizer, {"inputs": inputs}, seed, **settings)

    def rows(params: Any, batch: dict[str, Any]) -> dict[str, Any]:
        h = apply(model, {"params": params}, model.encode, batch["inputs"], batch["present"])
        return {"h": h, **{name: batch[name] for name in COLUMNS}}

    def vectors(params: Any, inputs: dict[str, Any]) -> dict[str, Any]:
        return apply(model, {"params": params}, model.vectors, inputs)

    compiled = (initial, devices.compile_step(step), devices.compile_rows(rows), devices.compile_rows(vectors))
    return Compiled(model, optimizer, devices, *compiled, BranchRunner(model, method.target))
