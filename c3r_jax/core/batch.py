"""Shared by all of the core: argument checks, masked global sums, float promotion."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

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


def _as_class_ids(labels: Any) -> Array:
    """An array of numbers that JAX keeps as they are, or one sentence.

    What JAX says of texts names neither value nor argument, and without 64-bit types it keeps the last 32 bits, so that
    2**32 + 1 would be class 1.
    """
    if isinstance(labels, jax.Array):
        return labels
    values = np.asarray(labels)
    if values.dtype.kind not in "biufcV":  # "V": bfloat16 and its like
        raise ValueError(f"labels have dtype {values.dtype}, but numbers were expected: class ids (B,).")
    if values.dtype.kind in "iu" and values.dtype.itemsize > 4 and not jax.config.read("jax_enable_x64"):
        bounds = np.iinfo(np.int32)
        beyond = values[(values < bounds.min) | (values > bounds.max)]
        if beyond.size:
            raise ValueError(f"label {beyond.flat[0]} is beyond 32 bits, but class ids from 0 were expected.")
    return jnp.asarray(values)


def check_labels(labels: Any, num_examples: int, num_classes: int | None = None) -> Int[Array, " batch"]:
    """Returns integer labels (B,), or raises if shape, dtype or (when the values are known) range is wrong.

    They have at least 32 bits: compared with the number of classes in 8 bits, 256 would be 0.
    """
    labels = _as_class_ids(labels)
    if labels.shape != (num_examples,):
        way = "; of one-hot labels, take labels.argmax(1)" if labels.ndim == 2 and len(labels) == num_examples else ""
        raise ValueError(
            f"labels have shape {labels.shape}, but ({num_examples},) was expected: one label per example{way}."
        )
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise ValueError(f"labels have dtype {labels.dtype}, but an integer dtype was expected: class ids from 0.")
    labels = labels.astype(jnp.int32) if labels.dtype.itemsize < 4 else labels
    values = concrete(labels)
    if num_classes is not None and values is not None and values.size:
        bad = values[(values < 0) | (values >= num_classes)]
        if bad.size:
            raise ValueError(f"label {bad[0]} is outside [0, {num_classes}): the logits have {num_classes} classes.")
    return labels


class Weighted(NamedTuple):
    """Rows that count, each as often as its weight says: in place of a mask, wherever means and sums are taken.

    Attributes:
      rows: (B,) bool.
      weights: (B,) numbers above 0 in those rows.
    """

    rows: Bool[Array, " batch"]
    weights: Float[Array, " batch"]

    def __and__(self, mask: Bool[Array, " batch"]) -> "Weighted":
        """Those of them that ``mask`` has too."""
        return Weighted(self.rows & mask, self.weights)


Where = Bool[Array, " batch"] | Weighted


def mask_of(where: Where) -> Bool[Array, " batch"]:
    """Which rows count at all, (B,) bool."""
    return where.rows if isinstance(where, Weighted) else where


def like(where: Where, mask: Bool[Array, " batch"]) -> Where:
    """The rows of ``mask``, which are some of those of ``where``, with their weights if it has any."""
    return Weighted(mask, where.weights) if isinstance(where, Weighted) else mask


def counted(where: Where, dtype: Any) -> Float[Array, " batch"]:
    """How often each row counts: 0 or 1, or its weight."""
    if isinstance(where, Weighted):
        return jnp.where(where.rows, where.weights, 0).astype(dtype)
    return where.astype(dtype)


def check_counts(where: Any, num_examples: int) -> Where:
    """As :func:`check_where`, and :class:`Weighted` rows as they are."""
    return where if isinstance(where, Weighted) else check_where(where, num_examples)


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


def checked_weights(weights: Any, rows: Bool[Array, " batch"]) -> Weighted:
    """Rows with their weights; a weight of 0 excludes its row.

    Raises:
      ValueError: wrong shape or dtype, or a known weight that is negative or not finite; where weights are traced, such
        a weight makes the loss NaN.
    """
    weights = jnp.asarray(weights)
    number = jnp.issubdtype(weights.dtype, jnp.floating) or jnp.issubdtype(weights.dtype, jnp.integer)
    if weights.shape != rows.shape or not number:
        raise ValueError(
            f"weights have shape {weights.shape} and dtype {weights.dtype}, but {rows.shape} and numbers were "
            "expected: how often each row counts (class weights: table[labels])."
        )
    weights = jnp.where(rows, weights, jnp.zeros((), weights.dtype))  # what is excluded may hold anything
    known = concrete(weights)
    bad = [] if known is None else np.flatnonzero(~(np.isfinite(known) & (known >= 0)))
    if len(bad) and known is not None:
        raise ValueError(f"weights[{bad[0]}] is {known[bad[0]]}, but a finite number >= 0 was expected.")
    weights = promote(weights)
    return Weighted(rows & (weights != 0), jnp.where(weights >= 0, weights, jnp.nan))


def expand(where: Bool[Array, " batch"], like: Array) -> Array:
    """Returns ``where`` with trailing axes so that it selects rows of ``like``."""
    return where.reshape(where.shape + (1,) * (like.ndim - 1))


def keep(where: Where, x: Array) -> Array:
    """Returns ``x`` with the excluded rows set to zero, so that not even a NaN in them reaches a sum or a gradient."""
    return jnp.where(expand(mask_of(where), x), x, jnp.zeros((), x.dtype))


def weigh(where: Where, x: Array) -> Array:
    """As :func:`keep`, and each row times its weight: to be summed."""
    kept = keep(where, x)
    return kept * expand(counted(where, x.dtype), x) if isinstance(where, Weighted) else kept


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
    return jax.lax.psum(x, axis_name) if axis_name else x


def global_count(where: Where, axis_name: str | None, dtype: Any = jnp.float32) -> Float[Array, ""]:
    """Counts the valid rows over all devices, each as often as its weight says."""
    return global_sum(counted(where, dtype).sum(), axis_name)


def global_mean(x: Array, where: Where, axis_name: str | None) -> Array:
    """Mean of ``x`` (B, ...) over the valid rows of all devices; zero, with zero gradient, when no row is valid."""
    count = global_count(where, axis_name, x.dtype)
    return global_sum(weigh(where, x).sum(0), axis_name) / not_zero(count)


def not_zero(count: Float[Array, "*dims"]) -> Float[Array, "*dims"]:
    """A number of rows to divide by: 1 where it is 0; with weights it may be below 1."""
    return jnp.where(count == 0, 1, count)


def first_row(num_rows: int, axis_name: str | None) -> Any:
    """Index of this device's first row in the global batch, where each has ``num_rows``; 0 without an axis."""
    return jax.lax.axis_index(axis_name) * num_rows if axis_name else 0


