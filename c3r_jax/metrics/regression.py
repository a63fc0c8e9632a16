"""Regression scores, as sentiment benchmarks define them."""

import numpy as np
from scipy import stats
from sklearn.metrics import (
    accuracy_score,
    f1_score,
    mean_absolute_error,
)


def regression_metrics(outputs: np.ndarray, labels: np.ndarray, *, tolerance: float) -> dict[str, float]:
    r"""Scores of sentiment in [-3, 3] as MMSA defines them, and the share within the tolerance.

    MAE and Pearson's r use the outputs as they are. ``acc7``: output and label agree after clipping to [-3, 3] and
    rounding (half to even). ``acc2`` and ``f1`` separate >= 0 from < 0, over all rows; ``acc2_nonzero`` and
    ``f1_nonzero`` separate > 0 from <= 0, over the rows whose label is not 0. F1 is the mean of both classes' F1,
    weighted by the labels' shares.

    Args:
      outputs: (n, 1).
      labels: (n,).
      tolerance: largest absolute error that ``accuracy`` counts as correct.

    Returns:
      {"mae", "pearson", "acc2_nonzero", "f1_nonzero", "acc2", "f1", "acc7", "accuracy"}; NaN where undefined (r of a
      constant, a score without rows, a non-finite error).

    Examples:
      >>> import numpy as np
      >>> scores = regression_metrics(np.array([[0.4], [-2.6], [0.0]]), np.array([1.0, -3.0, 0.0]), tolerance=0.5)
      >>> round(scores["mae"], 3), round(scores["acc7"], 3), scores["acc2"], scores["acc2_nonzero"]
      (0.333, 0.667, 1.0, 1.0)

    References:
      github.com/thuiar/MMSA, utils/metricsTop.py (regression on MOSI and MOSEI).
    """
    predicted, truth = np.asarray(outputs, np.float64)[:, 0], np.asarray(labels, np.float64)
    finite = bool(np.isfinite(predicted).all())
    varies = finite and len(predicted) > 1 and np.ptp(predicted) > 0 and np.ptp(truth) > 0
    sides = {"": (truth >= 0, predicted >= 0)}
    nonzero = truth != 0
    sides["_nonzero"] = (truth[nonzero] > 0, predicted[nonzero] > 0)
    scores = {
        "mae": float(mean_absolute_error(truth, predicted)) if finite else float("nan"),
        "pearson": float(stats.pearsonr(predicted, truth).statistic) if varies else float("nan"),
        "acc7": float((np.round(np.clip(predicted, -3, 3)) == np.round(np.clip(truth, -3, 3))).mean()),
        "accuracy": float((np.abs(predicted - truth) <= tolerance).mean()),
    }
    for name, (positive, predicted_positive) in sides.items():
        has_rows = len(positive) > 0 and finite  # a NaN is on neither side
        scores[f"acc2{name}"] = float(accuracy_score(positive, predicted_positive)) if has_rows else float("nan")
        f1 = f1_score(positive, predicted_positive, average="weighted", zero_division=0) if has_rows else float("nan")
        scores[f"f1{name}"] = float(f1)
    return scores
