"""Shared by all of this folder: argument checks, masked global means, float promotion."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from c3r_jax.torch.processes import Group, global_sum


class Weighted(NamedTuple):
    """Rows that count, and how often each does; it takes the place of a mask (B,) wherever rows are counted.

    Attributes:
      rows: (B,) bool.
      weights: (B,) numbers above 0 in those rows.
    """

    rows: Bool[Tensor, " batch"]
    weights: Float[Tensor, " batch"]

    def __and__(self, mask: Bool[Tensor, " batch"]) -> "Weighted":
        """Those of them that ``mask`` has too."""
        return Weighted(self.rows & mask, self.weights)


Where = Bool[Tensor, " batch"] | Weighted


def mask_of(where: Where) -> Bool[Tensor, " batch"]:
    """Which rows count at all, (B,) bool."""
    return where.rows if isinstance(where, Weighted) else where


def like(where: Where, mask: Bool[Tensor, " batch"]) -> Where:
    """The rows of ``mask``, which are some of those of ``where``, with their weights if it has any."""
    return Weighted(mask, where.weights) if isinstance(where, Weighted) else mask


def counted(where: Where, dtype: torch.dtype) -> Float[Tensor, " batch"]:
    """How often each row counts: 0 or 1, or its weight."""
    if isinstance(where, Weighted):
        return torch.where(where.rows, where.weights, 0).to(dtype)
    return where.to(dtype)


def promote(x: Tensor) -> Tensor:
    """Returns ``x`` as floats of at least 32 bits (risks and moments are never summed in bfloat16)."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def check_float(name: str, x: Any, rank: int) -> Tensor:
    """Returns ``x`` as a tensor, or raises if it is not a floating-point tensor of the given rank."""
    x = torch.as_tensor(x)
    if x.ndim != rank:
        raise ValueError(f"{name} has shape {tuple(x.shape)}, but {rank} dimensions were expected.")
    if not x.dtype.is_floating_point:
        raise ValueError(f"{name} has dtype {x.dtype}, but a floating-point tensor was expected: convert it first.")
    return x


def check_labels(labels: Any, num_examples: int, num_classes: int | None = None) -> Int[Tensor, " batch"]:
    """Returns labels (B,) as int64, or raises if shape, dtype or range is wrong."""
    labels = torch.as_tensor(labels)
    if tuple(labels.shape) != (num_examples,):
        raise ValueError(
            f"labels have shape {tuple(labels.shape)}, but ({num_examples},) was expected: one label per example."
        )
    if labels.dtype.is_floating_point or labels.dtype in (torch.bool, torch.complex64, torch.complex128):
        raise ValueError(f"labels have dtype {labels.dtype}, but an integer dtype was expected: class ids from 0.")
    labels = labels.long()
    if num_classes is not None:
        bad = labels[(labels < 0) | (labels >= num_classes)]
        if bad.numel():
            raise ValueError(
                f"label {int(bad[0])} is outside [0, {num_classes}): the logits have {num_classes} classes."
            )
    return labels


def check_where(where: Any, num_examples: int, device: torch.device) -> Bool[Tensor, " batch"]:
    """Returns ``where`` as a boolean tensor (B,); None means every row counts."""
    if where is None:
        return torch.ones(num_examples, dtype=torch.bool, device=device)
    where = torch.as_tensor(where)
    if tuple(where.shape) != (num_examples,) or where.dtype != torch.bool:
        raise ValueError(
            f"where has shape {tuple(where.shape)} and dtype {where.dtype}, but ({num_examples},) and bool were "
            "expected."
        )
    return where


def check_counts(where: Any, num_examples: int, device: torch.device) -> Where:
    """As :func:`check_where`, and :class:`Weighted` rows as they are."""
    return where if isinstance(where, Weighted) else check_where(where, num_examples, device)


def checked_weights(weights: Any, rows: Bool[Tensor, " batch"]) -> Weighted:
    """Rows with their weights; a weight of 0 excludes its row.

    Raises:
      ValueError: wrong shape or dtype, or a weight that is negative or not finite.
    """
    weights = torch.as_tensor(weights, device=rows.device).detach()
    if weights.shape != rows.shape or weights.dtype == torch.bool or weights.dtype.is_complex:
        raise ValueError(
            f"weights have shape {tuple(weights.shape)} and dtype {weights.dtype}, but {tuple(rows.shape)} and numbers "
            "were expected: how often each row counts (class weights: table[labels])."
        )
    weights = torch.where(rows, promote(weights), 0)  # what is excluded may hold anything
    bad = torch.nonzero(~(weights.isfinite() & (weights >= 0)))[:1]
    if len(bad):
        raise ValueError(f"weights[{int(bad)}] is {weights[int(bad)]}, but a finite number >= 0 was expected.")
    return Weighted(rows & (weights != 0), weights)


def expand(where: Bool[Tensor, " batch"], like: Tensor) -> Tensor:
    """Returns ``where`` with trailing axes so that it selects rows of ``like``."""
    return where.reshape(where.shape + (1,) * (like.ndim - 1))


def keep(where: Where, x: Tensor) -> Tensor:
    """Returns ``x`` with the excluded rows set to zero, so that not even a NaN in them reaches a sum or a gradient."""
    return torch.where(expand(mask_of(where), x), x, torch.zeros_like(x))


def weigh(where: Where, x: Tensor) -> Tensor:
    """As :func:`keep`, and each row times its weight: to be summed."""
    kept = keep(where, x)
    return kept * expand(counted(where, x.dtype), x) if isinstance(where, Weighted) else kept


def zero_absent(h: Mapping[str, Tensor], present: Bool[Tensor, "batch modalities"]) -> dict[str, Tensor]:
    """Returns representations with zeros where a modality is absent.

    Args:
      h: {modality: (B, ...)}, in the order of the columns of ``present``.
      present: (B, M) bool.

    Examples:
      >>> zero_absent({"image": torch.tensor([[1.0], [torch.nan]])}, torch.tensor([[True], [False]]))["image"].T
      tensor([[1., 0.]])
    """
    return {name: keep(present[:, m], value) for m, (name, value) in enumerate(h.items())}


def global_count(where: Where, group: Group | None, dtype: torch.dtype = torch.float32) -> Float[Tensor, ""]:
    """Counts the valid rows of all processes, each as often as its weight says."""
    return global_sum(counted(where, dtype).sum(), group)


def not_zero(count: Float[Tensor, "*dims"]) -> Float[Tensor, "*dims"]:
    """A number of rows to divide by: 1 where it is 0; with weights it may be below 1."""
    return torch.where(count == 0, 1, count)


def masked_means(
    columns: Float[Tensor, "sets columns batch"], masks: Bool[Tensor, "sets batch"], where: Where, group: Group | None
) -> Float[Tensor, "sets columns"]:
    """:func:`global_mean` of several sets of columns, each over the valid rows of its mask; one sum over processes."""
    chosen = torch.where(masks[:, None, :], torch.cat([columns, torch.ones_like(columns[:, :1])], dim=1), 0)
    sums = global_sum(weigh(where, chosen.permute(2, 0, 1)).sum(0), group)
    return sums[:, :-1] / not_zero(sums[:, -1:])


def global_mean(x: Tensor, where: Where, group: Group | None) -> Tensor:
    """Mean of ``x`` (B, ...) over the valid rows of all processes; zero, with zero gradient, when no row is valid."""
    count = global_count(where, group, x.dtype)
    return global_sum(weigh(where, x).sum(0), group) / not_zero(count)
