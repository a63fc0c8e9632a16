"""Training on arrays that fit in memory, as one compiled program: the train step of every run, under ``lax.scan``.

What differs between runs (seed, weights, batches) is an argument, so that a study is this program under ``vmap``.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Int

from c3r_jax.data.hashing import check_seed, hash64, permutation
from c3r_jax.models.twin import TwinNetwork
from c3r_jax.training.method import Method
from c3r_jax.training.step import TrainState, init_state, train_step


class Rows(NamedTuple):
    """A data set in memory.

    Attributes:
      inputs: {modality: (n, ...)}.
      present: (n, M) bool.
      labels: (n,) class ids.
      environment: (n,) ids of the environments that rows come from; None: they are not known.
    """

    inputs: Mapping[str, Any]
    present: Any
    labels: Any
    environment: Any = None

    def take(self, rows: Any) -> "Rows":
        """Some of the rows."""
        return jax.tree.map(lambda column: column[rows], self)


def batch_plan(
    num_examples: int, *, batch_size: int, steps: int, seed: int, weights: np.ndarray | None = None
) -> np.ndarray:
    """Which examples make up every batch of a run.

    Without weights each epoch is a fresh permutation. With weights an example is drawn in proportion to its weight,
    by systematic sampling: over any run an example comes up its expected number of times, rounded up or down.

    Args:
      num_examples: n.
      batch_size: B; at most n rows are used without repeating one in a batch.
      steps: number of batches.
      seed: of the order.
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


def train_on_arrays(
    rows: Rows,
    plan: Int[Array, "steps batch"],
    seed: Any,
    *,
    model: TwinNetwork,
    method: Method,
    optimizer: optax.GradientTransformation,
    moments_decay: float = 0.9,
) -> tuple[TrainState, dict[str, Array]]:
    """One run from initialisation to its last step; pure, to be compiled by the caller.

    Args:
      rows: the training set.
      plan: of :func:`batch_plan`.
      seed: of everything random in training.
      model: the twin network.
      method: what the loss is made of; its weights may be traced, so that runs under ``vmap`` differ in them.
      optimizer: of the step.
      moments_decay: of the running moments.

    Returns:
      The final state and every metric of :func:`train_step` by step, each (steps,).
    """
    state = init_state(model, optimizer, {"inputs": rows.inputs}, seed, rival=method.rival)

    def step(state: TrainState, chosen: Array) -> tuple[TrainState, dict[str, Array]]:
        batch = rows.take(chosen)._asdict() | {"where": _all(chosen)}
        return train_step(state, batch, model=model, method=method, optimizer=optimizer, moments_decay=moments_decay)

    return jax.lax.scan(step, state, plan)


def _all(chosen: Array) -> Bool[Array, " batch"]:
    return jnp.ones(chosen.shape, bool)
