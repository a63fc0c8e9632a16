"""Experts of a whole training set of frozen vectors, computed once: better than those of a batch."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Num

from c3r_jax.caches import quick_compilation
from c3r_jax.core.batch import check_where, global_mean, keep, pad_rows, promote, shared_size
from c3r_jax.core.batch_checks import checked_present
from c3r_jax.core.expert import Expert, expert_of
from c3r_jax.core.leave_one_out import LeaveOneOut, leave_one_out, press_by_ridge
from c3r_jax.core.tasks.base import Task
from c3r_jax.core.tasks.classification import CLASSIFICATION

COMPONENTS = 192
RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)  # relative to the mean variance


def experts_of_rows(
    features: Mapping[str, Float[Array, "rows _"]],
    labels: Num[Array, "rows ..."],
    *,
    num_outputs: int,
    present: Bool[Array, "rows modalities"] | None = None,
    where: Bool[Array, " rows"] | None = None,
    components: int = COMPONENTS,
    ridges: Sequence[float] = RIDGES,
    task: Task = CLASSIFICATION,
) -> dict[str, Expert]:
    r"""As :func:`residual_experts`, on all rows of a training set: each ridge is chosen by leave-one-out error.

    Each modality is standardised and replaced by its first principal components. A row's instrument is what it has of
    the other modalities, 0 (the mean) where one is absent; rows with the modality and at least one other are fitted.
    The two ridges of each modality minimise PRESS, the sum of squared leave-one-out errors relative to the variance.

    Args:
      features: {name: (n, p_name)}, at least two modalities; what is absent may hold anything.
      labels: (n,) or the task's own shape.
      num_outputs: K.
      present: (n, M) bool, columns in the sorted order of the names; None: all.
      where: (n,) bool, rows that count; the others get no evidence. None: all.
      components: the most principal components of a modality.
      ridges: penalties to choose from, relative to the mean variance of the instrument.
      task: what labels mean.

    Returns:
      {name: :class:`Expert`}; ``log_ratio`` (n, K) is the ``evidence`` of :func:`c3r_jax.c3r_loss`, row by row.

    Raises:
      ValueError: on fewer than two modalities, shapes that do not agree, or labels of rows that count which no output
        stands for.

    Examples:
      >>> import numpy as np
      >>> rng = np.random.default_rng(0)
      >>> cause, cue = rng.standard_normal((2, 400, 1)).astype(np.float32)
      >>> h = {"image": np.concatenate([cause, cue], 1), "text": cause + 0.1 * rng.standard_normal((400, 1))}
      >>> experts = experts_of_rows(h, (cause + cue > 0).astype(int)[:, 0], num_outputs=2)
      >>> [round(float(experts[name].accuracy), 1) for name in ("image", "text")]
      [0.8, 0.5]

    References:
      D. M. Allen, The relationship between variable selection and data augmentation and a method for prediction, 1974.
    """
    if len(features) < 2:
        raise ValueError(f"features has {len(features)} modality, but at least 2 were expected: one has no instrument.")
    names, num_rows = sorted(features), len(labels)
    for name in names:
        if len(shape := np.shape(features[name])) != 2 or shape[0] != num_rows:
            raise ValueError(f"features[{name!r}] has shape {shape}, but ({num_rows}, p) was expected.")
    size = shared_size(num_rows)
    rows = pad_rows(check_where(where, num_rows), size)
    known = rows[:, None] & pad_rows(checked_present(present, num_rows, names), size)
    kept = {name: _in_float32(name, features[name], known[:num_rows, m]) for m, name in enumerate(names)}
    parts = {
        name: principal_components(pad_rows(kept[name], size), known[:, m], components) for m, name in enumerate(names)
    }
    checked = np.asarray(task.check_labels(labels, num_rows))
    targets, shares, wrong = _compiled_targets(task, num_outputs)(pad_rows(checked, size), rows)
    if wrong is not None and (rows & wrong).any():
        bad = checked[int(np.argmax(rows & wrong))]
        raise ValueError(f"label {bad} is outside what {num_outputs} outputs stand for: see num_outputs.")
    experts = {}
    for m, name in enumerate(names):
        others = [parts[other] for other in names if other != name]
        instrument = jnp.concatenate(others, axis=1) if len(others) > 1 else others[0]
        usable = known[:, m] & (known.sum(1) > 1)
        stage = best_leave_one_out(instrument, parts[name], usable, ridges)
        scores = best_leave_one_out(stage.residual, targets, usable, ridges).predicted
        experts[name] = _first_rows(expert_of_rows(stage, scores, targets, shares, usable, task), num_rows)
    return experts


def _in_float32(name: str, x: Any, known: Any) -> Any:
    """The features, of which float32 keeps no less: columns of NumPy's float64 are standardised first.

    Raises:
      ValueError: a known value is not finite: one would switch every expert off.
    """
    values, known = np.asarray(x), np.asarray(known)
    if values.dtype.kind not in "biufV":
        raise ValueError(f"features[{name!r}] has dtype {values.dtype}, but numbers were expected.")
    broken = np.argwhere(known[:, None] & ~np.isfinite(values))
    if len(broken):
        row, column = broken[0]
        raise ValueError(
            f"features[{name!r}] is {values[row, column]} at row {row}, column {column}, but finite numbers were "
            "expected: impute it, or say with present that the modality is absent there."
        )
    if values.dtype.kind not in "iu" and values.dtype.itemsize < 8:
        return x
    if not known.any():
        return np.zeros(values.shape, np.float32)
    values = np.where(known[:, None], values.astype(np.float64), 0)
    mean, scale = values[known].mean(0), values[known].std(0)
    return ((values - mean) / np.where(scale > 0, scale, 1)).astype(jax.dtypes.canonicalize_dtype(np.float64))


def _first_rows(expert: Expert, num_rows: int) -> Expert:
    """Without the rows of the padding."""
    expert = jax.device_get(expert)
    rows = {name: getattr(expert.first_stage, name)[:num_rows] for name in ("predicted", "residual", "leverage")}
    found = expert._replace(log_ratio=expert.log_ratio[:num_rows], first_stage=expert.first_stage._replace(**rows))
    return jax.tree.map(jnp.asarray, found)


@functools.lru_cache(maxsize=32)
def _compiled_targets(task: Task, num_outputs: int) -> Any:
    """(labels, where) -> what experts predict (n, K), its mean (K,), and which labels no output stands for."""

    def targets_of(labels: Array, where: Array) -> tuple[Array, Array, Array | None]:
        targets = promote(task.expert_targets(labels, num_outputs))
        return targets, global_mean(targets, where, None), task.out_of_range(labels, num_outputs)

    return jax.jit(targets_of, compiler_options=quick_compilation(0))


def principal_components(x: Any, where: Any, count: int) -> Float[Array, "rows components"]:
    """The first ``count`` principal components of standardised columns (n, p), at most p; 0 in excluded rows."""
    return _compiled_components(count)(x, where)


@functools.lru_cache(maxsize=32)
def _compiled_components(count: int) -> Any:
    return jax.jit(functools.partial(_components, count=count), compiler_options=quick_compilation(0))


def _components(x: Array, where: Array, count: int) -> Array:
    x = keep(where, promote(x))
    centred = keep(where, x - global_mean(x, where, None)[None, :])
    scale = jnp.sqrt(global_mean(jnp.square(centred), where, None))
    standard = centred / jnp.where(scale > 0, scale, 1)[None, :]
    if standard.shape[1] <= count:
        return standard
    directions = jnp.linalg.eigh(standard.T @ standard)[1][:, ::-1]
    return standard @ directions[:, :count]


def best_leave_one_out(
    instrument: Float[Array, "rows p"], regressor: Float[Array, "rows d"], where: Any, ridges: Sequence[float]
) -> LeaveOneOut:
    """:func:`leave_one_out` with the ridge of the smallest PRESS."""
    errors = np.asarray(_compiled_press()(instrument, regressor, np.asarray(ridges, np.float32), where=where))
    found = None
    for best in np.argsort(np.where(np.isfinite(errors), errors, np.inf), kind="stable"):
        found = compiled_leave_one_out()(instrument, regressor, where=where, ridge=ridges[best])
        # A ridge that is too small for the precision of a solve is no candidate.
        if np.isfinite(found.residual).all():
            break
    assert found is not None, "no ridges to choose from"
    return found


def expert_of_rows(
    stage: LeaveOneOut, scores: Array, targets: Array, shares: Array, where: Array, task: Task
) -> Expert:
    """:func:`expert_of`, compiled."""
    return _compiled_expert(task)(stage, scores, targets, shares, where)


@functools.lru_cache(maxsize=32)
def _compiled_expert(task: Task) -> Any:
    return jax.jit(functools.partial(expert_of, task=task), compiler_options=quick_compilation(0))


@functools.cache
def compiled_leave_one_out() -> Any:
    """(instrument, regressor, ridge=, where=) -> :class:`LeaveOneOut`, compiled for arrays of known values."""
    return jax.jit(leave_one_out, compiler_options=quick_compilation(0))


@functools.cache
def _compiled_press() -> Any:
    return jax.jit(press_by_ridge, compiler_options=quick_compilation(0))
