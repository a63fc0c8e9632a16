"""The hypothetical world: z with its causal part changed or removed, by ``jax.grad`` and plain algebra on z."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Num

from c3r_jax.core._batch import (
    all_rows,
    check_float,
    check_where,
    expand,
    first_row,
    global_count,
    global_mean,
    global_sum,
    in_blocks,
    keep,
    promote,
    valid_labels,
)
from c3r_jax.core.tasks import CLASSIFICATION, Task

COUNTERFACTUAL_MODES = ("removal", "gradient", "minimal", "instrumented", "mean", "permute")

Predict = Callable[[Float[Array, "batch features"]], Float[Array, "batch classes"]]
Direction = Callable[[Array], tuple[Array, Array]]  # at a point: each label's excess and its gradient


def counterfactual(
    predict: Predict,
    z: Float[Array, "batch features"],
    labels: Num[Array, "batch ..."],
    *,
    mode: str = "removal",
    step_size: float = 0.5,
    num_steps: int = 1,
    z_c: Float[Array, "batch features"] | None = None,
    where: Bool[Array, " batch"] | None = None,
    axis_name: str | None = None,
    key: Array | None = None,
    ball: float | None = None,
    block_rows: int | None = None,
    task: Task = CLASSIFICATION,
) -> Float[Array, "batch features"]:
    r"""Moves each representation into the hypothetical world in which its causal part does not favour the label.

    With u_i the unit gradient of example i's log-odds against its label, taken at the causal part c (``z_c``, or ``z``
    without one), and all means over the valid rows of the global batch:

    .. math::
       \text{removal:}\ & \bar z = z - c + a, \quad a = c - \min(0, \langle c - \bar c, u \rangle)\, u \\
       \text{minimal:}\ & a = c + \frac{[\log(K-1) - m]_+}{|g|^2}\, g, \quad m, g: \text{log-odds against, gradient} \\
       \text{gradient:}\ & \bar z = z + \text{step\_size} \cdot \text{rms}(z)\, u \quad \text{(ascends the loss)} \\
       \text{instrumented:}\ & \bar z = z - z_c + \bar z_c \quad (do(\text{causal part} := \text{its mean})) \\
       \text{mean:}\ & \bar z = \text{mean}(z) \qquad \text{permute: } z \text{ of a random row with another label}

    Derivatives flow through u (second order) and through the means; rms(z) is a constant.

    Args:
      predict: maps z (B, d) to logits (B, K), row by row; any differentiable function.
      z: (B, d) representations.
      labels: (B,) class ids, or what else the task has.
      mode: one of "removal", "gradient", "minimal", "instrumented", "mean", "permute".
      step_size: length of the whole "gradient" move in units of rms(z); unused by the other modes.
      num_steps: repetitions with a fresh direction ("removal", "minimal", "gradient").
      z_c: (B, d) causal part; needed by "instrumented".
      where: (B,) bool, rows that count; the others return z. None: all.
      axis_name: mapped axis over which the batch is split.
      key: PRNG key, the same on every device; needed by "permute".
      ball: largest |z_bar - z| in units of rms(z) for "gradient"; None: no bound.
      block_rows: rows whose K logits are held at a time, where those of all rows are too many; None: all.
      task: what outputs and labels mean; log-odds and chance become its :meth:`Task.excess`, favouring the label its
        :meth:`Task.removable`.

    Returns:
      (B, d) z_bar in the dtype of z.

    Raises:
      ValueError: on an unknown mode, a missing ``z_c`` or ``key``, or arguments of the wrong shape, dtype or range.

    Examples:
      >>> import jax.numpy as jnp
      >>> z = jnp.array([[1.0, 2.0], [-1.0, 0.0]])
      >>> predict = lambda z: z * jnp.array([[1.0, 0.0]])  # only the first feature tells class 0 from class 1
      >>> print(counterfactual(predict, z, jnp.array([0, 1])))
      [[0. 2.]
       [0. 0.]]

    References:
      Towards the Causal Complete Cause of Multi-Modal Representation Learning, arXiv 2407.14058.
    """
    z, labels, causal, where = _check(z, labels, mode, num_steps, step_size, z_c, where, key, task)
    wide = keep(where, promote(z))
    start = wide if causal is None else keep(where, promote(causal))

    def direction(at: Array) -> tuple[Array, Array]:
        excess = partial(_excess_and_gradient, predict, dtype=z.dtype, task=task)
        return in_blocks(excess, (at, labels), block_rows)

    if mode in ("removal", "minimal"):
        centre = global_mean(start, where, axis_name) if mode == "removal" else None
        changed = start
        for _ in range(num_steps):
            changed = (
                _remove(changed, centre, direction, task) if centre is not None else _to_chance(changed, direction)
            )
        moved = wide - start + changed
    elif mode == "gradient":
        moved = _ascend(wide, direction, step_size, num_steps, ball, rms(wide, where, axis_name))
    elif mode == "instrumented":
        moved = wide - start + global_mean(start, where, axis_name)[None, :]
    elif mode == "mean":
        moved = jnp.broadcast_to(global_mean(wide, where, axis_name)[None, :], wide.shape)
    else:
        moved = _permute(wide, labels, where, axis_name, key, task)
    return jnp.where(expand(where, z), moved.astype(z.dtype), z)


def drop_modality(
    features: Mapping[str, Float[Array, "batch _"]],
    name: str,
    *,
    present: Bool[Array, "batch modalities"] | None = None,
    where: Bool[Array, " batch"] | None = None,
    axis_name: str | None = None,
    mean: Float[Array, " _"] | None = None,
) -> dict[str, Float[Array, "batch _"]]:
    """Intervenes on one modality, do(h[name] := its mean): is this modality necessary for the prediction?

    Args:
      features: per-modality representations {name: (B, d_name)}.
      name: the modality to replace.
      present: (B, M) bool, columns in the sorted order of the names; the mean is over the rows that have it. None: all.
      where: (B,) bool, rows that count. None: all.
      axis_name: mapped axis over which the batch is split.
      mean: (d_name,) to be used instead, such as the training set's: then no row depends on the others.

    Returns:
      The features with ``features[name]`` constant over the batch.

    Raises:
      ValueError: if the modality is unknown, or ``mean`` has another width.

    Examples:
      >>> import jax.numpy as jnp
      >>> features = {"image": jnp.array([[1.0], [3.0]]), "text": jnp.array([[5.0], [6.0]])}
      >>> print(drop_modality(features, "image")["image"].ravel())
      [2. 2.]
    """
    if name not in features:
        raise ValueError(f"modality {name!r} is unknown: expected one of {', '.join(features)}.")
    values = check_float(f"features[{name!r}]", features[name], 2)
    if mean is None:
        rows = check_where(where, values.shape[0])
        if present is not None:
            rows = rows & jnp.asarray(present)[:, sorted(features).index(name)]
        mean = global_mean(promote(values), rows, axis_name)
    mean = jnp.asarray(mean, values.dtype)
    if mean.shape != values.shape[1:]:
        raise ValueError(
            f"mean has shape {mean.shape}, but {values.shape[1:]} was expected, as features[{name!r}] has."
        )
    return {**features, name: jnp.broadcast_to(mean[None, :], values.shape)}


def rms(z: Float[Array, "batch features"], where: Bool[Array, " batch"], axis_name: str | None) -> Float[Array, ""]:
    """Root mean square length of the valid rows, uncentred, as a constant (no gradient)."""
    return jax.lax.stop_gradient(jnp.sqrt(global_mean(jnp.square(z).sum(-1), where, axis_name)))


def _check(
    z: Any,
    labels: Any,
    mode: str,
    num_steps: Any,
    step_size: Any,
    z_c: Any,
    where: Any,
    key: Array | None,
    task: Task,
) -> tuple[Array, Array, Array | None, Array]:
    if mode not in COUNTERFACTUAL_MODES:
        hint = " ('drop' acts on features: use drop_modality)" if mode == "drop" else ""
        raise ValueError(
            f"counterfactual mode {mode!r} is unknown: expected one of {', '.join(COUNTERFACTUAL_MODES)}{hint}."
        )
    z = check_float("z", z, 2)
    where = check_where(where, z.shape[0])
    labels = valid_labels(labels, where, task)
    if z_c is not None:
        z_c = check_float("z_c", z_c, 2)
        if z_c.shape != z.shape:
            raise ValueError(f"z_c has shape {z_c.shape}, but z has {z.shape}: they must be equal.")
    elif mode == "instrumented":
        raise ValueError("counterfactual mode 'instrumented' needs z_c, the causal part of z, but it is None.")
    if mode == "permute" and key is None:
        raise ValueError("counterfactual mode 'permute' needs key, a PRNG key, but it is None.")
    if isinstance(num_steps, bool) or not isinstance(num_steps, int) or num_steps < 1:
        raise ValueError(f"num_steps is {num_steps!r}, but a whole number of at least 1 was expected.")
    if isinstance(step_size, (int, float)) and not step_size >= 0:
        raise ValueError(f"step_size is {step_size}, but a number >= 0 was expected.")
    return z, labels, z_c, where


def _excess_and_gradient(predict: Predict, at: Array, labels: Array, dtype: Any, task: Task) -> tuple[Array, Array]:
    """How far each row's label is from being told (B,), relative to chance, and its own gradient (B, d), at ``at``."""

    def total(point: Array) -> tuple[Array, Array]:
        excess = task.excess(*task.check(predict(point.astype(dtype)), labels))
        return excess.sum(), excess

    gradient, excess = jax.grad(total, has_aux=True)(at)
    return excess, gradient


