"""A bound on what penalties may do: their gradient never exceeds the task's, so they can steer but not overrule it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from c3r_jax.core.batch import Weighted, Where, expand, promote
from c3r_jax.core.mapped_axes import is_tracked

LARGEST_SLOPE = 256  # leaves room for gradients of up to that length in float16
Losses = Callable[[Any, Any], tuple[tuple[Array, Array], Any]]  # (rows, shared) -> ((task, penalty), anything)


class Cap(NamedTuple):
    """How strong the penalties' gradient was, over the global batch (scalars).

    Attributes:
      scale: what it was multiplied by; below 1 where the cap was reached.
      limit: the cap, its largest length relative to the task's.
      task_norm: length of the task's gradient.
      penalty_norm: length of the penalties' gradient before it was scaled.
    """

    scale: Float[Array, ""]
    limit: Float[Array, ""]
    task_norm: Float[Array, ""]
    penalty_norm: Float[Array, ""]


def capped_loss(
    losses: Losses,
    rows: Any,
    shared: Any,
    *,
    cap: float | Array | Callable[[Any], Array] = 1.0,
    counted: bool = True,
    axis_name: str | None = None,
    where: Where | None = None,
) -> tuple[Float[Array, ""], Cap, Any]:
    r"""Task loss plus penalty, whose gradient is :math:`g_T + \min(1, \text{cap}\,|g_T| / |g_P|)\, g_P`.

    g_T and g_P are the gradients of the two with respect to (rows, shared), of the global batch. They are computed
    here, by two backward passes through ``losses`` alone, and handed to whoever differentiates the result: encoders in
    front of ``rows`` are differentiated once, as always. The value is task + penalty. Only first derivatives are
    capped: the result must not be differentiated twice.

    Args:
      losses: pure function of both arguments; its last output is passed on as a constant.
      rows: tree of floating-point arrays (B, ...), this device's part of the global batch.
      shared: tree of floating-point arrays that all rows share, such as the head's parameters.
      cap: largest length of the penalties' gradient, relative to the task's; a function of the last output of
        ``losses`` where it depends on what they measured, whose result is a constant.
      counted: whether the task's loss is part of the result; False: it only says how long the penalties' gradient may
        be, since a task loss of the caller's is added elsewhere.
      axis_name: mapped axis over which the batch is split.
      where: how often each row counts: the gradient of a row of weight w is as long as that of w copies, each of which
        has its share of it. None: all once.

    Returns:
      The loss, :class:`Cap` and the last output of ``losses``.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> losses = lambda x, w: ((x.sum(), 10 * x[0]), None)
      >>> print(jax.grad(lambda x: capped_loss(losses, x, (), cap=0.5)[0])(jnp.ones(4)))  # |g_T| = 2, |g_P| = 10
      [2. 1. 1. 1.]
    """
    fixed = jax.lax.stop_gradient((rows, shared))
    # Not one vjp pulled back twice: a slope of 0 would be sent through all of the penalty, and over the devices. Nor
    # two, with the losses traced twice: of one linear program, each has its own part transposed.
    (task, penalty), linear, passed = jax.linearize(losses, *fixed, has_aux=True)
    slope = _slope(rows, shared)
    of_task = jax.linear_transpose(lambda *change: linear(*change)[0], *fixed)(jnp.full_like(task, slope))
    of_penalty = jax.linear_transpose(lambda *change: linear(*change)[1], *fixed)(jnp.full_like(penalty, slope))
    if slope != 1:
        of_task, of_penalty = jax.tree.map(lambda x: promote(x) / slope, (of_task, of_penalty))
    task_norm, penalty_norm = _norm(of_task, axis_name, where), _norm(of_penalty, axis_name, where)
    limit = jnp.asarray(jax.lax.stop_gradient(cap(passed)) if callable(cap) else cap, task_norm.dtype)
    reached = penalty_norm > limit * task_norm
    scale = jnp.where(reached, limit * task_norm / jnp.where(reached, penalty_norm, 1), 1)
    if not counted:
        task, of_task = jnp.zeros_like(task), jax.tree.map(jnp.zeros_like, of_task)
    gradient = jax.tree.map(lambda t, p: t + scale.astype(p.dtype) * p, of_task, of_penalty)
    # What is closed over may hold -infinity, as the mask of a class does, and 0 times that would be NaN.
    known = jax.tree.map(lambda x: jnp.where(jnp.isfinite(x), x, 0), (rows, shared))
    of_rows, of_shared = jax.tree.map(lambda x, g: (promote(x) * promote(g)).sum(), known, gradient)
    carrier = _total(of_rows)
    if is_tracked(axis_name):  # one number of all devices, as the loss: what they share would count once for each
        carrier = jax.lax.psum(carrier, axis_name)
    carrier = carrier + _total(of_shared)
    carried = carrier - jax.lax.stop_gradient(carrier)  # 0, unlike its gradient
    loss = task + penalty + carried.astype(task.dtype)
    return loss, Cap(scale, limit, task_norm, penalty_norm), passed


def _slope(rows: Any, shared: Any) -> float:
    """What the losses are multiplied by while they are differentiated: a power of 2 where something is float16, else 1.

    A loss scale of the caller's comes later, and the gradient of a mean of a thousand rows is below float16's numbers.
    """
    if not any(x.dtype == jnp.float16 for x in jax.tree.leaves((rows, shared))):
        return 1.0
    num_rows = max((x.shape[0] for x in jax.tree.leaves(rows)), default=1)
    return float(min(LARGEST_SLOPE, 2 ** (max(num_rows, 1).bit_length() - 1)))


def _norm(gradient: tuple[Any, Any], axis_name: str | None, where: Where | None) -> Float[Array, ""]:
    """Length of the gradient of the global loss, whose rows are spread over devices.

    A sum over devices inside the loss is differentiated on every device: each has its own rows' gradient times the
    number of devices, and a part of the shared ones' that becomes the gradient when it is averaged. Where ``shard_map``
    tracks what differs between devices, each has its own rows' gradient, and all have that of the shared ones.
    """
    rows, shared = gradient
    if isinstance(where, Weighted):
        times = jnp.where(where.rows, where.weights, 1)
        rows = jax.tree.map(lambda x: x / jnp.sqrt(expand(times, x)).astype(x.dtype), rows)
    of_rows = _square(rows)
    if is_tracked(axis_name):
        of_rows = jax.lax.psum(of_rows, axis_name)
    elif axis_name:
        of_rows = jax.lax.psum(of_rows, axis_name) / jax.lax.axis_size(axis_name) ** 2
        shared = jax.lax.pmean(shared, axis_name)
    return jnp.sqrt(of_rows + _square(shared))


def _total(tree: Any) -> Array:
    return sum(jax.tree.leaves(tree), jnp.zeros(()))


def _square(tree: Any) -> Array:
    squares = [jnp.square(x.astype(jnp.promote_types(x.dtype, jnp.float32))).sum() for x in jax.tree.leaves(tree)]
    return _total(squares)
