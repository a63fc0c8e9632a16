"""The scores of a run's task by route, for outputs and labels in memory."""

from typing import Any

import numpy as np

from c3r_jax.experiments.experiment import Experiment
from c3r_jax.metrics.routes import ROUTES
from c3r_jax.models.branches import Branches
from c3r_jax.tasks.base import TaskSpec


def branch_scores(experiment: Experiment, branches: Branches, labels: np.ndarray) -> dict[str, dict[str, float]]:
    """{route: {score: value}} for the task; the names are those of ``c3r_jax.metrics.scores``."""
    method = experiment.method
    settings = {"tolerance": method.target.tolerance, "num_bins": experiment.settings.eval.num_bins}
    return {route: method.spec.measure(branches.logits[route], labels, **settings) for route in ROUTES}


def classes_report(
    task: TaskSpec, branches: Branches, labels: np.ndarray, names: tuple[str, ...]
) -> dict[str, dict[str, dict[str, Any]]]:
    """{route: precision, recall, F1 and support of every class}; {} where labels are not classes."""
    if not task.has_classes:
        return {}
    return {route: task.per_class(branches.logits[route], labels, names) for route in ROUTES}
