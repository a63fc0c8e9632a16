"""Temperature and biases, fitted where the model was not: what a regularised predictor says, made probabilities."""

from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax


class LogitCalibration(NamedTuple):
    """Calibrated logits are ``logits / temperature + bias``.

    Attributes:
      temperature: above 0; above 1 where the model is over-confident.
      bias: (K,), of mean 0.
    """

    temperature: float
    bias: np.ndarray

    def __call__(self, logits: np.ndarray) -> np.ndarray:
        """Probabilities (n, K) of logits (n, K)."""
        return softmax(np.asarray(logits, np.float64) / self.temperature + self.bias, axis=1)


def no_calibration(num_classes: int) -> LogitCalibration:
    """Leaves the logits as they are."""
    return LogitCalibration(1.0, np.zeros(num_classes))


def fit_calibration(logits: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> LogitCalibration:
    r"""Fits temperature and biases on held-out rows, with a standard normal prior on log T and on each bias.

    .. math:: \min_{T, b} \sum_i w_i\, CE(l_i / T + b, y_i) + \tfrac12 (\log T)^2 + \tfrac12 |b|^2

    With few rows the prior keeps the logits as they are; it is worth about one row.

    Args:
      logits: (n, K).
      labels: (n,) class ids.
      weights: (n,) numbers >= 0, rescaled to mean 1; None: all 1.

    Returns:
      :class:`LogitCalibration`.

    Examples:
      >>> import numpy as np
      >>> logits = np.array([[9.0, 0.0]] * 40)  # sure of class 0, right three times of four
      >>> fitted = fit_calibration(logits, np.arange(40) % 4 // 3)
      >>> bool(abs(fitted(logits)[0, 0] - 0.75) < 0.05)
      True

    References:
      C. Guo et al., On calibration of modern neural networks, 2017 (temperature and vector scaling).
    """
    logits = np.asarray(logits, np.float64)
    n, k = logits.shape
    w = np.ones(n) if weights is None else np.asarray(weights, np.float64) / np.mean(weights)
    target = np.eye(k)[labels]

    def objective(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        inverse, bias = np.exp(-parameters[0]), parameters[1:]
        log_p = log_softmax(logits * inverse + bias, axis=1)
        residual = w[:, None] * (np.exp(log_p) - target)
        value = -(w * log_p[np.arange(n), labels]).sum() + 0.5 * (parameters**2).sum()
        gradient = np.concatenate([[-(residual * logits).sum() * inverse], residual.sum(0)]) + parameters
        return float(value), gradient

    # Between e^-4 and e^4: beyond, rows that are all right (or all wrong) would send T to 0 or infinity for nothing.
    bounds = [(-4.0, 4.0), *[(None, None)] * k]
    found = minimize(objective, np.zeros(k + 1), jac=True, method="L-BFGS-B", bounds=bounds).x
    return LogitCalibration(float(np.exp(found[0])), found[1:] - found[1:].mean())