def _unit(g: Float[Array, "batch features"]) -> Float[Array, "batch features"]:
    """Unit vectors g / |g|, zero with zero gradient where g is; scaled first, so that tiny g do not underflow."""
    largest = jax.lax.stop_gradient(jnp.max(jnp.abs(g), axis=-1, keepdims=True))
    g = g / jnp.where(largest > 0, largest, 1)
    square = jnp.square(g).sum(-1, keepdims=True)
    return jnp.where(square > 0, g * jax.lax.rsqrt(jnp.where(square > 0, square, 1)), 0)


def _remove(part: Array, centre: Array, direction: Direction, task: Task) -> Array:
    """Takes away the component along -u (towards the label) that exceeds the mean's."""
    excess, gradient = direction(part)
    u = _unit(gradient)
    along = ((part - centre[None, :]) * u).sum(-1, keepdims=True)
    slope = (gradient * u).sum(-1, keepdims=True)
    return part - task.removable(along, excess[:, None], slope) * u


def _to_chance(part: Array, direction: Direction) -> Array:
    """Takes the smallest linearised step after which the label is no likelier than 1/K."""
    excess, gradient = direction(part)  # negative: the label is favoured
    square = jnp.square(gradient).sum(-1)
    step = jnp.where(square > 0, jax.nn.relu(-excess) / jnp.where(square > 0, square, 1), 0)
    return part + step[:, None] * gradient


