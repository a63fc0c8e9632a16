"""Builds what outputs and labels mean from a task, its settings and the training labels."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from c3r_jax.core.tasks.base import Task
from c3r_jax.core.tasks.classification import CLASSIFICATION
from c3r_jax.core.tasks.registry import TARGETS
from c3r_jax.errors import ConfigError, DataError
from c3r_jax.tasks.base import TaskSpec


def build_target(
    spec: TaskSpec, settings: Mapping[str, Any], labels: np.ndarray, num_classes: int
) -> tuple[Task, tuple[float, ...] | None]:
    """A task's losses with its settings, and the prior of its training labels for necessity "kl".

    Args:
      spec: the task's specification.
      settings: {leaf: value} of the configuration's part named after the task.
      labels: the training labels, or a sample of them.
      num_classes: K.

    Raises:
      ConfigError: a setting cannot be used.
      DataError: nothing can be learned from these labels.
    """
    if spec.contrastive:
        return CLASSIFICATION, None  # any data set has pairs, whatever its labels are
    try:
        target = TARGETS[spec.name].for_labels(labels, num_classes, **settings)
    except DataError:
        raise
    except ValueError as error:
        raise ConfigError(f"config.{spec.name}.{error}") from error
    return target, target.prior(labels, num_classes)
