"""Regression: one number per example."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from c3r_jax.errors import DataError
from c3r_jax.settings.fields import Part, setting
from c3r_jax.tasks.base import TaskSpec
from c3r_jax.tasks.rounding import lost_in_float32


class RegressionSpec(TaskSpec):
    """Labels are finite numbers (n,).

    Examples:
      >>> REGRESSION.check_labels(np.array([0.5, -2.0]), 0, "demo").dtype.name
      'float32'
    """

    name = "regression"
    dtype = np.float32
    labels_are = "floats of shape (n,): give one number per example"
    scores = ("mae", "pearson", "acc2_nonzero", "f1_nonzero", "acc2", "f1", "acc7", "accuracy")
    wrong_means = " by more than the tolerance"
    accuracy_is = "the share of examples whose error is within the tolerance"

    def num_outputs(self, num_classes: int) -> int:
        """See :class:`TaskSpec`."""
        del num_classes
        return 1

    def fits(self, labels: np.ndarray) -> bool:
        """See :class:`TaskSpec`."""
        return labels.ndim == 1 and np.issubdtype(labels.dtype, np.floating)

    def check_labels(self, labels: np.ndarray, num_classes: int, name: str) -> np.ndarray:
        """See :class:`TaskSpec`; labels that float32 would not keep apart are refused."""
        if lost := lost_in_float32(np.asarray(labels)):
            raise DataError(f"The label of {name!r} {lost}.")
        return super().check_labels(labels, num_classes, name)

    def wrong(self, labels: np.ndarray, num_classes: int) -> tuple[np.ndarray, str]:
        """See :class:`TaskSpec`: what is not finite."""
        del num_classes
        return ~np.isfinite(labels), "a finite number: correct it or leave the example out"

    def item_label(self, label: Any, num_classes: int) -> float:
        """See :class:`TaskSpec`: a number."""
        del num_classes
        if label is None or not np.isfinite(np.float64(label)):
            raise DataError(f"its label is {label}, expected a finite number")
        return float(label)

    def measure(self, outputs: np.ndarray, labels: np.ndarray, *, tolerance: float, num_bins: int) -> dict[str, float]:
        """See :class:`TaskSpec`."""
        from c3r_jax.metrics.regression import regression_metrics  # scikit-learn is slow to import

        del num_bins
        return regression_metrics(outputs, labels, tolerance=tolerance)

    def constant_accuracy(self, train_labels: np.ndarray, labels: np.ndarray, tolerance: float) -> tuple[float, str]:
        """See :class:`TaskSpec`: always the training median."""
        constant = (np.abs(labels - np.median(train_labels)) <= tolerance).mean()
        return float(constant), "the share within the tolerance of the training median"

    def constant_errors(self, train_labels: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """See :class:`TaskSpec`: always the training median, which has the least mean absolute error there."""
        return np.abs(np.asarray(labels, np.float64) - np.median(np.asarray(train_labels, np.float64)))

    def chance(self, labels: np.ndarray, tolerance: float) -> float:
        """See :class:`TaskSpec`: the largest share of labels within the tolerance of one number."""
        ordered = np.sort(np.asarray(labels, np.float64))
        inside = np.searchsorted(ordered, ordered + 2 * tolerance, side="right") - np.arange(len(ordered))
        return float(inside.max() / len(ordered))


@dataclass(frozen=True)
class RegressionSettings(Part, place=RegressionSpec.name):
    """Task regression."""

    tolerance: float = setting(
        0.5,
        "Largest error of a correct prediction, in the labels' unit; also the unit of losses.",
        above=0,
    )


REGRESSION = RegressionSpec()
