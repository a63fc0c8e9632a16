"""The hypothetical world: z with its causal part changed or removed, by ``jax.grad`` and plain algebra on z."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Num

from c3r_jax.core.batch import (
    Where,
    check_counts,
    check_float,
    check_where,
    expand,
    global_count,
    global_mean,
    global_sum,
    in_blocks,
    keep,
    mask_of,
    not_zero,
    promote,
    weigh,
)
from c3r_jax.core.counterfactual_modes import MODES, Problem, rms
from c3r_jax.core.short_help import short_help
from c3r_jax.core.tasks.base import Task, valid_labels
from c3r_jax.core.tasks.classification import CLASSIFICATION

Predict = Callable[[Float[Array, "batch features"]], Float[Array, "batch classes"]]


@short_help
def counterfactual(
    predict: Predict,
    z: Float[Array, "batch features"],
    labels: Num[Array, "batch ..."],
    *,
    mode: str = "projection",
    step_size: float = 0.5,
    num_steps: int = 1,
    z_c: Float[Array, "batch features"] | None = None,
    where: Where | None = None,
    axis_name: str | None = None,
    key: Array | None = None,
    ball: float | None = None,
    block_rows: int | None = None,
    task: Task = CLASSIFICATION,
) -> Float[Array, "batch features"]:
    r"""Takes each representation to the hypothetical world, where its causal part says less of the label, or nothing.

    With u_i the unit gradient of example i's log-odds against its label, taken at the causal part c (``z_c``, or ``z``
    without one), and all means over the valid rows of the global batch:

    .. math::
       \text{projection:}\ & \bar z = z - c + a, \quad a = c - \langle c - \bar c, u \rangle\, u \\
       \text{removal:}\ & a = c - \min(0, \langle c - \bar c, u \rangle)\, u \quad \text{(what favours the label)} \\
       \text{minimal:}\ & a = c + \frac{[\log(K-1) - m]_+}{|g|^2}\, g, \quad m, g: \text{log-odds against, gradient} \\
       \text{gradient:}\ & \bar z = z + \text{step\_size} \cdot \text{rms}(z)\, u \quad \text{(ascends the loss)} \\
       \text{instrumented:}\ & \bar z = z - z_c + \bar z_c \quad (do(\text{causal part} := \text{its mean})) \\
       \text{mean:}\ & \bar z = \text{mean}(z) \qquad \text{permute: } z \text{ of a random row with another label}

    Derivatives flow through u (second order) and through the means; rms(z) is a constant.

    Args:
      predict: maps z (B, d) to logits (B, K), row by row; any differentiable function.
      z: (B, d) representations.
      labels: (B,) class ids, or the task's own shape.
      mode: one of "projection", "removal", "gradient", "minimal", "instrumented", "mean", "permute".
      step_size: length of the "gradient" move, over all its steps, in units of rms(z); unused by the other modes.
      num_steps: repetitions with a fresh direction ("projection", "removal", "minimal", "gradient").
      z_c: (B, d) causal part; needed by "instrumented".
      where: (B,) bool, rows that count; other rows return z. None: all.
      axis_name: mapped axis over which the batch is split.
      key: PRNG key, the same on every device; needed by "permute".
      ball: largest |z_bar - z| in units of rms(z) for "gradient"; None: no bound.
      block_rows: rows whose K logits are in memory at a time; None: all.
      task: the task's losses and correctness; its :meth:`Task.excess` replaces log-odds and chance, its
        :meth:`Task.removable` what "removal" takes.

    Returns:
      (B, d) z_bar in the dtype of z.

    Raises:
      ValueError: on an unknown mode, a missing ``z_c`` or ``key``, or arguments of the wrong shape, dtype or range.

    Examples:
      >>> import jax.numpy as jnp
      >>> z = jnp.array([[1.0, 2.0], [-1.0, 0.0]])
      >>> predict = lambda z: z * jnp.array([[1.0, 0.0]])  # only the first feature matters
      >>> print(counterfactual(predict, z, jnp.array([0, 0])))
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

    problem = Problem(wide, start, labels, where, direction, num_steps, step_size, ball, axis_name, key, task)
    moved = MODES[mode](problem)
    return jnp.where(expand(mask_of(where), z), moved.astype(z.dtype), z)


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
      present: (B, M) bool, columns in the sorted order of the names; the mean is over rows with it. None: all.
      where: (B,) bool, rows that count. None: all.
      axis_name: mapped axis over which the batch is split.
      mean: (d_name,) replacement, such as the training set's mean; rows are then independent of each other.

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
) -> tuple[Array, Array, Array | None, Where]:
    if mode not in MODES:
        hint = " ('drop' acts on features: use drop_modality)" if mode == "drop" else ""
        raise ValueError(f"counterfactual mode {mode!r} is unknown: expected one of {', '.join(MODES)}{hint}.")
    z = check_float("z", z, 2)
    where = check_counts(where, z.shape[0])
    labels = valid_labels(labels, mask_of(where), task)
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
    """How far each row's label is from being predicted (B,), relative to chance, and its gradient (B, d), at ``at``."""

    def total(point: Array) -> tuple[Array, Array]:
        excess = task.excess(*task.check(predict(point.astype(dtype)), labels))
        return excess.sum(), excess

    gradient, excess = jax.grad(total, has_aux=True)(at)
    return excess, gradient


def closeness(
    z: Float[Array, "batch features"], z_bar: Float[Array, "batch features"], where: Where, axis_name: str | None
) -> Float[Array, ""]:
    """L_fe = mean |z_bar - z|^2 / rms(z)^2 over the valid rows: how far the hypothetical world is (scale-free)."""
    z, z_bar = keep(where, promote(z)), keep(where, promote(z_bar))
    scale = jnp.square(rms(z, where, axis_name))
    distance = global_sum(weigh(where, jnp.square(z_bar - z).sum(1)).sum(), axis_name)
    count = not_zero(global_count(where, axis_name, z.dtype))
    return jnp.where(scale > 0, distance / jnp.where(scale > 0, scale, 1) / count, 0)
