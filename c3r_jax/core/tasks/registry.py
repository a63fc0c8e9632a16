"""The losses of every labelled task, by the task's name."""

from c3r_jax.core.tasks.base import Task
from c3r_jax.core.tasks.classification import Classification
from c3r_jax.core.tasks.multilabel import MultiLabel
from c3r_jax.core.tasks.regression import Regression
from c3r_jax.core.tasks.segmentation import Segmentation

TARGETS: dict[str, type[Task]] = {
    task.spec.name: task for task in (Classification, MultiLabel, Regression, Segmentation)
}
