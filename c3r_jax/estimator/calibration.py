"""Temperature, biases and floors make probabilities of what a model says."""

from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

BIAS_SD, FLOOR_LOGIT, FLOOR_SD = 0.5, -3.0, 2.0  # the prior of fit_calibration
OVER_FITTED = 1.645  # standard errors: one-sided, 5 %


class LogitCalibration(NamedTuple):
    """Calibrated probabilities are ``(1 - sum(floor)) softmax(logits / temperature + bias) + floor``.

    Attributes:
      temperature: above 0; above 1 where the model is over-confident.
      bias: (K,), of mean 0.
      floor: (K,), at least 0, of sum below 1: what is left to each class however sure the model is. A cause may decide
        the label with probability .8 only: then the logits of a model of the cause have two values, and no temperature
        and bias make both right.
    """

    temperature: float
    bias: np.ndarray
    floor: np.ndarray

    def __call__(self, logits: np.ndarray) -> np.ndarray:
        """Probabilities (n, K) of logits (n, K)."""
        p = softmax(np.asarray(logits, np.float64) / self.temperature + self.bias, axis=1)
        return (1 - self.floor.sum()) * p + self.floor


def no_calibration(num_classes: int) -> LogitCalibration:
    """Leaves the logits as they are."""
    return LogitCalibration(1.0, np.zeros(num_classes), np.zeros(num_classes))


def fit_calibration(logits: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> LogitCalibration:
    r"""Fits temperature, biases and floors, at the mode of their posterior.

    .. math:: \min_{T, b, \theta} -\sum_i w_i \log\big((1 - \textstyle\sum_k f_k)\,
              \mathrm{softmax}(l_i / T + b)_{y_i} + f_{y_i}\big)
              + \frac{(\log T)^2}{2} + \frac{|b|^2}{2 \cdot 0.5^2}
              + \sum_k \frac{(\theta_k - \log \pi_k + 3)^2}{2 \cdot 2^2},
              \quad f_k = \frac{e^{\theta_k}}{1 + \sum_j e^{\theta_j}}

    where pi are the label shares. With few rows the prior keeps the logits nearly as they are, with floors of 5 %
    in all.

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
      C. Guo et al., On calibration of modern neural networks, 2017 (temperature and vector scaling; not the floors).
    """
    logits = np.asarray(logits, np.float64)
    n, k = logits.shape
    w = np.ones(n) if weights is None else np.asarray(weights, np.float64) / np.mean(weights)
    rows, target = np.arange(n), np.eye(k)[labels]
    shares = (w @ target + 1) / (w.sum() + k)  # one row more of each class: none has share 0
    centre = np.concatenate([np.zeros(1 + k), np.log(shares) + FLOOR_LOGIT])
    width = np.concatenate([np.ones(1), np.full(k, BIAS_SD), np.full(k, FLOOR_SD)])

    def objective(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        inverse, bias = np.exp(-parameters[0]), parameters[1 : 1 + k]
        floor, rest = _floors(parameters[1 + k :])
        log_s = log_softmax(logits * inverse + bias, axis=1)
        by_model = rest * np.exp(log_s[rows, labels])
        p = np.maximum(by_model + floor[labels], np.finfo(float).tiny)  # a search may step far out
        apart = (parameters - centre) / width
        # Each row is told by the model with probability ``by_model / p`` and by the floor otherwise.
        residual = (w * by_model / p)[:, None] * (np.exp(log_s) - target)
        gradient = np.concatenate(
            [
                [-(residual * logits).sum() * inverse],
                residual.sum(0),
                w.sum() * floor - (w * floor[labels] / p) @ target,
            ]
        )
        return float(-(w * np.log(p)).sum() + 0.5 * (apart**2).sum()), gradient + apart / width

    # Between e^-4 and e^4: beyond, rows that are all right (or all wrong) would send T to 0 or infinity for nothing.
    bounds = [(-4.0, 4.0), *[(None, None)] * (2 * k)]
    # The cost has two valleys where the model is sure and often wrong: a flat softmax, or a sharp one above a floor.
    sharp = np.concatenate([[-2.0], np.zeros(k), np.full(k, 2.5)])
    starts = (centre, centre + sharp)
    found = min(
        (minimize(objective, x, jac=True, method="L-BFGS-B", bounds=bounds) for x in starts), key=lambda r: r.fun
    ).x
    bias, (floor, _) = found[1 : 1 + k], _floors(found[1 + k :])
    return LogitCalibration(float(np.exp(found[0])), bias - bias.mean(), floor)


def calibrate(
    logits: np.ndarray, labels: np.ndarray, held: np.ndarray, weights: np.ndarray | None = None
) -> LogitCalibration:
    """Fits a calibration on all rows, or on the held-out ones alone where the model knows those it was trained on.

    A model that is not over-fitted says of its training rows what it says of others, and many rows tell how right that
    is better than few. It counts as over-fitted if, calibrated on all rows, its mean log loss on the held-out rows
    exceeds that on the training rows by more than 1.645 standard errors.

    Args:
      logits: (n, K).
      labels: (n,) class ids.
      held: (n,) whether a row took no part in training.
      weights: (n,) numbers >= 0; None: all 1.

    Returns:
      :class:`LogitCalibration`.

    Examples:
      >>> import numpy as np
      >>> held = np.arange(800) >= 600
      >>> labels = np.arange(800) % 2
      >>> learnt_by_heart = np.where(held, np.arange(800) // 2 % 2, labels)  # of others it knows nothing
      >>> fitted = calibrate(9.0 * np.eye(2)[learnt_by_heart], labels, held)
      >>> bool(abs(fitted(np.array([[9.0, 0.0]]))[0, 0] - 0.5) < 0.1)
      True
    """
    w = np.ones(len(labels)) if weights is None else np.asarray(weights, np.float64)
    by_all = fit_calibration(logits, labels, w)
    cost = -np.log(np.maximum(by_all(logits)[np.arange(len(labels)), labels], np.finfo(float).tiny))
    (held_mean, held_error), (train_mean, train_error) = (_mean(cost[rows], w[rows]) for rows in (held, ~held))
    if held_mean - train_mean > OVER_FITTED * np.hypot(held_error, train_error):
        return fit_calibration(logits[held], labels[held], w[held])
    return by_all


def _mean(values: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    """Weighted mean and its standard error."""
    mean = np.average(values, weights=weights)
    return float(mean), float(np.sqrt((weights**2 * (values - mean) ** 2).sum()) / weights.sum())


def _floors(theta: np.ndarray) -> tuple[np.ndarray, float]:
    """Floors f_k and what they leave, ``1 - sum(f)``."""
    shares = softmax(np.append(theta, 0.0))
    return shares[:-1], float(shares[-1])
