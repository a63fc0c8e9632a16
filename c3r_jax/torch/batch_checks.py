"""Checks of a batch's arguments, which also zero what is absent or excluded."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from c3r_jax.objective_config import C3RConfig
from c3r_jax.torch.batch import Where, check_float, check_where, checked_weights, keep, mask_of
from c3r_jax.torch.task import Task, valid_labels


def check_batch(
    features: Any, labels: Any, config: C3RConfig, present: Any, where: Any, weights: Any, task: Task
) -> tuple[dict[str, Tensor], Tensor, Tensor, Where]:
    """Checks the arguments, and zeroes absent or excluded values, so that they reach no sum and no gradient."""
    if not isinstance(config, C3RConfig):
        raise ValueError(f"config is {type(config).__name__}, but a C3RConfig was expected, such as C3RConfig().")
    if not isinstance(features, Mapping) or not features:
        raise ValueError(
            f"features are {type(features).__name__}, but a non-empty dict of (B, d) tensors was expected."
        )
    features = {name: check_float(f"features[{name!r}]", features[name], 2) for name in sorted(features)}
    shapes = {name: tuple(h.shape) for name, h in features.items()}
    first = next(iter(features.values()))
    num_examples, device = first.shape[0], first.device
    if len({shape[0] for shape in shapes.values()}) != 1:
        raise ValueError(f"features have shapes {shapes}: every modality must have the same number of rows.")
    if len(features) < 2 and config.instrument != "none":
        raise ValueError(
            f"instrument {config.instrument!r} needs at least 2 modalities, but only {list(features)} was given: one "
            "modality has no other to serve as its instrument; add one, or use C3RConfig(instrument='none')."
        )
    if present is None:
        present = torch.ones(num_examples, len(features), dtype=torch.bool, device=device)
    if isinstance(present, Mapping):
        columns = ", ".join(f"has[{name!r}]" for name in features)
        raise ValueError(
            f"present is a dict of {sorted(present)}, but one tensor of shape {(num_examples, len(features))} and "
            f"dtype bool was expected: torch.stack([{columns}], dim=1)."
        )
    present = torch.as_tensor(present)
    if tuple(present.shape) != (num_examples, len(features)) or present.dtype != torch.bool:
        raise ValueError(
            f"present has shape {tuple(present.shape)} and dtype {present.dtype}, but {(num_examples, len(features))} "
            f"and bool were expected: one column for each of {list(features)}."
        )
    rows = check_where(where, num_examples, device)
    counts = rows if weights is None else checked_weights(weights, rows)
    rows = mask_of(counts)
    labels = valid_labels(labels, rows, task)
    features = {name: keep(rows & present[:, m], h) for m, (name, h) in enumerate(features.items())}
    return features, labels, present, counts


def checked_share(explained: Any) -> Any:
    """The explained share: a number, or a tensor () within 0 and 1; NaN stays, it stands for None.

    Raises:
      ValueError: on another shape, or a number outside of 0 and 1 where to look at it does not wait for an accelerator.

    Examples:
      >>> checked_share(torch.tensor(0.25))
      tensor(0.2500)
    """
    wanted = "but one share between 0 and 1 was expected: see held_out_share."
    if explained is None:
        return None
    if isinstance(explained, Tensor):
        if explained.shape != ():
            raise ValueError(f"explained has shape {tuple(explained.shape)}, {wanted}")
        if explained.device.type != "cpu":
            return explained.detach().clamp(0, 1)
        outside = bool((explained < 0) | (explained > 1))
    else:
        if numpy_shape := getattr(explained, "shape", ()):
            raise ValueError(f"explained has shape {tuple(numpy_shape)}, {wanted}")
        outside = not 0 <= explained <= 1
    if outside:
        raise ValueError(f"explained is {float(explained)}, {wanted}")
    return explained


def checked_evidence(evidence: Mapping[str, Tensor], features: dict[str, Tensor], rows: Tensor) -> dict[str, Tensor]:
    """Evidence in the order of the features, as constants, 0 in excluded rows."""
    if sorted(evidence) != list(features):
        raise ValueError(
            f"evidence is of {sorted(evidence)}, but the features are {list(features)}: one each is needed."
        )
    found = {}
    for name in features:
        value = check_float(f"evidence[{name!r}]", evidence[name], 2)
        if value.shape[0] != rows.shape[0]:
            raise ValueError(f"evidence[{name!r}] has {value.shape[0]} rows, but the features have {rows.shape[0]}.")
        found[name] = keep(rows, value).detach()
    return found
