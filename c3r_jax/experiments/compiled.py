"""The compiled functions of a run, shared by all runs of a process that differ only in seed or data."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax

from c3r_jax.caches import make_room, quick_compilation
from c3r_jax.methods.method import Method
from c3r_jax.models.branches import BranchRunner
from c3r_jax.models.build import build_model
from c3r_jax.models.twin import TwinNetwork, apply
from c3r_jax.parallel.strategy import Strategy, build_strategy
from c3r_jax.settings.model import ModelSettings
from c3r_jax.settings.optimizer import OptimizerSettings
from c3r_jax.settings.parallel import ParallelSettings
from c3r_jax.settings.train import TrainSettings
from c3r_jax.step.finite import broken_parts, guarded
from c3r_jax.step.frozen import split_frozen
from c3r_jax.step.optimizer import build_optimizer
from c3r_jax.step.state import TrainState, init_state
from c3r_jax.step.train_step import train_step

COLUMNS = ("present", "labels", "where", "index")  # columns of a batch besides its inputs


@dataclasses.dataclass(frozen=True, eq=False)
class Compiled:
    """The parts of an experiment that do not depend on its data.

    Attributes:
      model: the twin network.
      optimizer: the training step's optimiser.
      devices: how batches are split over devices.
      initial: compiled (inputs, seed) -> the state before the first step.
      initial_alone: the same, compiled in half the time; never a part of another program, which JAX refuses.
      step: compiled (state, batch) -> (state, metrics).
      broken: compiled (state) -> which of its parts are not finite, see :func:`broken_parts`.
      rows: compiled (params, batch) -> per-modality representations, with the batch's other columns.
      vectors: compiled (params, inputs) -> the frozen encoders' vectors.
      branches: compiled (params, moments, representations, ...) -> everything after the encoders.
    """

    model: TwinNetwork
    optimizer: optax.GradientTransformation
    devices: Strategy
    initial: Callable[..., TrainState]
    initial_alone: Callable[..., TrainState]
    step: Callable[..., Any]
    broken: Callable[..., Any]
    rows: Callable[..., Any]
    vectors: Callable[..., Any]
    branches: BranchRunner


class CompiledSettings(NamedTuple):
    """The parts of a run's settings that the compiled functions depend on."""

    model: ModelSettings
    optimizer: OptimizerSettings
    train: TrainSettings
    parallel: ParallelSettings


@functools.lru_cache(maxsize=16)
def compiled_for(
    settings: CompiledSettings,
    kinds: tuple[tuple[str, str], ...],
    num_classes: int,
    vocab_size: int,
    method: Method,
    devices: tuple[Any, ...] | None = None,
) -> Compiled:
    """Model and mapped functions, built once per distinct setting, so that each compiles once per process.

    Args:
      settings: settings of the network, its training and the devices.
      kinds: (modality, kind) pairs.
      num_classes: outputs of the head.
      vocab_size: size of the tokeniser's vocabulary.
      method: the training method.
      devices: devices of all processes; None uses every device.
    """
    make_room()
    train = settings.train
    model = build_model(
        settings.model,
        dict(kinds),
        num_classes,
        vocab_size,
        method.c3r,
        method.spec,
        intervener=method.rival.extra_module(),
    )
    optimizer = build_optimizer(settings.optimizer, train.steps)
    strategy = build_strategy(settings.parallel, devices)
    trained: Callable[[Any], Any] = lambda params: split_frozen(params, model)[0]  # noqa: E731
    step = functools.partial(
        guarded(train_step, skip=train.skip_non_finite > 0, trained=trained),
        model=model,
        method=method,
        optimizer=optimizer,
        moments_decay=train.moments_decay,
        axis_name=strategy.axis_name,
        accumulation=train.accumulation,
        ema_decay=train.ema_decay,
        rows=strategy.rows,
        key_chunks=train.key_chunks or None,
    )

    def initial(inputs: dict[str, Any], seed: Any) -> TrainState:
        return init_state(model, optimizer, {"inputs": inputs}, seed, ema=train.ema_decay > 0, rival=method.rival)

    def rows(params: Any, batch: dict[str, Any]) -> dict[str, Any]:
        h = apply(model, {"params": params}, model.encode, batch["inputs"], batch["present"])
        return {"h": h, **{name: batch[name] for name in COLUMNS}}

    def vectors(params: Any, inputs: dict[str, Any]) -> dict[str, Any]:
        return apply(model, {"params": params}, model.vectors, inputs)

    broken = strategy.compile_summary(functools.partial(broken_parts, trained=trained))
    compiled = (
        jax.jit(initial),
        jax.jit(initial, compiler_options=quick_compilation(1)),
        strategy.compile_step(step),
        broken,
        strategy.compile_rows(rows),
        strategy.compile_rows(vectors),
    )
    return Compiled(model, optimizer, strategy, *compiled, BranchRunner(model, method.target))
