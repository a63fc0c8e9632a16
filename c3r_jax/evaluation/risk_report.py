"""Risks with intervals, first-stage diagnostics and a probe of the hypothetical world."""

import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from c3r_jax.core.config import C3RConfig
from c3r_jax.core.diagnostics import WEAK_F, exclusion, instrument_strength, over_identification
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


def first_stage_report(
    h: Mapping[str, np.ndarray],
    present: np.ndarray,
    labels: np.ndarray,
    *,
    config: C3RConfig,
    num_classes: int,
    held: np.ndarray | None = None,
) -> tuple[dict[str, Any], list[str]]:
    """Strength of every modality's first stage, over-identification, and whether modalities err together.

    The strength is leave-one-out, on all rows. What reads labels is measured on rows that the encoders were not trained
    on.

    Args:
      h: {modality: (n, d)} representations.
      present: (n, M) bool; rows with a missing modality are left out.
      labels: (n,) class ids, numbers, or (n, K) of 0 and 1.
      config: instrument and ridge.
      num_classes: K, for class ids.
      held: (n,) bool, rows that were held out of training; None: all.

    Returns:
      The ``first_stage`` part of results.json ({} unless the instrument is "two_stage") and warnings as sentences.
    """
    if config.instrument != "two_stage":
        return {}, []
    complete = present.all(1)
    tested = complete if held is None else complete & held
    others = {name: np.concatenate([h[key][complete] for key in h if key != name], axis=1) for name in h}
    unseen, outcomes = {name: value[tested] for name, value in h.items()}, labels[tested]
    has_classes = np.issubdtype(labels.dtype, np.integer) and labels.ndim == 1
    shared = exclusion(unseen, outcomes, num_classes=num_classes) if has_classes else {}
    report, notes = {}, []
    for name, value in h.items():
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            strength = instrument_strength(others[name], value[complete], ridge=config.ridge, names=name)
        notes += [str(warning.message) for warning in caught]
        over_identified, said = _over_identified(unseen, outcomes, name, num_classes)
        notes += said
        rho = shared.get(name)
        report[name] = {
            "r2_mean": float(strength.r2.mean()),
            "f_median": strength.f_median,
            "n": strength.num_rows,
            "p": strength.num_instruments,
            "weak": strength.weak,
            "weak_below": WEAK_F,
            "leave_one_out": True,
            "over_identification": over_identified,
            "exclusion": None if rho is None or np.isnan(rho.rho) else rho._asdict(),
        }
    return report, notes


def _over_identified(
    h: Mapping[str, np.ndarray], labels: np.ndarray, name: str, num_classes: int
) -> tuple[dict[str, Any] | None, list[str]]:
    """The J test of one modality, None where it needs more columns, and a warning where it rejects."""
    if not np.issubdtype(labels.dtype, np.integer):
        labels = labels[:, None]
    test = over_identification(h, labels, name, num_classes=num_classes)
    if test.dof <= 0:
        return None, []
    # Bonferroni over classes: the smallest p-value times their number.
    p_value = float(min(1.0, np.nanmin(test.p_value) * len(test.p_value)))
    found = {"statistic": float(np.nanmax(test.statistic)), "dof": test.dof, "p_value": p_value}
    if p_value >= 0.05:
        return found, []
    return found, [
        f"over-identification is rejected for {name} (p = {p_value:.2g}): the other modalities also predict the label "
        "by paths that bypass it."
    ]
