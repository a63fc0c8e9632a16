"""Shared by all of the core: argument checks, masked global sums, float promotion."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int

HIGHEST = jax.lax.Precision.HIGHEST


def promote(x: Any) -> Array:
    """Returns ``x`` as a float array of at least 32 bits (risks and moments are never summed in bfloat16)."""
    x = jnp.asarray(x)
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def concrete(x: Any) -> np.ndarray | None:
    """Returns the values of ``x``, or None while JAX traces it (then values cannot be checked)."""
    return None if isinstance(x, Tracer) else np.asarray(x)


def check_float(name: str, x: Any, rank: int) -> Array:
    """Returns ``x`` as an array, or raises if it is not a floating-point array of the given rank."""
    x = jnp.asarray(x)
    if x.ndim != rank:
        raise ValueError(f"{name} has shape {x.shape}, but {rank} dimensions were expected.")
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"{name} has dtype {x.dtype}, but a floating-point array was expected: convert it first.")
    return x


def check_labels(labels: Any, num_examples: int, num_classes: int | None = None) -> Int[Array, " batch"]:
    """Returns integer labels (B,), or raises if shape, dtype or (when the values are known) range is wrong."""
    labels = jnp.asarray(labels)
    if labels.shape != (num_examples,):
        raise ValueError(
            f"labels have shape {labels.shape}, but ({num_examples},) was expected: one label per example."
        )
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise ValueError(f"labels have dtype {labels.dtype}, but an integer dtype was expected: class ids from 0.")
    values = concrete(labels)
    if num_classes is not None and values is not None and values.size:
        bad = values[(values < 0) | (values >= num_classes)]
        if bad.size:
            raise ValueError(f"label {bad[0]} is outside [0, {num_classes}): the logits have {num_classes} classes.")
    return labels


def check_where(where: Any, num_examples: int) -> Bool[Array, " batch"]:
    """Returns ``where`` as a boolean array (B,); None means every row counts."""
    if where is None:
        return jnp.ones((num_examples,), bool)
    where = jnp.asarray(where)
    if where.shape != (num_examples,) or where.dtype != bool:
        raise ValueError(
            f"where has shape {where.shape} and dtype {where.dtype}, but ({num_examples},) and bool were expected."
        )
    return where


def expand(where: Bool[Array, " batch"], like: Array) -> Array:
    """Returns ``where`` with trailing axes so that it selects rows of ``like``."""
    return where.reshape(where.shape + (1,) * (like.ndim - 1))


def keep(where: Bool[Array, " batch"], x: Array) -> Array:
    """Returns ``x`` with the excluded rows set to zero, so that not even a NaN in them reaches a sum or a gradient."""
    return jnp.where(expand(where, x), x, jnp.zeros((), x.dtype))


def zero_absent(h: Mapping[str, Array], present: Bool[Array, "batch modalities"]) -> dict[str, Array]:
    """Returns representations with zeros where a modality is absent.

    Args:
      h: {modality: (B, ...)}, in the order of the columns of ``present``.
      present: (B, M) bool.

    Examples:
      >>> import jax.numpy as jnp
      >>> print(zero_absent({"image": jnp.array([[1.0], [jnp.nan]])}, jnp.array([[True], [False]]))["image"].T)
      [[1. 0.]]
    """
    return {name: keep(present[:, m], value) for m, (name, value) in enumerate(h.items())}


def global_sum(x: Array, axis_name: str | None) -> Array:
    """Sums ``x`` over the devices along ``axis_name`` (identity without one)."""
    return x if axis_name is None else jax.lax.psum(x, axis_name)


def global_count(where: Bool[Array, " batch"], axis_name: str | None, dtype: Any = jnp.float32) -> Float[Array, ""]:
    """Counts the valid rows over all devices."""
    return global_sum(where.astype(dtype).sum(), axis_name)


def global_mean(x: Array, where: Bool[Array, " batch"], axis_name: str | None) -> Array:
    """Mean of ``x`` (B, ...) over the valid rows of all devices; zero, with zero gradient, when no row is valid."""
    count = global_count(where, axis_name, x.dtype)
    return global_sum(keep(where, x).sum(0), axis_name) / jnp.maximum(count, 1)


def first_row(num_rows: int, axis_name: str | None) -> Any:
    """Index of this device's first row in the global batch, where each has ``num_rows``; 0 without an axis."""
    return 0 if axis_name is None else jax.lax.axis_index(axis_name) * num_rows


def all_rows(tree: Any, axis_name: str | None) -> Any:
    """Rows of arrays (B, ...) from all devices, concatenated (identity without an axis)."""
    return tree if axis_name is None else jax.lax.all_gather(tree, axis_name, tiled=True)


def in_blocks(function: Callable[..., Any], rows: tuple[Array, ...], block_rows: int | None) -> Any:
    """Applies a row-wise function to ``block_rows`` rows at a time, so that its intermediate values need less memory.

    Args:
      function: (*arrays with rows first) -> tree of arrays with rows first.
      rows: its arguments.
      block_rows: rows at a time; None: all at once.

    Returns:
      What ``function(*rows)`` returns.

    Examples:
      >>> print(in_blocks(lambda x: x + 1, (jnp.arange(5),), 2))
      [1 2 3 4 5]
    """
    num_rows = rows[0].shape[0]
    if block_rows is None or num_rows <= block_rows:
        return function(*rows)
    spare = -num_rows % block_rows
    padded = [jnp.pad(x, [(0, spare)] + [(0, 0)] * (x.ndim - 1)) for x in rows]
    parts = [x.reshape(-1, block_rows, *x.shape[1:]) for x in padded]
    blocks = jax.lax.map(lambda part: function(*part), parts)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:num_rows], blocks)


def weighted_mean(
    x: Array, where: Bool[Array, " batch"], weights: Float[Array, " batch"] | None, axis_name: str | None
) -> Array:
    """Weighted mean of ``x`` (B, ...) over the valid rows of all devices; weights None: all equal."""
    if weights is None:
        return global_mean(x, where, axis_name)
    total = global_sum(keep(where, weights).sum(), axis_name)
    return global_sum(keep(where, x * expand(weights, x)).sum(0), axis_name) / jnp.where(total > 0, total, 1)


def static_rows(num_examples: int, where: Any, axis_name: str | None) -> int | None:
    """Returns the number of valid rows of the global batch, or None where it is known only at run time."""
    if axis_name is None:
        values = concrete(where) if where is not None else None
        if where is None:
            return num_examples
        return None if values is None else int(values.sum())
    return num_examples * jax.lax.axis_size(axis_name) if where is None else None
