"""Confidence intervals: of shares, of paired differences over seeds, and by bootstrap."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats


def wilson_interval(share: float, count: int, level: float = 0.95) -> list[float]:
    """Wilson score interval of a share of ``count`` examples.

    Examples:
      >>> [round(end, 3) for end in wilson_interval(0.5, 100)]
      [0.404, 0.596]

    References:
      E. B. Wilson, Probable inference, the law of succession, and statistical inference, 1927.
    """
    z = stats.norm.ppf(0.5 + level / 2)
    centre = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return [float(max(0.0, centre - half)), float(min(1.0, centre + half))]


class Stat(NamedTuple):
    """Mean, standard deviation (n - 1 in the denominator; NaN for n = 1) and number of seeds."""

    mean: float
    sd: float
    n: int


class Difference(NamedTuple):
    """Mean paired difference over seeds with its t interval (NaN bounds for fewer than two shared seeds)."""

    mean: float
    lower: float
    upper: float
    n: int

    @property
    def decided(self) -> bool:
        """Whether the interval exists, excludes 0 and is based on at least three seeds."""
        return self.n >= 3 and (self.lower > 0 or self.upper < 0)


def describe(values: Sequence[float]) -> Stat:
    """Mean, standard deviation and count.

    Examples:
      >>> describe([0.5, 0.7])
      Stat(mean=0.6, sd=0.141..., n=2)
    """
    n = len(values)
    if n == 0:
        raise ValueError("describe() got no values; at least one was expected.")
    mean = math.fsum(values) / n
    sd = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1)) if n > 1 else math.nan
    return Stat(mean, sd, n)


def t_interval(differences: Sequence[float], *, level: float = 0.95) -> Difference:
    """Mean of paired differences with mean +- t_{n-1} sd / sqrt(n).

    Examples:
      >>> t_interval([0.01, 0.02, 0.03])
      Difference(mean=0.02, lower=-0.0048..., upper=0.0448..., n=3)
    """
    mean, sd, n = describe(differences)
    if n < 2:
        return Difference(mean, math.nan, math.nan, n)
    half = float(stats.t.ppf(0.5 + level / 2, n - 1)) * sd / math.sqrt(n)
    return Difference(mean, mean - half, mean + half, n)


def bootstrap_interval(
    differences: Sequence[float], *, level: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of the mean of paired differences, resampling seeds.

    Examples:
      >>> low, high = bootstrap_interval([0.1, 0.2, 0.3])
      >>> 0.1 <= low < 0.2 < high <= 0.3
      True

    References:
      B. Efron, R. Tibshirani, An introduction to the bootstrap, 1993. With few seeds the interval is too narrow.
    """
    values = np.asarray(differences, np.float64)
    resampled = np.random.default_rng(seed).integers(0, len(values), (resamples, len(values)))
    low, high = np.quantile(values[resampled].mean(1), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
