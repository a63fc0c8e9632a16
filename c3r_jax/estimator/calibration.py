"""Calibrated probabilities from a model's logits, by temperature, biases and floors."""

from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from c3r_jax.metrics.biases import BIAS_SD, MOST

FLOOR_LOGIT, FLOOR_SD, SLOPE_SD = -3.0, 2.0, 1.0  # with that of biases the prior of fit_calibration
OVER_FITTED = 1.645  # standard errors: one-sided, 5 %


class LogitCalibration(NamedTuple):
    """Calibrated probabilities (1 - F) softmax(logits / temperature + bias) + F softmax(slope logits + log floor).

    F is the floors' sum. A cause may determine the label only with probability .8: then the logits of a model of the
    cause have nearly two values, and no temperature and bias calibrate both. The floors are each class's probability
    however confident the model is; with a slope, they are a little lower where the model is more confident.

    Attributes:
      temperature: above 0; above 1 if the model is over-confident.
      bias: (K,), mean 0.
      floor: (K,), at least 0, sum below 1.
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
    """A calibration that leaves the logits unchanged."""
    return LogitCalibration(1.0, np.zeros(num_classes), np.zeros(num_classes))


def fit_calibration(logits: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> LogitCalibration:
    r"""Fits temperature, biases, floors and slope, at the mode of their posterior.

    .. math:: \min_{T, b, \theta, \beta \ge 0} -\sum_i w_i \log\big((1 - F)\,\mathrm{softmax}(l_i / T + b)_{y_i}
              + F\,\mathrm{softmax}(\beta l_i + \theta)_{y_i}\big)
              + \frac{(\log T)^2}{2} + \frac{|b|^2}{2 \cdot 0.5^2} + \frac{\beta^2}{2}
              + \sum_k \frac{(\theta_k - \log \pi_k + 3)^2}{2 \cdot 2^2},
              \quad F = \frac{\sum_k e^{\theta_k}}{1 + \sum_k e^{\theta_k}}

    The floors are :math:`F\,\mathrm{softmax}(\theta)`, the slope is beta, pi are the label shares. With few rows the
    prior keeps the logits nearly unchanged, with floors of 5 % in total.

    Args:
      logits: (n, K).
      labels: (n,) class ids.
      weights: (n,) numbers >= 0, rescaled to mean 1; None: all 1.

    Returns:
      :class:`LogitCalibration`.

    Examples:
      >>> import numpy as np
      >>> logits = np.array([[9.0, 0.0]] * 40)  # confident in class 0, correct three times out of four
      >>> fitted = fit_calibration(logits, np.arange(40) % 4 // 3)
      >>> bool(abs(fitted(logits)[0, 0] - 0.75) < 0.05)
      True

    References:
      C. Guo et al., On calibration of modern neural networks, 2017 (temperature and vector scaling; not the floors).
    """
    logits = np.asarray(logits, np.float64)
    n, k = logits.shape
    w = np.ones(n) if weights is None else np.asarray(weights, np.float64) / np.mean(weights)
    shares = (w @ np.eye(k)[labels] + 1) / (w.sum() + k)  # one extra row per class: none has share 0
    centre = np.concatenate([np.zeros(1 + k), np.log(shares) + FLOOR_LOGIT, np.zeros(1)])
    width = np.concatenate([np.ones(1), np.full(k, BIAS_SD), np.full(k, FLOOR_SD), np.full(1, SLOPE_SD)])

    bounds = [(-MOST, MOST), *[(None, None)] * (2 * k), (0.0, None)]
    # The cost has several local minima where the model is confident and often wrong: a flat softmax, or a sharp one
    # with flat or sloped floors.
    offsets = [np.concatenate([[-2.0], np.zeros(k), np.full(k, 2.5), [slope]]) for slope in (0.1, 0.5)]
    starts = (centre, *(centre + offset for offset in offsets))
    arguments = (logits, labels, w, centre, width)
    searches = [minimize(_cost, x, arguments, jac=True, method="L-BFGS-B", bounds=bounds) for x in starts]
    best = min(searches, key=lambda search: search.fun).x
    bias, theta, (slope,) = np.split(best[1:], [k, 2 * k])
    total, within = _floors(theta)
    return LogitCalibration(float(np.exp(best[0])), bias - bias.mean(), total * within, float(slope))


def _cost(
    parameters: np.ndarray,
    logits: np.ndarray,
    labels: np.ndarray,
    w: np.ndarray,
    centre: np.ndarray,
    width: np.ndarray,
) -> tuple[float, np.ndarray]:
    """The cost of :func:`fit_calibration` and its gradient; the prior has means ``centre`` and deviations ``width``."""
    n, k = logits.shape
    rows, target = np.arange(n), np.eye(k)[labels]
    inverse, bias, theta, slope = np.exp(-parameters[0]), *np.split(parameters[1:], [k, 2 * k])
    total, within = _floors(theta)
    sharp = np.exp(log_softmax(logits * inverse + bias, axis=1))
    gentle = np.exp(log_softmax(logits * slope + theta, axis=1))
    by_sharp, by_gentle = (1 - total) * sharp[rows, labels], total * gentle[rows, labels]
    p = np.maximum(by_sharp + by_gentle, np.finfo(float).tiny)  # a search may take large steps
    deviation = (parameters - centre) / width
    # Each row is predicted by the first part with probability ``by_sharp / p``, by the second with ``by_gentle / p``.
    share_sharp, share_gentle = w * by_sharp / p, w * by_gentle / p
    first, second = share_sharp[:, None] * (sharp - target), share_gentle[:, None] * (gentle - target)
    gradient = np.concatenate(
        [
            [-(first * logits).sum() * inverse],
            first.sum(0),
            second.sum(0) + within * (total * share_sharp.sum() - (1 - total) * share_gentle.sum()),
            [(second * logits).sum()],
        ]
    )
    return float(-(w * np.log(p)).sum() + 0.5 * (deviation**2).sum()), gradient + deviation / width


def calibrate(
    logits: np.ndarray, labels: np.ndarray, held: np.ndarray, weights: np.ndarray | None = None
) -> LogitCalibration:
    """Fits a calibration on all rows, or only on the held-out ones if the model is over-fitted to its training rows.

    A model that is not over-fitted is as confident on its training rows as on others, and many rows calibrate better
    than few. It counts as over-fitted if, calibrated on all rows, its mean log loss on the held-out rows
    exceeds that on the training rows by more than 1.645 standard errors.

    Args:
      logits: (n, K).
      labels: (n,) class ids.
      held: (n,) whether a row was held out of training.
      weights: (n,) numbers >= 0; None: all 1.

    Returns:
      :class:`LogitCalibration`.

    Examples:
      >>> import numpy as np
      >>> held = np.arange(800) >= 600
      >>> labels = np.arange(800) % 2
      >>> memorised = np.where(held, np.arange(800) // 2 % 2, labels)  # held-out predictions are at chance
      >>> fitted = calibrate(9.0 * np.eye(2)[memorised], labels, held)
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
    """The floors' sum and each floor's share of it."""
    shares = softmax(np.append(theta, 0.0))
    return float(1 - shares[-1]), softmax(theta)
