"""What "the same numbers" means for metrics of runs on other devices."""

import numpy as np


def assert_same_values(one, other, note=""):
    """Losses, terms and risks to 1e-5; F statistics (which divide by 1 - R^2) and gradient norms are diagnostics."""
    assert one.keys() == other.keys()
    for key in one:
        tolerance = {"f": 1e-3, "gradient_norm": 1e-4}.get(key.split("/")[0], 1e-5)
        np.testing.assert_allclose(one[key], other[key], rtol=tolerance, atol=2e-6, err_msg=f"{note} {key}")
