"""The modes of a counterfactual, one function each: from a problem to z in the hypothetical world.

A new mode is a function here and a line in :data:`MODES`; the mathematics is in :func:`c3r_jax.counterfactual`.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from c3r_jax.core.batch import Where, all_rows, first_row, global_mean, mask_of
from c3r_jax.core.tasks.base import Task

Direction = Callable[[Array], tuple[Array, Array]]  # at a point: each label's excess and its gradient


class Problem(NamedTuple):
    """The input of a mode; excluded rows are zero.

    Attributes:
      z: (B, d) in float32 or wider.
      start: (B, d) causal part; z if it is unknown.
      labels: (B, ...).
      where: (B,) bool, or with weights.
      direction: excess and its gradient at a point.
      num_steps: repetitions with a fresh direction.
      step_size: length of the "gradient" move in units of rms(z).
      ball: largest move in units of rms(z); None: no bound.
      axis_name: mapped axis over which the batch is split.
      key: PRNG key, the same on every device.
      task: the task's losses and correctness.
    """

    z: Array
    start: Array
    labels: Array
    where: Where
    direction: Direction
    num_steps: int
    step_size: float
    ball: float | None
    axis_name: str | None
    key: Array | None
    task: Task


def rms(z: Float[Array, "batch features"], where: Where, axis_name: str | None) -> Float[Array, ""]:
    """Root mean square length of the valid rows, uncentred, as a constant (no gradient)."""
    return jax.lax.stop_gradient(jnp.sqrt(global_mean(jnp.square(z).sum(-1), where, axis_name)))


@jax.custom_jvp
def unit_rows(g: Float[Array, "batch features"]) -> Float[Array, "batch features"]:
    """Unit vectors g / |g|, zero with zero gradient where g is zero; scaled first, so that tiny g do not underflow."""
    return _unit_and_inverse(g)[0]


@unit_rows.defjvp
def _unit_rows_jvp(values: tuple[Array], changes: tuple[Array]) -> tuple[Array, Array]:
    """The derivative (I - u u^T) dg / |g|, written out: less to compile than what follows from the scaling."""
    u, inverse = _unit_and_inverse(*values)
    change = changes[0] * inverse
    return u, change - (u * change).sum(-1, keepdims=True) * u


def _unit_and_inverse(
    g: Float[Array, "batch features"],
) -> tuple[Float[Array, "batch features"], Float[Array, "batch 1"]]:
    """Unit vectors and 1 / |g|, both zero where g is zero."""
    largest = jnp.max(jnp.abs(g), axis=-1, keepdims=True)
    nonzero = largest > 0
    scaled = g / jnp.where(nonzero, largest, 1)
    inverse = jax.lax.rsqrt(jnp.where(nonzero, jnp.square(scaled).sum(-1, keepdims=True), 1))
    return scaled * inverse, jnp.where(nonzero, inverse / jnp.where(nonzero, largest, 1), 0)


def _projection(problem: Problem) -> Array:
    """do(component along u := the mean's), whether it favours the label or not."""
    return _without(problem, lambda along, excess, slope: along)


def _removal(problem: Problem) -> Array:
    """Removes the component along -u (towards the label) that exceeds the mean's."""
    return _without(problem, problem.task.removable)


def _without(problem: Problem, taken: Callable[[Array, Array, Array], Array]) -> Array:
    """Takes ``taken(along, excess, slope)``, (B, 1) each, of the causal part's component along u out of z."""
    part, centre = problem.start, global_mean(problem.start, problem.where, problem.axis_name)
    for _ in range(problem.num_steps):
        excess, gradient = problem.direction(part)
        u = unit_rows(gradient)
        along = ((part - centre[None, :]) * u).sum(-1, keepdims=True)
        slope = (gradient * u).sum(-1, keepdims=True)
        part = part - taken(along, excess[:, None], slope) * u
    return problem.z - problem.start + part


def _minimal(problem: Problem) -> Array:
    """Takes the smallest linearised step after which the label's probability is at most 1/K."""
    part = problem.start
    for _ in range(problem.num_steps):
        excess, gradient = problem.direction(part)  # negative: the label is favoured
        square = jnp.square(gradient).sum(-1)
        step = jnp.where(square > 0, jax.nn.relu(-excess) / jnp.where(square > 0, square, 1), 0)
        part = part + step[:, None] * gradient
    return problem.z - problem.start + part


def _gradient(problem: Problem) -> Array:
    """Ascends each row's loss by step_size * rms(z) in total, within the ball around z."""
    z = moved = problem.z
    unit = rms(z, problem.where, problem.axis_name)
    for _ in range(problem.num_steps):
        _, gradient = problem.direction(moved)
        moved = moved + (problem.step_size / problem.num_steps) * unit * unit_rows(gradient)
        if problem.ball is not None:
            offset = moved - z
            square = jnp.square(offset).sum(-1, keepdims=True)
            limit = problem.ball * unit
            outside = square > jnp.square(limit)
            moved = z + offset * jnp.where(outside, limit * jax.lax.rsqrt(jnp.where(outside, square, 1)), 1)
    return moved


def _instrumented(problem: Problem) -> Array:
    """do(causal part := its mean)."""
    return problem.z - problem.start + global_mean(problem.start, problem.where, problem.axis_name)[None, :]


def _mean(problem: Problem) -> Array:
    """do(z := its mean)."""
    return jnp.broadcast_to(global_mean(problem.z, problem.where, problem.axis_name)[None, :], problem.z.shape)


def _permute(problem: Problem) -> Array:
    """Gives each row a uniformly drawn valid row of the global batch with another label; the mean if there is none.

    Sorted by label, the rows with another label are all but one block: draw a position among them and skip the block.
    O(B log B), and the same draw however the batch is split over devices.
    """
    assert problem.key is not None
    z, where, axis_name, task = problem.z, problem.where, problem.axis_name, problem.task
    mean = global_mean(z, where, axis_name)
    all_z, all_labels, all_where = all_rows((z, problem.labels, mask_of(where)), axis_name)
    first = first_row(len(z), axis_name)
    all_labels = task.keys(all_labels)
    labels = jax.lax.dynamic_slice_in_dim(all_labels, first, z.shape[0])
    count = all_where.sum()
    order = jnp.lexsort((all_labels, ~all_where))
    last = jnp.inf if jnp.issubdtype(all_labels.dtype, jnp.floating) else jnp.iinfo(all_labels.dtype).max
    ranked = jnp.where(jnp.arange(order.shape[0]) < count, all_labels[order], last)
    same = labels.dtype.type(task.tolerance)
    begin = jnp.searchsorted(ranked, labels - same, side="left")
    end = jnp.minimum(jnp.searchsorted(ranked, labels + same, side="right"), count)
    others = count - (end - begin)
    draws = jax.random.uniform(problem.key, (order.shape[0],))
    draw = jnp.floor(jax.lax.dynamic_slice_in_dim(draws, first, z.shape[0]) * others).astype(begin.dtype)
    draw = jnp.minimum(draw, others - 1)
    position = jnp.where(draw < begin, draw, draw + end - begin)
    chosen = all_z[order[jnp.clip(position, 0, order.shape[0] - 1)]]
    return jnp.where((others > 0)[:, None], chosen, mean[None, :])


MODES: dict[str, Callable[[Problem], Array]] = {
    "projection": _projection,
    "removal": _removal,
    "gradient": _gradient,
    "minimal": _minimal,
    "instrumented": _instrumented,
    "mean": _mean,
    "permute": _permute,
}