def _ascend(z: Array, direction: Direction, step_size: float, num_steps: int, ball: float | None, unit: Array) -> Array:
    """Climbs each row's own loss by step_size * rms(z) in all, within the ball around z."""
    moved = z
    for _ in range(num_steps):
        _, gradient = direction(moved)
        moved = moved + (step_size / num_steps) * unit * _unit(gradient)
        if ball is not None:
            offset = moved - z
            square = jnp.square(offset).sum(-1, keepdims=True)
            limit = ball * unit
            outside = square > jnp.square(limit)
            moved = z + offset * jnp.where(outside, limit * jax.lax.rsqrt(jnp.where(outside, square, 1)), 1)
    return moved


def _permute(z: Array, labels: Array, where: Array, axis_name: str | None, key: Array | None, task: Task) -> Array:
    """Gives each row a uniformly drawn valid row of the global batch with another label; the mean if there is none.

    Sorted by label, the rows of another label are all but one block: draw a position in the rest and step over the
    block. O(B log B), and the same draw however the batch is split over devices.
    """
    assert key is not None
    mean = global_mean(z, where, axis_name)
    all_z, all_labels, all_where = all_rows((z, labels, where), axis_name)
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
    draws = jax.random.uniform(key, (order.shape[0],))
    draw = jnp.floor(jax.lax.dynamic_slice_in_dim(draws, first, z.shape[0]) * others).astype(begin.dtype)
    draw = jnp.minimum(draw, others - 1)
    position = jnp.where(draw < begin, draw, draw + end - begin)
    chosen = all_z[order[jnp.clip(position, 0, order.shape[0] - 1)]]
    return jnp.where((others > 0)[:, None], chosen, mean[None, :])


def closeness(
    z: Float[Array, "batch features"], z_bar: Float[Array, "batch features"], where: Array, axis_name: str | None
) -> Float[Array, ""]:
    """L_fe = mean |z_bar - z|^2 / rms(z)^2 over the valid rows: how far the hypothetical world is (scale-free)."""
    z, z_bar = keep(where, promote(z)), keep(where, promote(z_bar))
    scale = jnp.square(rms(z, where, axis_name))
    distance = global_sum(jnp.square(z_bar - z).sum(), axis_name)
    count = jnp.maximum(global_count(where, axis_name, z.dtype), 1)
    return jnp.where(scale > 0, distance / jnp.where(scale > 0, scale, 1) / count, 0)
