"""Temperature, biases and floors make probabilities of what a model says."""

from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

BIAS_SD, FLOOR_LOGIT, FLOOR_SD, SLOPE_SD = 0.5, -3.0, 2.0, 1.0  # the prior of fit_calibration
OVER_FITTED = 1.645  # standard errors: one-sided, 5 %


class LogitCalibration(NamedTuple):
    """Calibrated probabilities (1 - F) softmax(logits / temperature + bias) + F softmax(slope logits + log floor).

    F is the floors' sum. A cause may decide the label with probability .8 only: then the logits of a model of the cause
    have nearly two values, and no temperature and bias make both right. The floors are what is left to each class
    however sure the model is; with a slope, a little less of it where the model is surer.

    Attributes:
      temperature: above 0; above 1 where the model is over-confident.
      bias: (K,), of mean 0.
      floor: (K,), at least 0, of sum below 1.
      slope: at least 0.
    """

    temperature: float
    bias: np.ndarray
    floor: np.ndarray
    slope: float = 0.0

    def __call__(self, logits: np.ndarray) -> np.ndarray:
        """Probabilities (n, K) of logits (n, K)."""
        logits, total = np.asarray(logits, np.float64), self.floor.sum()
        p = (1 - total) * softmax(logits / self.temperature + self.bias, axis=1)
        return p + total * softmax(self.slope * logits + np.log(self.floor), axis=1) if total else p


def no_calibration(num_classes: int) -> LogitCalibration:
    """Leaves the logits as they are."""
    return LogitCalibration(1.0, np.zeros(num_classes), np.zeros(num_classes))


def fit_calibration(logits: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> LogitCalibration:
    r"""Fits temperature, biases, floors and slope, at the mode of their posterior.

    .. math:: \min_{T, b, \theta, \beta \ge 0} -\sum_i w_i \log\big((1 - F)\,\mathrm{softmax}(l_i / T + b)_{y_i}
              + F\,\mathrm{softmax}(\beta l_i + \theta)_{y_i}\big)
              + \frac{(\log T)^2}{2} + \frac{|b|^2}{2 \cdot 0.5^2} + \frac{\beta^2}{2}
              + \sum_k \frac{(\theta_k - \log \pi_k + 3)^2}{2 \cdot 2^2},
              \quad F = \frac{\sum_k e^{\theta_k}}{1 + \sum_k e^{\theta_k}}

    The floors are :math:`F\,\mathrm{softmax}(\theta)`, the slope is beta, pi are the label shares. With few rows the
    prior keeps the logits nearly as they are, with floors of 5 % in all.

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
    shares = (w @ np.eye(k)[labels] + 1) / (w.sum() + k)  # one row more of each class: none has share 0
    centre = np.concatenate([np.zeros(1 + k), np.log(shares) + FLOOR_LOGIT, np.zeros(1)])
    width = np.concatenate([np.ones(1), np.full(k, BIAS_SD), np.full(k, FLOOR_SD), np.full(1, SLOPE_SD)])

    # Between e^-4 and e^4: beyond, rows that are all right (or all wrong) would send T to 0 or infinity for nothing.
    bounds = [(-4.0, 4.0), *[(None, None)] * (2 * k), (0.0, None)]
    # The cost has several valleys where the model is sure and often wrong: a flat softmax, or a sharp one above floors
    # that are flat or lean.
    away = [np.concatenate([[-2.0], np.zeros(k), np.full(k, 2.5), [slope]]) for slope in (0.1, 0.5)]
    starts = (centre, *(centre + one for one in away))
    given = (logits, labels, w, centre, width)
    searches = [minimize(_cost, x, given, jac=True, method="L-BFGS-B", bounds=bounds) for x in starts]
    found = min(searches, key=lambda search: search.fun).x
    bias, theta, (slope,) = np.split(found[1:], [k, 2 * k])
    total, within = _floors(theta)
    return LogitCalibration(float(np.exp(found[0])), bias - bias.mean(), total * within, float(slope))


def _cost(
    parameters: np.ndarray,
    logits: np.ndarray,
    labels: np.ndarray,
    w: np.ndarray,
    centre: np.ndarray,
    width: np.ndarray,
) -> tuple[float, np.ndarray]:
    """What :func:`fit_calibration` minimises, and its gradient; the prior has these means and standard deviations."""
    n, k = logits.shape
    rows, target = np.arange(n), np.eye(k)[labels]
    inverse, bias, theta, slope = np.exp(-parameters[0]), *np.split(parameters[1:], [k, 2 * k])
    total, within = _floors(theta)
    sharp = np.exp(log_softmax(logits * inverse + bias, axis=1))
    gentle = np.exp(log_softmax(logits * slope + theta, axis=1))
    by_sharp, by_gentle = (1 - total) * sharp[rows, labels], total * gentle[rows, labels]
    p = np.maximum(by_sharp + by_gentle, np.finfo(float).tiny)  # a search may step far out
    apart = (parameters - centre) / width
    # Each row is told by the first part with probability ``by_sharp / p``, by the second with ``by_gentle / p``.
    told_sharp, told_gentle = w * by_sharp / p, w * by_gentle / p
    first, second = told_sharp[:, None] * (sharp - target), told_gentle[:, None] * (gentle - target)
    gradient = np.concatenate(
        [
            [-(first * logits).sum() * inverse],
            first.sum(0),
            second.sum(0) + within * (total * told_sharp.sum() - (1 - total) * told_gentle.sum()),
            [(second * logits).sum()],
        ]
    )
    return float(-(w * np.log(p)).sum() + 0.5 * (apart**2).sum()), gradient + apart / width


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


def _floors(theta: np.ndarray) -> tuple[float, np.ndarray]:
    """The floors' sum and their shares of it."""
    shares = softmax(np.append(theta, 0.0))
    return float(1 - shares[-1]), softmax(theta)