def all_rows(tree: Any, axis_name: str | None) -> Any:
    """Rows of arrays (B, ...) from all devices, concatenated (identity without an axis)."""
    return jax.lax.all_gather(tree, axis_name, tiled=True) if axis_name else tree


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


def over(function: Callable[..., Array], *columns: Array, at_once: bool) -> Array:
    """A function of each element of arrays: of all at once, or of one after the other where memory is short.

    Examples:
      >>> print(over(jnp.sum, jnp.ones((2, 3)), at_once=False))
      [3. 3.]
    """
    return jax.vmap(function)(*columns) if at_once else jax.lax.map(lambda x: function(*x), columns)


def weighted_mean(x: Array, where: Where, weights: Float[Array, " batch"] | None, axis_name: str | None) -> Array:
    """Weighted mean of ``x`` (B, ...) over the valid rows of all devices; weights None: all equal."""
    if weights is None:
        return global_mean(x, where, axis_name)
    total = global_sum(weigh(where, weights).sum(), axis_name)
    return global_sum(weigh(where, x * expand(weights, x)).sum(0), axis_name) / not_zero(total)


def weighted_means(
    columns: Sequence[Float[Array, " batch"]],
    where: Where,
    weights: Float[Array, " batch"] | None,
    axis_name: str | None,
) -> Float[Array, " columns"]:
    """:func:`weighted_mean` of several columns (B,), with one sum over devices.

    The sums are put together, not the columns: a program that joins columns first takes far longer to compile.
    """
    weighted = columns if weights is None else [weights, *(x * weights for x in columns)]
    sums = global_sum(jnp.stack([weigh(where, x).sum() for x in weighted]), axis_name)
    if weights is None:
        return sums / not_zero(global_count(where, axis_name, sums.dtype))
    return sums[1:] / not_zero(sums[0])


def masked_means(
    columns: Float[Array, "sets columns batch"],
    masks: Bool[Array, "sets batch"],
    where: Where,
    weights: Float[Array, " batch"] | None,
    axis_name: str | None,
) -> Float[Array, "sets columns"]:
    """:func:`weighted_mean` of several sets of columns, each over the valid rows of its mask; one sum over devices."""
    times = jnp.ones(masks.shape[1], columns.dtype) if weights is None else weights.astype(columns.dtype)
    counted_too = jnp.concatenate([columns, jnp.ones_like(columns[:, :1])], axis=1)
    chosen = jnp.where(masks[:, None, :], counted_too * times[None, None, :], 0)
    sums = global_sum(weigh(where, chosen.transpose(2, 0, 1)).sum(0), axis_name)
    return sums[:, :-1] / not_zero(sums[:, -1:])


def static_rows(num_examples: int, where: Any, axis_name: str | None) -> int | None:
    """Returns the number of valid rows of the global batch, or None where it is known only at run time."""
    if not axis_name:
        values = concrete(where) if where is not None else None
        if where is None:
            return num_examples
        return None if values is None else int(values.sum())
    return num_examples * jax.lax.axis_size(axis_name) if where is None else None


def mean_of_present(h: Mapping[str, Float[Array, "batch _"]], present: Bool[Array, "batch modalities"]) -> Array:
    """Mean (B, d) of the present modalities' representations of equal width; zero where none is present.

    Examples:
      >>> h = {"a": jnp.ones((2, 1)), "b": 3 * jnp.ones((2, 1))}
      >>> print(mean_of_present(h, jnp.array([[True, True], [True, False]])))
      [[2.]
       [1.]]
    """
    stacked = jnp.stack(list(h.values()), axis=1)  # its sum is stored: added one by one, every use computes it again
    total = jnp.where(present[..., None], stacked, jnp.zeros((), stacked.dtype)).sum(1)
    return total / jnp.maximum(present.sum(1, keepdims=True), 1).astype(stacked.dtype)


def shared_size(num_rows: int) -> int:
    """Rows that arrays of ``num_rows`` are padded to, so that folds of many sizes share a few compiled programs.

    Powers of two from 64 to 1024, then multiples of 1024.

    Examples:
      >>> [shared_size(n) for n in (1, 100, 360, 1025)]
      [64, 128, 512, 2048]
    """
    return max(64, 1 << max(num_rows - 1, 0).bit_length()) if num_rows <= 1024 else -(-num_rows // 1024) * 1024


def pad_rows(x: Any, num_rows: int) -> np.ndarray:
    """Zeros (False) after the rows of a host array, up to ``num_rows``; nothing is compiled for it.

    Examples:
      >>> print(pad_rows([1, 2], 4))
      [1 2 0 0]
    """
    x = np.asarray(x)
    return np.pad(x, ((0, num_rows - len(x)), *[(0, 0)] * (x.ndim - 1)))
