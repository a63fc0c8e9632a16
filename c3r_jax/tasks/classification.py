"""Classification: one of K classes per example."""

from typing import Any

import numpy as np

from c3r_jax.tasks.base import TaskSpec, outside, whole_numbers, with_shape


class ClassificationSpec(TaskSpec):
    """Labels are class ids (n,).

    Examples:
      >>> CLASSIFICATION.check_labels(np.array([0, 2]), 3, "demo").dtype.name
      'int32'
    """

    name = "classification"
    has_classes = one_class_per_example = True
    labels_are = "integers of shape (n,): give one class id per example"
    scores = ("accuracy", "balanced_accuracy", "macro_f1", "nll", "ece", "auroc", "average_precision")
    binary_scores = ("auroc", "average_precision")
    decision = "largest"

    def fits(self, labels: np.ndarray) -> bool:
        """See :class:`TaskSpec`."""
        return labels.ndim == 1 and np.issubdtype(labels.dtype, np.integer)

    def wrong(self, labels: np.ndarray, num_classes: int) -> tuple[np.ndarray, str]:
        """See :class:`TaskSpec`: everything that is not a class id."""
        return outside(labels, num_classes - 1, f" ({num_classes} classes)")

    def item_label(self, label: Any, num_classes: int) -> int:
        """See :class:`TaskSpec`: a class id, or -1 for an unknown class, as in TensorFlow Datasets."""
        if label is None:
            return -1
        return int(with_shape(whole_numbers(label, num_classes - 1), ()))

    def measure(self, outputs: np.ndarray, labels: np.ndarray, *, tolerance: float, num_bins: int) -> dict[str, float]:
        """See :class:`TaskSpec`."""
        from c3r_jax.metrics.classification import classification_metrics  # scikit-learn is slow to import

        del tolerance
        return classification_metrics(outputs, labels, num_bins=num_bins)

    def per_class(self, outputs: np.ndarray, labels: np.ndarray, names: tuple[str, ...]) -> dict[str, dict[str, Any]]:
        """See :class:`TaskSpec`."""
        from c3r_jax.metrics.classification import per_class  # scikit-learn is slow to import

        return per_class(outputs, labels, names)

    def constant_accuracy(self, train_labels: np.ndarray, labels: np.ndarray, tolerance: float) -> tuple[float, str]:
        """See :class:`TaskSpec`: always the most frequent class."""
        del tolerance
        return float((labels == np.bincount(train_labels).argmax()).mean()), "the commonest label's share"

    def chance(self, labels: np.ndarray, tolerance: float) -> float:
        """See :class:`TaskSpec`: the share of the most frequent class."""
        del tolerance
        return float(np.bincount(labels).max() / len(labels))


CLASSIFICATION = ClassificationSpec()
