"""Checks of a batch's arguments, which also zero what is absent or excluded."""

import contextlib
from collections.abc import Generator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from c3r_jax.core.batch import check_float, check_where, keep
from c3r_jax.core.config import C3RConfig
from c3r_jax.core.tasks.base import Task, valid_labels
from c3r_jax.core.tasks.classification import CLASSIFICATION


def check_kinds(features: Any, config: Any, task: Any = CLASSIFICATION) -> None:
    """Refuses arguments of another kind than features by name, a C3RConfig and a task."""
    if not isinstance(features, Mapping) or not features:
        raise ValueError(f"features are {type(features).__name__}, but a non-empty dict of (B, d) arrays was expected.")
    if len({type(name) for name in features}) > 1:
        raise ValueError(f"features have the names {list(features)}, but names of one type were expected, such as str.")
    if not isinstance(config, C3RConfig):
        raise ValueError(f"config is {type(config).__name__}, but a C3RConfig was expected, such as C3RConfig().")
    if not isinstance(task, Task):
        shown = task.__name__ if isinstance(task, type) else repr(task)
        raise ValueError(f"task is {shown}, but a task was expected, such as Classification() or Regression(0.5).")


def checked_features(features: Mapping[str, Any]) -> dict[str, Array]:
    """Arrays (B, d_name) of as many rows each, in the sorted order of the names."""
    # jit and grad rebuild a dict in sorted order: only that order is the same with and without them.
    features = {name: check_float(f"features[{name!r}]", features[name], 2) for name in sorted(features)}
    shapes = {name: h.shape for name, h in features.items()}
    if len({shape[0] for shape in shapes.values()}) != 1:
        raise ValueError(f"features have shapes {shapes}: every modality must have the same number of rows.")
    return features


def checked_rows(name: str, value: Any, num_rows: int) -> Any:
    """A function's value, if it is an array with one row for each example.

    Args:
      name: of the call, for the message.
      value: an array or its shape.
      num_rows: B.
    """
    shape = getattr(value, "shape", None)
    if shape is None:
        raise ValueError(f"{name} is a {type(value).__name__}, but one array of {num_rows} rows was expected.")
    if not shape or shape[0] != num_rows:
        raise ValueError(f"{name} has shape {shape}, but {num_rows} rows were expected, one for each example.")
    return value


def check_batch(
    features: Any, labels: Any, config: C3RConfig, present: Any, where: Any, task: Task
) -> tuple[dict[str, Array], Array, Array, Array]:
    """Checks the arguments, and zeroes absent or excluded values, so that they reach no sum and no gradient."""
    check_kinds(features, config, task)
    features = checked_features(features)
    num_examples = next(iter(features.values())).shape[0]
    if len(features) < 2 and config.instrument != "none":
        raise ValueError(
            f"instrument {config.instrument!r} needs at least 2 modalities, but only {list(features)} was given: one "
            "modality has no other to serve as its instrument; add one, or use C3RConfig(instrument='none')."
        )
    present = checked_present(present, num_examples, list(features))
    rows = check_where(where, num_examples)
    labels = valid_labels(labels, rows, task)
    features = {name: keep(rows & present[:, m], h) for m, (name, h) in enumerate(features.items())}
    return features, labels, present, rows


def checked_present(present: Any, num_examples: int, names: Sequence[str]) -> Array:
    """Returns ``present`` as a boolean array (B, M); None means that every modality of every row is there.

    Raises:
      ValueError: it is a dict, or has another shape or dtype; the message has the line that makes the mask.
    """
    if present is None:
        return jnp.ones((num_examples, len(names)), bool)
    columns = ", ".join(f"has[{name!r}]" for name in names)
    way = f"one column for each of {list(names)}, the sorted names: jnp.stack([{columns}], axis=1), each (B,) bool"
    if isinstance(present, Mapping):
        raise ValueError(
            f"present is a dict of {sorted(present)}, but one array of shape {(num_examples, len(names))} and dtype "
            f"bool was expected, {way}."
        )
    present = jnp.asarray(present)
    if present.shape != (num_examples, len(names)) or present.dtype != bool:
        raise ValueError(
            f"present has shape {present.shape} and dtype {present.dtype}, but {(num_examples, len(names))} and bool "
            f"were expected: {way}."
        )
    return present


@contextlib.contextmanager
def without_outer_state() -> Generator[None]:
    """Says what to do where ``predict`` or ``fuse`` changes state of its own, such as the random numbers of NNX.

    The objective differentiates the two by itself and calls them several times, so that they must be pure.
    """
    try:
        yield
    except Exception as error:
        # Flax need not be installed, so that its error is known by name only.
        if type(error).__name__ != "TraceContextError":
            raise
        raise ValueError(
            "predict or fuse changes the state of an NNX module, such as the random numbers of dropout or the averages "
            "of batch norm, but pure functions were expected: they are called several times and differentiated. Move "
            "dropout into the encoders, before c3r_loss; or give it no state: call nnx.view(head, deterministic=True) "
            "(or head.eval()) before, and close over fixed noise if it must stay."
        ) from error


def checked_evidence(evidence: Mapping[str, Array], features: dict[str, Array], rows: Array) -> dict[str, Array]:
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
        found[name] = jax.lax.stop_gradient(keep(rows, value))
    return found
