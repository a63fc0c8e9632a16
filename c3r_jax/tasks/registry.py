"""All tasks by name."""

from c3r_jax.errors import ConfigError
from c3r_jax.tasks.base import TaskSpec
from c3r_jax.tasks.classification import CLASSIFICATION
from c3r_jax.tasks.contrastive import SIGMOID, SOFTMAX, ContrastiveSpec
from c3r_jax.tasks.multilabel import MULTILABEL
from c3r_jax.tasks.regression import REGRESSION
from c3r_jax.tasks.segmentation import SEGMENTATION

LABELLED: dict[str, TaskSpec] = {
    task.name: task for task in (CLASSIFICATION, MULTILABEL, REGRESSION, SEGMENTATION)
}  # tasks with labels
CONTRASTIVE: dict[str, ContrastiveSpec] = {task.name: task for task in (SOFTMAX, SIGMOID)}
TASKS: dict[str, TaskSpec] = {**LABELLED, **CONTRASTIVE}


def named(name: str) -> TaskSpec:
    """The task with a name.

    Raises:
      ConfigError: there is no such task.

    Examples:
      >>> named("regression").headline
      'mae'
    """
    if name not in TASKS:
        raise ConfigError(f"config.task is {name!r}: expected one of {', '.join(TASKS)}.")
    return TASKS[name]
