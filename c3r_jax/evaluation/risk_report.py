"""Risks with intervals, and a probe of the hypothetical world."""

import warnings
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from c3r_jax.core.tasks.base import Task
from c3r_jax.core.tasks.classification import CLASSIFICATION
from c3r_jax.metrics.intervals import wilson_interval
from c3r_jax.models.branches import Branches, measured_risk


class Voxels(NamedTuple):
    """Some voxels, for diagnostics: their representations, and the hypothetical world's.

    Attributes:
      h: {modality: (n, d)}, zeros where it is not present.
      present: (n, M) bool.
      labels: (n,) class ids.
      z_bar: (n, d), of the whole volume that a voxel is of.
      label_probability: (n,) p_y(z_bar).
      weights: (n,) of the voxels, by class.
    """

    h: Any
    present: Any
    labels: Any
    z_bar: Any
    label_probability: Any
    weights: Any


def risk_report(
    train: Branches, train_labels: np.ndarray, test: Branches, labels: np.ndarray, task: Task = CLASSIFICATION
) -> dict[str, Any]:
    """The C3 risk of evaluated examples, its confidence intervals, and the accuracy of a probe fitted to z_bar.

    Args:
      train: branches of the training split, on which the probe is fitted.
      train_labels: (n_train,).
      test: branches of the evaluated split.
      labels: (n,), or the task's own shape.
      task: the task's losses and correctness.

    Returns:
      The ``risk`` part of results.json: risks, 95 % Wilson intervals, mean p_y(z_bar) (or the task's equivalent), the
      probe's accuracy, and chance: the largest accuracy of a constant prediction.
    """
    risk = measured_risk(test, labels, task)
    values: dict[str, Any] = {name: float(value) for name, value in risk._asdict().items()}
    values["intervals"] = {
        name: wilson_interval(values[name], len(labels)) for name in ("sufficiency", "necessity", "joint")
    }
    probability = task.probability(jnp.asarray(test.counterfactual_logits), jnp.asarray(labels))
    values["label_probability"] = float(np.asarray(probability, np.float64).mean())
    values["probe_accuracy"] = _probe(train.z_bar, train_labels, test.z_bar, labels, task)
    values["chance"] = task.spec.chance(labels, task.tolerance)
    return values


def _probe(train_z: np.ndarray, train_labels: np.ndarray, z: np.ndarray, labels: np.ndarray, task: Task) -> float:
    """Accuracy of linear probes: least squares for numbers, one probe per label for several labels."""
    if not task.spec.has_classes:
        probe = make_pipeline(StandardScaler(), LinearRegression()).fit(_wide(train_z), train_labels)
        predicted = np.asarray(probe.predict(_wide(z)))
        return float((np.abs(predicted - labels) <= task.tolerance).mean())
    columns = [(train_labels, labels)]
    if task.spec.label_per_class:
        columns = list(zip(train_labels.T, labels.T, strict=True))
    return float(np.mean([probe_accuracy(train_z, train_column, z, column) for train_column, column in columns]))


def _wide(z: np.ndarray) -> np.ndarray:
    return np.asarray(z, np.float64)


def voxel_probe(train: Voxels, held_out: Voxels) -> dict[str, float]:
    """What z_bar still predicts of voxels, each weighted by its class as in the risk of voxels.

    Args:
      train: voxels of training volumes, on which the probe is fitted.
      held_out: voxels of the evaluated split.

    Returns:
      As in :func:`risk_report`: mean p_y(z_bar), the probe's accuracy, and chance, the largest weight of one class.
    """
    weights = np.asarray(held_out.weights, np.float64)
    weights = weights / weights.sum()
    columns = (train.z_bar, train.labels, held_out.z_bar, held_out.labels)
    return {
        "label_probability": float((weights * held_out.label_probability).sum()),
        "probe_accuracy": probe_accuracy(*columns, weights=(np.asarray(train.weights), weights)),
        "chance": float(np.bincount(held_out.labels, weights).max()),
    }


def probe_accuracy(
    train_z: np.ndarray,
    train_labels: np.ndarray,
    z: np.ndarray,
    labels: np.ndarray,
    *,
    weights: tuple[np.ndarray | None, np.ndarray | None] = (None, None),
) -> float:
    """Accuracy of a linear probe (logistic regression) fitted on one split and scored on another.

    Args:
      train_z: (n_train, d).
      train_labels: (n_train,).
      z: (n, d).
      labels: (n,).
      weights: weights of both splits' rows; None: all equal.
    """
    if len(np.unique(train_labels)) < 2:
        return float(np.average(labels == train_labels[0], weights=weights[1]))
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a probe that has not converged is still useful
        probe.fit(_wide(train_z), train_labels, logisticregression__sample_weight=weights[0])
    return float(probe.score(_wide(z), labels, sample_weight=weights[1]))
