"""Shared by all of this folder: argument checks, masked global means, float promotion."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from c3r_jax.torch.processes import Group, global_sum


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


def valid_labels(labels: Any, where: Bool[Tensor, " batch"]) -> Int[Tensor, " batch"]:
    """Returns checked labels with 0 in the excluded rows, whose labels are arbitrary."""
    return torch.where(where, check_labels(labels, where.shape[0]), 0)


def expand(where: Bool[Tensor, " batch"], like: Tensor) -> Tensor:
    """Returns ``where`` with trailing axes so that it selects rows of ``like``."""
    return where.reshape(where.shape + (1,) * (like.ndim - 1))


def keep(where: Bool[Tensor, " batch"], x: Tensor) -> Tensor:
    """Returns ``x`` with the excluded rows set to zero, so that not even a NaN in them reaches a sum or a gradient."""
    return torch.where(expand(where, x), x, torch.zeros_like(x))


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


def global_count(
    where: Bool[Tensor, " batch"], group: Group | None, dtype: torch.dtype = torch.float32
) -> Float[Tensor, ""]:
    """Counts the valid rows of all processes."""
    return global_sum(where.to(dtype).sum(), group)


def global_mean(x: Tensor, where: Bool[Tensor, " batch"], group: Group | None) -> Tensor:
    """Mean of ``x`` (B, ...) over the valid rows of all processes; zero, with zero gradient, when no row is valid."""
    count = global_count(where, group, x.dtype)
    return global_sum(keep(where, x).sum(0), group) / count.clamp(min=1)
