"""Numbers that float32 does not keep apart are refused wherever they enter; all others pass."""

import numpy as np
import pytest

from c3r_jax.data.array_source import ArraySource
from c3r_jax.data.sets.standardised import fit_standardisation
from c3r_jax.data.source import DatasetInfo
from c3r_jax.errors import DataError
from c3r_jax.estimator.post_hoc import PostHocInstrument
from c3r_jax.tasks.classification import CLASSIFICATION
from c3r_jax.tasks.regression import REGRESSION
from c3r_jax.tasks.rounding import lost_in_float32

N = 40
LOST = {
    "timestamps": 1_700_000_000 + np.arange(N),
    "milliseconds": 1_700_000_000_000 + 60_000 * np.arange(N),
    "ids": 2**24 + np.arange(N),
    "ids of 64 bits": 2**52 + np.arange(N),
    "small differences": 300.0 + 1e-6 * np.arange(N),
    "too large": np.linspace(0, 1e39, N),
}
KEPT = {
    "hours": 1_700_000_000 + 3600 * np.arange(N),
    "small": np.linspace(-1, 1, N) / 3,
    "large": 1e30 * np.linspace(-1, 1, N),
    "one value": np.full(N, 1_700_000_001),
    "whole": np.arange(N) * 1000,
    "wide whole numbers": np.r_[np.random.default_rng(0).integers(0, 10**8, N - 2), 99_999_990, 99_999_991],
    "one value up to rounding": np.where(np.arange(N) % 2, 0.1 + 0.2, 0.3),
    "sums of shares": (lambda e: (e / e.sum(1, keepdims=True)).sum(1))(np.random.default_rng(0).random((N, 7))),
}


@pytest.mark.parametrize("name", LOST)
def test_what_is_lost_is_refused_everywhere(name):
    values = LOST[name].astype(np.float64)
    assert "float32" in lost_in_float32(values)
    with pytest.raises(DataError, match="The label of 'demo' has .*float32"):
        REGRESSION.check_labels(values, 0, "demo")
    info = DatasetInfo("demo", ("sound",), ("a", "b"), task=CLASSIFICATION.name)
    columns = np.stack([np.arange(N, dtype=np.float64), values], axis=1)
    source = ArraySource({"sound": columns}, np.arange(N) % 2, info=info)
    with pytest.raises(DataError, match="Column 1 of 'sound' in 'demo' has .*float32"):
        fit_standardisation(source)
    with pytest.raises(DataError, match=r"Column 1 of features\['a'\] has .*float32"):
        PostHocInstrument(lambda z: z).fit({"a": columns, "b": columns})


@pytest.mark.parametrize("name", KEPT)
def test_what_is_kept_passes(name):
    values = KEPT[name].astype(np.float64)
    assert lost_in_float32(values) == ""
    np.testing.assert_array_equal(REGRESSION.check_labels(values, 0, "demo"), values.astype(np.float32))


def test_whole_numbers_of_64_bits():
    assert "float32" in lost_in_float32(2**60 + np.arange(N))
    assert "float32" in lost_in_float32(-(2**62) + np.arange(N))
    assert lost_in_float32(np.linspace(-(2**62), 2**62, N).astype(np.int64)) == ""


def test_a_fitted_model_takes_rows_that_lie_close_together():
    """What is refused in training rows are columns; a prediction for two close rows is as good as any."""
    rows = np.random.default_rng(0).normal(300.0, 20.0, (N, 1))
    repair = PostHocInstrument(lambda z: z).fit({"a": rows, "b": rows})
    close = np.array([[300.0], [300.0 + 1e-6]])
    assert "float32" in lost_in_float32(close)
    assert repair.predict_logits({"a": close, "b": close}).shape == (2, 1)
    assert repair.transform({"a": close, "b": close}).shape == (2, 1)


@pytest.mark.parametrize("index", [np.array([0, 2**31]), np.array([-1, 5]), np.array([0.5, 1.0])])
def test_ids_beyond_int32_are_refused(index):
    info = DatasetInfo("demo", ("sound",), ("a", "b"))
    with pytest.raises(DataError, match="index of 'demo' is a .* expected whole numbers from 0 to 2147483647"):
        ArraySource({"sound": np.ones((2, 3), np.float32)}, np.array([0, 1]), info=info, index=index)
