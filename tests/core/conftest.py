"""Fixtures for the tests of the core."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest


class Precision(NamedTuple):
    """The dtype a test runs in, and how near to the oracle it must come."""

    dtype: Any
    rtol: float

    def close(self, actual: Any, expected: Any, *, loosen: float = 1.0) -> None:
        """Relative to the entry and, for entries near zero, to the largest entry."""
        expected = np.asarray(expected, np.float64)
        finite = np.abs(expected[np.isfinite(expected)])
        scale = max(float(finite.max(initial=0.0)), 1e-3)
        tol = self.rtol * loosen
        np.testing.assert_allclose(np.asarray(actual, np.float64), expected, rtol=tol, atol=tol * scale)


@pytest.fixture(params=["float32", "float64"])
def precision(request: pytest.FixtureRequest) -> Iterator[Precision]:
    """Runs the test in single and in double precision."""
    double = request.param == "float64"
    with jax.enable_x64(double):
        yield Precision(np.dtype(request.param), 1e-8 if double else 1e-5)


@pytest.fixture
def x64() -> Iterator[None]:
    """Double precision, for finite differences."""
    with jax.enable_x64(True):
        yield
