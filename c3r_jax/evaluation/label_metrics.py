"""Scores of several labels a row and of numbers, on the host, by scikit-learn and scipy."""

from typing import Any

import numpy as np
from scipy import stats
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    f1_score,
    mean_absolute_error,
    precision_recall_fscore_support,
)

from c3r_jax.evaluation.metrics import class_rows


def multilabel_metrics(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Macro- and micro-F1, mean average precision, exact match, accuracy of labels and their NLL (nats, mean).

    Args:
      logits: (n, K); above 0 says 1. What is not finite counts as wrong.
      labels: (n, K) of 0 and 1.

    Returns:
      {"macro_f1", "micro_f1", "map", "exact_match", "accuracy", "nll"}; the mean of the average precision is over the
      labels that some row has (NaN if there are none).

    Examples:
      >>> import numpy as np
      >>> scores = multilabel_metrics(np.array([[2.0, -1.0], [1.0, 3.0]]), np.array([[1, 0], [0, 1]]))
      >>> scores["exact_match"], scores["accuracy"], scores["map"]
      (0.5, 0.75, 1.0)
    """
    logits, labels = np.asarray(logits, np.float64), np.asarray(labels)
    ranked = _ranked(logits, labels)
    said = (ranked > 0).astype(int)
    counted = {"labels": _counted(labels), "zero_division": 0}
    seen = np.flatnonzero(labels.any(0))
    precision = [average_precision_score(labels[:, k], ranked[:, k]) for k in seen]
    with np.errstate(invalid="ignore"):
        nll = float(np.logaddexp(0, np.where(labels > 0, -logits, logits)).mean())
    return {
        "macro_f1": float(f1_score(labels, said, average="macro", **counted)),
        "micro_f1": float(f1_score(labels, said, average="micro", **counted)),
        "map": float(np.mean(precision)) if len(seen) else float("nan"),
        "exact_match": float(accuracy_score(labels, said)),
        "accuracy": float((said == labels).mean()),
        "nll": nll,
    }


def multilabel_per_class(
    logits: np.ndarray, labels: np.ndarray, class_names: tuple[str, ...]
) -> dict[str, dict[str, Any]]:
    """Precision, recall, F1 and support of every label."""
    said = (_ranked(np.asarray(logits, np.float64), labels) > 0).astype(int)
    found = precision_recall_fscore_support(labels, said, labels=_counted(labels), average=None, zero_division=0)
    return class_rows(found, class_names)


def _ranked(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The logits; where they are not finite, the most wrong one."""
    worst = np.where(labels > 0, -np.finfo(np.float32).max, np.finfo(np.float32).max)
    return np.where(np.isfinite(logits), logits, worst)


def _counted(labels: np.ndarray) -> list[int]:
    """The labels as scikit-learn numbers them, which takes a single one for two classes: there it is class 1."""
    return [1] if labels.shape[1] == 1 else list(range(labels.shape[1]))


def regression_metrics(outputs: np.ndarray, labels: np.ndarray, *, tolerance: float) -> dict[str, float]:
    r"""Scores of sentiment in [-3, 3] as MMSA defines them, and the share within the tolerance.

    MAE and Pearson's r as they stand. ``acc7``: output and label clipped to [-3, 3] and rounded (half to even) agree.
    ``acc2`` and ``f1`` tell >= 0 from < 0, over all rows; ``acc2_nonzero`` and ``f1_nonzero`` tell > 0 from <= 0, over
    the rows whose label is not 0. F1 is the mean of both classes' F1, weighted by the labels' shares.

    Args:
      outputs: (n, 1).
      labels: (n,).
      tolerance: of ``accuracy``.

    Returns:
      {"mae", "pearson", "acc2_nonzero", "f1_nonzero", "acc2", "f1", "acc7", "accuracy"}; NaN where undefined (r of a
      constant, a score of rows that there are none of, an error that is not finite).

    Examples:
      >>> import numpy as np
      >>> scores = regression_metrics(np.array([[0.4], [-2.6], [0.0]]), np.array([1.0, -3.0, 0.0]), tolerance=0.5)
      >>> round(scores["mae"], 3), round(scores["acc7"], 3), scores["acc2"], scores["acc2_nonzero"]
      (0.333, 0.667, 1.0, 1.0)

    References:
      github.com/thuiar/MMSA, utils/metricsTop.py (regression on MOSI and MOSEI).
    """
    said, truth = np.asarray(outputs, np.float64)[:, 0], np.asarray(labels, np.float64)
    finite = bool(np.isfinite(said).all())
    varies = finite and len(said) > 1 and np.ptp(said) > 0 and np.ptp(truth) > 0
    sides = {"": (truth >= 0, said >= 0)}
    decided = truth != 0
    sides["_nonzero"] = (truth[decided] > 0, said[decided] > 0)
    scores = {
        "mae": float(mean_absolute_error(truth, said)) if finite else float("nan"),
        "pearson": float(stats.pearsonr(said, truth).statistic) if varies else float("nan"),
        "acc7": float((np.round(np.clip(said, -3, 3)) == np.round(np.clip(truth, -3, 3))).mean()),
        "accuracy": float((np.abs(said - truth) <= tolerance).mean()),
    }
    for name, (positive, told) in sides.items():
        some = len(positive) > 0
        scores[f"acc2{name}"] = float(accuracy_score(positive, told)) if some else float("nan")
        f1 = f1_score(positive, told, average="weighted", zero_division=0) if some else float("nan")
        scores[f"f1{name}"] = float(f1)
    return scores
