"""Training on arrays that fit in memory, as one compiled program: the train step of every run, under ``lax.scan``.

Everything that differs between runs (seed, weights, batches) is an argument, so that a study is this program under
``vmap``.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int

from c3r_jax.caches import make_room, quick_compilation
from c3r_jax.core.batch import pad_rows, shared_size, zero_absent
from c3r_jax.core.config import C3RConfig
from c3r_jax.core.gate import has_gate
from c3r_jax.core.held_out import held_out_share
from c3r_jax.core.instruments import instrument_moments
from c3r_jax.core.moments import merge_moments
from c3r_jax.core.over_fit import generalising_share, loss_alone
from c3r_jax.core.rows_experts import experts_of_rows
from c3r_jax.data.counter_rng import check_seed, hash64, permutation
from c3r_jax.methods.build import make_method
from c3r_jax.methods.method import Method
from c3r_jax.methods.rival import NO_RIVAL, Rival
from c3r_jax.models.branches import BranchRunner
from c3r_jax.models.build import build_feature_model
from c3r_jax.models.twin import TwinNetwork, apply
from c3r_jax.step.state import TrainState, init_state
from c3r_jax.step.train_step import train_step

DECAY = 0.9  # of the running moments, at each step
EVERY = 10  # steps between two measurements of the explained share on held-out rows
KEPT = 0.7  # of the running losses of single modalities, at each measurement


class Rows(NamedTuple):
    """A data set in memory.

    Attributes:
      inputs: {modality: (n, ...)}.
      present: (n, M) bool.
      labels: (n,) class ids.
      environment: (n,) ids of the environments that rows come from; None: unknown.
      evidence: {modality: (n, K)} of experts of all rows, see :func:`experts_of_rows`; None: of each batch, if any.
    """

    inputs: Mapping[str, Any]
    present: Any
    labels: Any
    environment: Any = None
    evidence: Mapping[str, Any] | None = None

    def take(self, rows: Any) -> "Rows":
        """Some of the rows."""
        return jax.tree.map(lambda column: column[rows], self)


def batch_plan(
    num_examples: int, *, batch_size: int, steps: int, seed: int, weights: np.ndarray | None = None
) -> np.ndarray:
    """The examples of every batch of a run.

    Without weights each epoch is a fresh permutation. With weights an example is drawn in proportion to its weight,
    by systematic sampling: over any run an example is drawn its expected number of times, rounded up or down.

    Args:
      num_examples: n.
      batch_size: B; at most n rows are used without repeating one in a batch.
      steps: number of batches.
      seed: seed of the order.
      weights: (n,) numbers >= 0, not all 0; None: all equal.

    Returns:
      (steps, min(B, n)) int32.

    Examples:
      >>> sorted(batch_plan(4, batch_size=2, steps=2, seed=0).ravel().tolist())
      [0, 1, 2, 3]
      >>> batch_plan(2, batch_size=2, steps=8, seed=0, weights=np.array([3.0, 1.0])).ravel().tolist().count(0)
      12
    """
    check_seed(seed)
    size = min(batch_size, num_examples)
    draws = steps * size
    if weights is None:
        epochs = -(-draws // num_examples)
        order = np.concatenate([permutation(num_examples, seed, "epoch", epoch) for epoch in range(epochs)])
        return order[:draws].reshape(steps, size).astype(np.int32)
    ends = np.cumsum(np.asarray(weights, np.float64))
    offset = float(hash64(seed, "offset")[0]) / 2.0**64
    drawn = np.searchsorted(ends, (np.arange(draws) + offset) / draws * ends[-1], side="right")
    drawn = np.minimum(drawn, np.flatnonzero(weights)[-1])  # the last edge may round up
    return drawn[permutation(draws, seed, "draws")].reshape(steps, size).astype(np.int32)


class Judged(NamedTuple):
    """What held-out rows say of a run.

    Attributes:
      explained: their explained share, times :func:`generalising_share`.
      train: (M,) running mean loss of each modality alone on rows that are trained on.
      held: the same on held-out rows.
      seen: (M,) whether any batch so far had the modality.
    """

    explained: Float[Array, ""]
    train: Float[Array, " modalities"]
    held: Float[Array, " modalities"]
    seen: Bool[Array, " modalities"]


def train_on_arrays(
    rows: Rows,
    plan: Int[Array, "steps batch"],
    seed: Any,
    *,
    model: TwinNetwork,
    method: Method,
    optimizer: optax.GradientTransformation,
    moments_decay: float = DECAY,
    held: Rows | None = None,
) -> tuple[TrainState, dict[str, Array]]:
    """One run from initialisation to its last step; pure, to be compiled by the caller.

    Args:
      rows: the training set.
      plan: output of :func:`batch_plan`.
      seed: seed of everything random in training.
      model: the twin network.
      method: the training method; its weights may be traced, so that runs under ``vmap`` differ in them.
      optimizer: the step's optimiser.
      moments_decay: decay of the running moments.
      held: rows that are not trained on, on which the explained share and over-fitting are measured every
        :data:`EVERY` steps; rows of no modality do not count. None: the share is that of each batch.

    Returns:
      The final state and every metric of :func:`train_step` at each step, each (steps,).
    """
    state = init_state(model, optimizer, {"inputs": rows.inputs}, seed, rival=method.rival)

    measured = held is not None and method.regularised and has_gate(method.c3r)

    def step(
        carried: tuple[TrainState, Judged], numbered: tuple[Array, Array]
    ) -> tuple[tuple[TrainState, Judged], dict[str, Array]]:
        (state, judged), (number, chosen) = carried, numbered
        batch = rows.take(chosen)._asdict() | {"where": _all(chosen)}
        if measured:
            judged = jax.lax.cond(
                number % EVERY == 0,  # the same for all runs of a study: were it not, each step would measure
                lambda: _judge(state, batch, held, judged, moments_decay, model=model, method=method),
                lambda: judged,
            )
            batch |= {"explained": judged.explained}
        settings: dict[str, Any] = {"model": model, "method": method, "optimizer": optimizer}
        state, metrics = train_step(state, batch, moments_decay=moments_decay, **settings)
        return (state, judged), metrics

    zeros = jnp.zeros(rows.present.shape[1])
    nothing = Judged(jnp.zeros(()), zeros, zeros, zeros > 0)
    (state, _), metrics = jax.lax.scan(step, (state, nothing), (jnp.arange(len(plan)), plan))
    return state, metrics


def _judge(
    state: TrainState,
    batch: Mapping[str, Any],
    held: Any,
    before: Judged,
    decay: float,
    *,
    model: TwinNetwork,
    method: Method,
) -> Judged:
    """:func:`held_out_share` of rows that are not trained on, with the first stage of this batch and those before.

    As far as single modalities learn rows by heart, see :func:`generalising_share`, it is taken to be 0.
    """
    variables, config = {**state.variables, "params": state.params}, method.c3r
    fuse, predict = (functools.partial(apply, model, variables, part) for part in (model.fuse, model.predict))

    def encoded(inputs: Any, present: Array) -> dict[str, Array]:
        return zero_absent(apply(model, variables, model.encode, inputs, present), present)

    h, present = encoded(batch["inputs"], batch["present"]), batch["present"]
    moments = instrument_moments(h, fuse(h, present), present, config=config, where=batch["where"])
    moments = merge_moments(state.earlier_moments(decay), moments)
    of_held, task = encoded(held.inputs, held.present), method.target
    shared: dict[str, Any] = {"present": held.present, "where": held.present.any(1), "task": task}
    explained = held_out_share(predict, fuse, of_held, held.labels, moments, config=config, **shared)
    now = loss_alone(predict, fuse, h, batch["labels"], present=present, where=batch["where"], task=task)
    of_others = loss_alone(predict, fuse, of_held, held.labels, **shared)
    kept = jnp.where(before.seen, jnp.where(now.seen, KEPT, 1), 0)  # of a modality that no row of the batch has, all
    train = kept * before.train + (1 - kept) * now.losses
    other = kept * before.held + (1 - kept) * of_others.losses
    seen = before.seen | now.seen
    both = seen & of_others.seen
    general = generalising_share(jnp.mean(train, where=both), jnp.mean(other, where=both), now.constant)
    return Judged(explained * general, train, other, seen)


def _all(chosen: Array) -> Bool[Array, " batch"]:
    return jnp.ones(chosen.shape, bool)


NARROW = 128  # columns; at 256, runs that are compiled quickly take a third longer
WEIGHTS = ("w_task", "lambda_s", "lambda_n", "lambda_v", "lambda_fe", "strength")
STRENGTH = len(WEIGHTS)  # index of the rival's strength, after the weights
BLOCK = 1024  # training sets are padded to a multiple of it, so that folds of nearly equal size share a program


class Structure(NamedTuple):
    """What a compiled program depends on, besides the shapes of its arrays.

    Attributes:
      modalities: names of the modalities.
      num_classes: K.
      hidden: widths of the encoders' hidden layers.
      dim: width of the representations.
      config: modes; non-zero weights are stored as 1 (their values are arguments of the program).
      regularised: whether C3R terms are trained on.
      dropout: rate of modality dropout.
      official: train on the public PyTorch code's objective instead.
      fusion: a value of ``config.model.fusion``.
      rival: as ``config.rival`` sets it; its strength is stored as 1, like the weights.
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
    """The configuration with every weight 0 or 1: a weight of 0 switches its term off in the program."""
    return dataclasses.replace(config, **{name: float(getattr(config, name) > 0) for name in WEIGHTS})


