"""Several labels per example, each 0 or 1."""

from typing import Any

import numpy as np

from c3r_jax.errors import DataError
from c3r_jax.tasks.base import TaskSpec, outside, whole_numbers, with_shape


class MultiLabelSpec(TaskSpec):
    """Labels are 0 or 1 for each class (n, K).

    Examples:
      >>> MULTILABEL.check_labels(np.array([[True, False]]), 2, "demo").tolist()
      [[1, 0]]
    """

    name = "multilabel"
    has_classes = label_per_class = True
    labels_are = "integers of shape (n, K): give a 0 or 1 per example and class"
    scores = ("macro_f1", "micro_f1", "map", "exact_match", "accuracy", "nll")
    unit = "labels"
    accuracy_is = "the share of labels that are correct"
    decision = "positive"

    def fits(self, labels: np.ndarray) -> bool:
        """See :class:`TaskSpec`."""
        return labels.ndim == 2 and np.issubdtype(labels.dtype, np.integer)

    def wrong(self, labels: np.ndarray, num_classes: int) -> tuple[np.ndarray, str]:
        """See :class:`TaskSpec`: what is neither 0 nor 1."""
        return outside(labels, 1)

    def check_labels(self, labels: np.ndarray, num_classes: int, name: str) -> np.ndarray:
        """See :class:`TaskSpec`: booleans are allowed, and every class needs its column."""
        labels = np.asarray(labels)
        labels = labels.astype(np.int32) if labels.dtype == bool else labels
        if self.fits(labels) and labels.shape[1] != num_classes:
            raise DataError(
                f"The labels of {name!r} have shape {labels.shape}, expected a column for each of {num_classes} "
                "classes: add the missing columns or name the missing classes."
            )
        return super().check_labels(labels, num_classes, name)

    def item_label(self, label: Any, num_classes: int) -> list[int]:
        """See :class:`TaskSpec`: K numbers."""
        return with_shape(whole_numbers(label, 1), (num_classes,)).astype(int).tolist()

    def measure(self, outputs: np.ndarray, labels: np.ndarray, *, tolerance: float, num_bins: int) -> dict[str, float]:
        """See :class:`TaskSpec`."""
        from c3r_jax.metrics.multilabel import multilabel_metrics  # scikit-learn is slow to import

        del tolerance, num_bins
        return multilabel_metrics(outputs, labels)

    def per_class(self, outputs: np.ndarray, labels: np.ndarray, names: tuple[str, ...]) -> dict[str, dict[str, Any]]:
        """See :class:`TaskSpec`."""
        from c3r_jax.metrics.multilabel import multilabel_per_class  # scikit-learn is slow to import

        return multilabel_per_class(outputs, labels, names)

    def constant_accuracy(self, train_labels: np.ndarray, labels: np.ndarray, tolerance: float) -> tuple[float, str]:
        """See :class:`TaskSpec`: always each label's more frequent value."""
        del tolerance
        constant = (labels == (train_labels.mean(0) > 0.5)).mean()
        return float(constant), "the share of each label's commoner value"

    def chance(self, labels: np.ndarray, tolerance: float) -> float:
        """See :class:`TaskSpec`: the mean share of each label's more frequent value."""
        del tolerance
        return float(np.mean([np.bincount(column).max() / len(column) for column in labels.T]))


MULTILABEL = MultiLabelSpec()
