"""What a run's task scores of outputs and labels held in memory, by route."""

from typing import TYPE_CHECKING, Any

import numpy as np

from c3r_jax.evaluation.branches import Branches
from c3r_jax.evaluation.label_metrics import multilabel_metrics, multilabel_per_class, regression_metrics
from c3r_jax.evaluation.metrics import classification_metrics, per_class
from c3r_jax.models.twin import ROUTES

if TYPE_CHECKING:
    from c3r_jax.training.experiment import Experiment


def branch_scores(experiment: "Experiment", branches: Branches, labels: np.ndarray) -> dict[str, dict[str, float]]:
    """{route: {score: value}} of the task; the names are those of ``c3r_jax.evaluation.scores``."""
    return {route: _scores(experiment, branches.logits[route], labels) for route in ROUTES}


def _scores(experiment: "Experiment", outputs: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    task = experiment.method.task
    if task == "multilabel":
        return multilabel_metrics(outputs, labels)
    if task == "regression":
        return regression_metrics(outputs, labels, tolerance=experiment.method.target.tolerance)
    return classification_metrics(outputs, labels, num_bins=experiment.config.eval.num_bins)


def classes_report(
    task: str, branches: Branches, labels: np.ndarray, names: tuple[str, ...]
) -> dict[str, dict[str, dict[str, Any]]]:
    """{route: precision, recall, F1 and support of every class}; {} where labels are no classes."""
    if task == "regression":
        return {}
    of = multilabel_per_class if task == "multilabel" else per_class
    return {route: of(branches.logits[route], labels, names) for route in ROUTES}