def weights_of(config: C3RConfig, strength: float = 1.0) -> np.ndarray:
    """The weights in the order of :data:`WEIGHTS` and the rival's strength, (7,) float32."""
    return np.array([*(getattr(config, name) for name in WEIGHTS), strength], np.float32)


@functools.lru_cache(maxsize=32)
def model_of(structure: Structure) -> tuple[TwinNetwork, BranchRunner, Callable[..., Any]]:
    """The network of a structure, the runner of its branches, and its compiled encoders."""
    model = build_feature_model(
        structure.modalities,
        structure.num_classes,
        structure.config,
        dim=structure.dim,
        hidden=structure.hidden,
        fusion=structure.fusion,
        official=structure.official,
        intervener=structure.rival.extra_module(),
    )

    def encode(params: Any, inputs: Any, present: Any) -> Any:
        return model.apply({"params": params}, inputs, present, method=model.encode)

    options = quick_compilation(0)
    return model, BranchRunner(model, options=options), jax.jit(encode, compiler_options=options)


def train_run(
    structure: Structure,
    rows: Rows,
    plan: Any,
    seed: Any,
    weights: Any,
    learning_rate: Any,
    weight_decay: Any,
    held: Rows | None = None,
) -> tuple[Any, Any]:
    """One run; pure. All but the structure may be traced.

    Args:
      structure: the compiled-in structure.
      rows: the training set.
      plan: (steps, batch) rows of every batch.
      seed: seed of everything random.
      weights: (7,) as from :func:`weights_of`; those that are 0 in the structure are not read.
      learning_rate: learning rate of AdamW.
      weight_decay: weight decay of AdamW.
      held: rows that are not trained on, see :func:`train_on_arrays`.

    Returns:
      Parameters and the loss of every step (steps,).
    """
    on = {name: weights[i] for i, name in enumerate(WEIGHTS) if getattr(structure.config, name)}
    config = dataclasses.replace(structure.config, **on)
    rival = dataclasses.replace(structure.rival, strength=weights[STRENGTH])
    method = make_method(
        config,
        regularised=structure.regularised,
        dropout_rate=structure.dropout or None,
        official=structure.official,
        rival=rival,
    )
    optimizer = optax.adamw(learning_rate, weight_decay=weight_decay)
    model = model_of(structure)[0]
    settings: dict[str, Any] = {"model": model, "method": method, "optimizer": optimizer, "held": held}
    state, metrics = train_on_arrays(rows, plan, seed, **settings)
    return state.params, metrics["loss"]


