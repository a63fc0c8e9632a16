"""Multi-label scores of predicted logits, computed on the host by scikit-learn."""

from typing import Any

import numpy as np
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    f1_score,
    precision_recall_fscore_support,
)

from c3r_jax.metrics.classification import class_rows


def multilabel_metrics(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Macro- and micro-F1, mean average precision, exact match, label accuracy and mean NLL (nats).

    Args:
      logits: (n, K); a logit above 0 predicts 1. A non-finite logit counts as incorrect.
      labels: (n, K) of 0 and 1.

    Returns:
      {"macro_f1", "micro_f1", "map", "exact_match", "accuracy", "nll"}; "map" is the mean over the labels that some
      row has (NaN if there are none).

    Examples:
      >>> import numpy as np
      >>> scores = multilabel_metrics(np.array([[2.0, -1.0], [1.0, 3.0]]), np.array([[1, 0], [0, 1]]))
      >>> scores["exact_match"], scores["accuracy"], scores["map"]
      (0.5, 0.75, 1.0)
    """
    logits, labels = np.asarray(logits, np.float64), np.asarray(labels)
    ranked = _ranked(logits, labels)
    predicted = (ranked > 0).astype(int)
    options = {"labels": _sklearn_labels(labels), "zero_division": 0}
    present = np.flatnonzero(labels.any(0))
    precision = [average_precision_score(labels[:, k], ranked[:, k]) for k in present]
    with np.errstate(invalid="ignore"):
        nll = float(np.logaddexp(0, np.where(labels > 0, -logits, logits)).mean())
    return {
        "macro_f1": float(f1_score(labels, predicted, average="macro", **options)),
        "micro_f1": float(f1_score(labels, predicted, average="micro", **options)),
        "map": float(np.mean(precision)) if len(present) else float("nan"),
        "exact_match": float(accuracy_score(labels, predicted)),
        "accuracy": float((predicted == labels).mean()),
        "nll": nll,
    }


def multilabel_per_class(
    logits: np.ndarray, labels: np.ndarray, class_names: tuple[str, ...]
) -> dict[str, dict[str, Any]]:
    """Precision, recall, F1 and support of every label."""
    predicted = (_ranked(np.asarray(logits, np.float64), labels) > 0).astype(int)
    scores = precision_recall_fscore_support(
        labels, predicted, labels=_sklearn_labels(labels), average=None, zero_division=0
    )
    return class_rows(scores, class_names)


def _ranked(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The logits; where one is not finite, the worst possible one."""
    worst = np.where(labels > 0, -np.finfo(np.float32).max, np.finfo(np.float32).max)
    return np.where(np.isfinite(logits), logits, worst)


def _sklearn_labels(labels: np.ndarray) -> list[int]:
    """Label ids as scikit-learn numbers them: it reads a single column as two classes, and the label is class 1."""
    return [1] if labels.shape[1] == 1 else list(range(labels.shape[1]))
