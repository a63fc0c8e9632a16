"""Temperature and biases that make logits fit the frequencies of the classes."""

from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax

BIAS_SD = 0.5  # of the prior on biases; that on log temperature is 1
MOST = 4.0  # of |log temperature|: rows that are all correct would drive it to its end


class Biases(NamedTuple):
    """Calibrated logits l / temperature + bias.

    Attributes:
      temperature: above 0; above 1 if the model is over-confident.
      bias: (K,), mean 0.
    """

    temperature: float
    bias: np.ndarray

    def __call__(self, logits: Any) -> Any:
        """Calibrated logits (n, K) of NumPy or JAX, in the dtype of the logits."""
        return (logits / self.temperature + self.bias[None]).astype(logits.dtype)


def fit_biases(logits: np.ndarray, labels: np.ndarray) -> Biases:
    r"""Fits temperature and biases at the mode of their posterior.

    .. math:: \min_{T, b} -\sum_i \log \mathrm{softmax}(l_i / T + b)_{y_i} + \frac{(\log T)^2}{2}
              + \frac{|b|^2}{2 \cdot 0.5^2}

    With few rows the prior keeps the logits nearly unchanged.

    Args:
      logits: (n, K), of rows that the model was not trained on.
      labels: (n,) class ids.

    Returns:
      :class:`Biases`.

    Examples:
      >>> labels = np.arange(400) % 10 // 9  # one of ten is of class 1, and the logits know nothing of it
      >>> fitted = fit_biases(np.zeros((400, 2)), labels)
      >>> bool(np.exp(fitted(np.zeros((1, 2))) @ [1, -1])[0] > 6)
      True

    References:
      C. Guo et al., On calibration of modern neural networks, 2017 (temperature and vector scaling).
    """
    logits = np.asarray(logits, np.float64)
    rows, count = np.arange(len(labels)), logits.shape[1]

    def cost(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        inverse, bias = np.exp(-parameters[0]), parameters[1:]
        log_p = log_softmax(logits * inverse + bias, axis=1)
        error = np.exp(log_p)
        error[rows, labels] -= 1
        value = -log_p[rows, labels].sum() + parameters[0] ** 2 / 2 + np.square(bias).sum() / (2 * BIAS_SD**2)
        slope = parameters[0] - (error * logits).sum() * inverse
        return float(value), np.concatenate([[slope], error.sum(0) + bias / BIAS_SD**2])

    bounds = [(-MOST, MOST), *[(None, None)] * count]
    best = minimize(cost, np.zeros(1 + count), jac=True, method="L-BFGS-B", bounds=bounds).x
    return Biases(float(np.exp(best[0])), best[1:] - best[1:].mean())