@functools.lru_cache(maxsize=32)
def run_of(structure: Structure) -> Callable[..., Any]:
    """:func:`train_run` of a structure, compiled once per shape of its arrays."""
    make_room()
    return jax.jit(functools.partial(train_run, structure), compiler_options=options_of_runs(structure))


def options_of_runs(structure: Structure) -> dict[str, bool | int] | None:
    """Options of the compiler for whole runs: narrow networks train for less time than full optimisation takes."""
    return quick_compilation(1) if max((*structure.hidden, structure.dim)) <= NARROW else None


def padded(rows: Rows) -> Rows:
    """Rows padded with zeros to a multiple of :data:`BLOCK`; no plan uses the padding."""
    extra = -len(rows.labels) % BLOCK
    return jax.tree.map(lambda x: np.pad(x, ((0, extra), *[(0, 0)] * (x.ndim - 1))), rows)


def padded_held(rows: Rows) -> Rows:
    """Held-out rows, and rows of no modality, which do not count: data of nearly equal size then share a program."""
    return jax.tree.map(lambda x: pad_rows(x, shared_size(len(rows.labels))), rows)


def with_experts(rows: Rows, num_classes: int, where: Any = None) -> Rows:
    """Rows with the evidence of experts that were computed on them.

    Args:
      rows: a training set of vectors.
      num_classes: K.
      where: (n,) bool, the rows that are trained on; the others neither count nor get evidence. None: all.
    """
    experts = experts_of_rows(rows.inputs, rows.labels, num_outputs=num_classes, present=rows.present, where=where)
    return rows._replace(evidence={name: np.asarray(found.log_ratio) for name, found in experts.items()})
