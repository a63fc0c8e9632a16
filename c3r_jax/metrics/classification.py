"""Classification scores of predicted logits, computed on the host by scikit-learn."""

from typing import Any

import numpy as np
from scipy.special import log_softmax, softmax
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    f1_score,
    precision_recall_fscore_support,
    recall_score,
    roc_auc_score,
)


def classification_metrics(logits: np.ndarray, labels: np.ndarray, *, num_bins: int = 10) -> dict[str, float]:
    """Accuracy, balanced accuracy, macro-F1, negative log-likelihood (nats) and expected calibration error.

    Balanced accuracy is the mean over the classes that some row has. Macro-F1 is, as in scikit-learn, the mean over the
    classes that some row has or is predicted as: one that is only predicted has F1 0.

    Args:
      logits: (n, K). A row with a non-finite logit counts as an incorrect prediction.
      labels: (n,) class ids.
      num_bins: equal-width confidence bins of the calibration error.

    Returns:
      {"accuracy", "balanced_accuracy", "macro_f1", "nll", "ece"}; with two classes also "auroc" and
      "average_precision" of class 1, NaN where all rows have one class.

    Examples:
      >>> import numpy as np
      >>> scores = classification_metrics(np.array([[2.0, 0.0], [0.0, 2.0]]), np.array([0, 1]))
      >>> scores["accuracy"], round(scores["nll"], 4), round(scores["ece"], 4)
      (1.0, 0.1269, 0.1192)
    """
    logits = np.asarray(logits, np.float64)
    predicted = predictions(logits)
    classes = np.unique(labels)
    seen = np.union1d(classes, predicted[predicted >= 0])  # -1 is no class
    calibration = reliability(logits, labels, num_bins=num_bins)
    weights = np.array(calibration["count"]) / len(labels)
    gap = np.abs(np.array(calibration["confidence"]) - np.array(calibration["accuracy"]))
    return {
        "accuracy": float(accuracy_score(labels, predicted)),
        "balanced_accuracy": float(recall_score(labels, predicted, labels=classes, average="macro", zero_division=0)),
        "macro_f1": float(f1_score(labels, predicted, labels=seen, average="macro", zero_division=0)),
        "nll": float(-log_softmax(logits, axis=1)[np.arange(len(labels)), labels].mean()),
        "ece": float((weights * gap).sum()),
        **(binary_metrics(logits, labels) if logits.shape[1] == 2 else {}),
    }


def binary_metrics(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Area under the ROC curve and average precision of class 1, ranked by l_1 - l_0; a non-finite row ranks worst.

    Args:
      logits: (n, 2).
      labels: (n,) of 0 and 1.

    Returns:
      {"auroc", "average_precision"}; NaN where all rows have one class.
    """
    if len(np.unique(labels)) < 2:
        return {"auroc": float("nan"), "average_precision": float("nan")}
    worst = np.where(labels == 1, -np.finfo(np.float64).max, np.finfo(np.float64).max)
    with np.errstate(invalid="ignore"):
        score = np.where(np.isfinite(logits).all(1), logits[:, 1] - logits[:, 0], worst)
    return {
        "auroc": float(roc_auc_score(labels, score)),
        "average_precision": float(average_precision_score(labels, score)),
    }


def predictions(logits: np.ndarray) -> np.ndarray:
    """Predicted class ids (n,); -1, which is never correct, for a row with a non-finite logit."""
    return np.where(np.isfinite(logits).all(1), np.nan_to_num(logits).argmax(1), -1)


def reliability(logits: np.ndarray, labels: np.ndarray, *, num_bins: int = 10) -> dict[str, list[float]]:
    """Mean confidence, accuracy and count per equal-width confidence bin (0 in empty bins).

    Args:
      logits: (n, K).
      labels: (n,).
      num_bins: number of bins on [0, 1].

    Returns:
      {"confidence", "accuracy", "count"}, lists of length ``num_bins``.
    """
    logits = np.asarray(logits, np.float64)
    confidence = np.nan_to_num(softmax(logits, axis=1).max(1))
    correct = predictions(logits) == labels
    bins = np.minimum((confidence * num_bins).astype(int), num_bins - 1)
    count = np.bincount(bins, minlength=num_bins)
    size = np.maximum(count, 1)
    return {
        "confidence": (np.bincount(bins, confidence, num_bins) / size).tolist(),
        "accuracy": (np.bincount(bins, correct, num_bins) / size).tolist(),
        "count": count.tolist(),
    }


def per_class(logits: np.ndarray, labels: np.ndarray, class_names: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Precision, recall, F1 and support of every class."""
    scores = precision_recall_fscore_support(
        labels, predictions(np.asarray(logits)), labels=np.arange(len(class_names)), zero_division=0
    )
    return class_rows(scores, class_names)


def class_rows(scores: Any, class_names: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Sorts scikit-learn's precision, recall, F1 and support by class name."""
    return {
        name: {
            "precision": float(scores[0][k]),
            "recall": float(scores[1][k]),
            "f1": float(scores[2][k]),
            "support": int(scores[3][k]),
        }
        for k, name in enumerate(class_names)
    }
