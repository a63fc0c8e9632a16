"""Multi-modal input in every form users have it, and clear refusals of what cannot be used."""

import numpy as np
import pandas as pd
import pytest

from c3r_jax.errors import DataError
from c3r_jax.estimator.inputs import Layout, check_labels, check_weights, split_modalities, stratified_holdout

A, B = np.arange(8.0).reshape(4, 2), np.arange(12.0).reshape(4, 3)
WIDE = np.concatenate([A, B], axis=1)


@pytest.mark.parametrize(
    ("x", "modalities"),
    [
        ({"b": B, "a": A}, None),
        ({"a": A.tolist(), "b": pd.DataFrame(B)}, None),
        (WIDE, {"a": [0, 1], "b": slice(2, 5)}),
        (pd.DataFrame(WIDE, columns=list("pqrst")), {"b": list("rst"), "a": ["p", "q"]}),
        (pd.concat({"a": pd.DataFrame(A), "b": pd.DataFrame(B)}, axis=1), None),
    ],
)
def test_every_form_means_the_same(x, modalities):
    parts = split_modalities(x, modalities)
    assert list(parts) == ["a", "b"]
    np.testing.assert_array_equal(parts["a"], A)
    np.testing.assert_array_equal(parts["b"], B)


@pytest.mark.parametrize(
    ("x", "modalities", "message"),
    [
        (WIDE, None, "X is ndarray"),
        ({"a": A, "b": B[:3]}, None, "'a': 4, 'b': 3"),
        ({"a": [[1.0], [2.0, 3.0]], "b": B}, None, "X\\['a'\\] cannot be read"),
        ({"a": A, "b": [["x"]] * 4}, None, "X\\['b'\\] cannot be read"),
        ({"a": A[:, 0], "b": B}, None, r"X\['a'\] has shape \(4,\)"),
        ({"a": A[:, :0], "b": B}, None, r"shape \(4, 0\)"),
        (WIDE, {"a": [0], "b": [9]}, "X has 5 columns"),
        (pd.DataFrame(A, columns=["p", "q"]), {"a": ["p"], "b": ["z"]}, "no column 'z'"),
    ],
)
def test_other_forms_are_refused(x, modalities, message):
    with pytest.raises(DataError, match=message):
        split_modalities(x, modalities)


def with_nan(rows, whole=True):
    b = B.copy()
    b[rows] = np.nan
    return {"a": A, "b": b}


def test_layout_standardises_what_is_present():
    layout = Layout(with_nan([1]))
    inputs, present = layout.arrays(with_nan([1]))
    np.testing.assert_array_equal(present, [[1, 1], [1, 0], [1, 1], [1, 1]])
    assert (inputs["b"][1] == 0).all() and inputs["b"].dtype == np.float32
    kept = inputs["b"][[0, 2, 3]]
    np.testing.assert_allclose(kept.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(kept.std(0), 1, atol=1e-6)


def test_a_missing_key_is_an_absent_modality_and_a_constant_column_is_harmless():
    layout = Layout({"a": np.full((4, 1), 7.0), "b": B})
    inputs, present = layout.arrays({"a": np.array([[7.0], [8.0]])})
    np.testing.assert_array_equal(present, [[1, 0], [1, 0]])
    np.testing.assert_array_equal(inputs["a"], [[0.0], [1.0]])
    assert inputs["b"].shape == (2, 3) and not inputs["b"].any()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Layout({"a": A}), "at least 2"),
        (lambda: Layout(with_nan(slice(None))), "modality 'b' has no row"),
        (lambda: Layout({"a": np.where(np.eye(4, 1) > 0, np.nan, 1.0), "b": with_nan([0])["b"]}), "row 0 of X has no"),
        (lambda: Layout({"a": A, "b": np.where(B == 4, np.nan, B)}), r"row 1 of X\['b'\] is NaN in part"),
        (lambda: Layout({"a": A, "b": np.where(B == 4, np.inf, B)}), "infinite at row 1, column 1"),
        (lambda: Layout({"a": A, "b": B}).arrays({"a": A, "c": B}), "'c'"),
        (lambda: Layout({"a": A, "b": B}).arrays({"a": B}), "3 columns, but 2"),
        (lambda: Layout({"a": A, "b": B}).arrays({}), "modalities"),
    ],
)
def test_layout_refuses(make, message):
    with pytest.raises(DataError, match=message):
        make()


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([0.0, np.nan, 1.0], "y is missing at row 1"),
        (np.array(["x", None, "z"], object), "y is missing at row 1"),
        ([1, 1, 1], "one class"),
        ([0, 1], r"shape \(2,\), but \(3,\)"),
        ([0.5, 1.0, 2.0], "not a regressor"),
    ],
)
def test_labels_refused(y, message):
    with pytest.raises(DataError, match=message):
        check_labels(y, 3)


@pytest.mark.parametrize("weights", [[1.0, 2.0], [1.0, -1.0, 0.0], [0.0, 0.0, 0.0], [1.0, np.nan, 1.0]])
def test_weights_refused(weights):
    with pytest.raises(DataError, match="sample_weight"):
        check_weights(weights, 3)


def test_holdout_takes_a_share_of_every_class():
    labels = np.repeat([0, 1, 2], [100, 30, 5])
    held = stratified_holdout(labels, 0.1, np.random.default_rng(0))
    np.testing.assert_array_equal(np.bincount(labels[held], minlength=3), [10, 3, 0])
