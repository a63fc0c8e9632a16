"""Multi-modal input in every form users have it, and clear refusals of what cannot be used."""

import numpy as np
import pandas as pd
import pytest

from c3r_jax.errors import DataError
from c3r_jax.estimator.frames import numbers
from c3r_jax.estimator.held_out import stratified_holdout
from c3r_jax.estimator.inputs import Layout, check_labels, check_weights, split_modalities

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
        (lambda: Layout({"a": A, "b": B * 1e200}), r"column 0 of X\['b'\] has values up to 9e\+200"),
        (
            lambda: Layout({"a": A, "b": B}).arrays({"b": B * 1e300}),
            r"X\['b'\] is .*e\+30. at row 0, column .*, but in fit",
        ),
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


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0, 2.0], r"has shape \(2,\), but \(3,\) was expected"),
        ([1.0, -1.0, 0.0], "is -1 at row 1"),
        ([0.0, 0.0, 0.0], "is 0 in all rows"),
        ([1.0, np.nan, 1.0], "is nan at row 1"),
        (["x", "y", "z"], "cannot be read as numbers"),
    ],
)
def test_weights_refused(weights, message):
    with pytest.raises(DataError, match=f"sample_weight {message}"):
        check_weights(weights, 3)


def test_names_that_differ_by_type_alone_are_one():
    with pytest.raises(DataError, match="two modalities called '0'"):
        split_modalities({0: A, "0": B})


def test_holdout_takes_a_share_of_every_class():
    labels = np.repeat([0, 1, 2], [100, 30, 5])
    held = stratified_holdout(labels, 0.1, np.random.default_rng(0))
    np.testing.assert_array_equal(np.bincount(labels[held], minlength=3), [16, 4, 0])  # more of few, for 20 in all
    many = np.repeat([0, 1, 2], [1000, 300, 50])
    held = stratified_holdout(many, 0.1, np.random.default_rng(0))
    np.testing.assert_array_equal(np.bincount(many[held], minlength=3), [100, 30, 5])
    assert stratified_holdout(labels[:50], 0.1, np.random.default_rng(0)).sum() == 5  # a quarter is too few
    assert not stratified_holdout(labels, 0.0, np.random.default_rng(0)).any()


@pytest.mark.parametrize("value", [0.1, 0.7, 1000000.1])
def test_a_constant_column_is_not_divided_by_its_rounding(value):
    column = np.full((600, 1), value)
    layout = Layout({"a": np.hstack([A[:1].repeat(600, 0), column]), "b": np.arange(600.0)[:, None]})
    test = {"a": np.hstack([A[:1], column[:1] + 0.01]).astype(np.float32).astype(float), "b": np.ones((1, 1))}
    assert abs(layout.arrays(test)[0]["a"]).max() < 0.1


NAMED = pd.DataFrame(A, columns=["age", "bmi"])
OTHER = pd.DataFrame(B, columns=["x", "y", "z"])
WIDE_FRAME = pd.concat([NAMED, OTHER], axis=1)
TWO_LEVELS = pd.concat({"a": NAMED, "b": OTHER}, axis=1)
NAMES = {"a": ("age", "bmi"), "b": ("x", "y", "z")}


@pytest.mark.parametrize(
    ("x", "modalities"),
    [
        ({"a": NAMED[["bmi", "age"]], "b": OTHER[["z", "x", "y"]]}, None),
        (TWO_LEVELS[[("b", "z"), ("a", "bmi"), ("b", "x"), ("a", "age"), ("b", "y")]], None),
        (WIDE_FRAME[["z", "bmi", "y", "x", "age"]], {"a": ["age", "bmi"], "b": ["x", "y", "z"]}),
        (WIDE_FRAME[["z", "bmi", "y", "x", "age"]], {"a": slice(0, 2), "b": slice("x", "z")}),
    ],
)
def test_columns_are_matched_with_those_of_fit_by_name(x, modalities):
    parts = split_modalities(x, modalities, fitted=NAMES)
    np.testing.assert_array_equal(parts["a"], A)
    np.testing.assert_array_equal(parts["b"], B)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        ({"a": NAMED.rename(columns={"age": "income"})}, r"X\['a'\] has no column 'age': its columns are \['income'"),
        ({"a": NAMED.assign(more=1.0)}, r"X\['a'\] has column 'more' once more than fit"),
        ({"b": OTHER[["x", "y"]]}, r"X\['b'\] has no column 'z'"),
        ({"a": NAMED[["age", "bmi", "age"]]}, r"X\['a'\] has column"),
    ],
)
def test_other_columns_than_in_fit_are_refused(x, message):
    with pytest.raises(DataError, match=message):
        split_modalities(x, fitted=NAMES)


def test_arrays_after_frames_are_taken_in_order_and_said():
    with pytest.warns(UserWarning, match=r"X\['a'\] has no names of columns, unlike in fit"):
        split_modalities({"a": A}, fitted=NAMES)
    with pytest.warns(UserWarning, match=r"X\['a'\] has names of columns, unlike in fit"):
        split_modalities({"a": NAMED}, fitted={"a": None})
    numbered = pd.DataFrame(A)  # columns that nobody named
    for x, fitted in ((A, (0, 1)), (numbered, None), (numbered[[1, 0]], (0, 1))):
        np.testing.assert_array_equal(split_modalities({"a": x}, fitted={"a": fitted})["a"], A)


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        (slice(0, 2), ["age", "bmi"]),
        (slice("bmi", "y"), ["bmi", "x", "y"]),
        (slice(None, "bmi"), ["age", "bmi"]),
        (slice(None, None, 2), ["age", "x", "z"]),
        (slice(-2, None), ["y", "z"]),
        ("age", ["age"]),
        (np.array([True, False, False, True, False]), ["age", "y"]),
        (pd.Index(["z", "x"]), ["z", "x"]),
    ],
)
def test_ways_to_choose_columns_of_a_frame(chosen, expected):
    parts = split_modalities(WIDE_FRAME, {"a": chosen, "b": ["x"]})
    np.testing.assert_array_equal(parts["a"], WIDE_FRAME[expected].to_numpy())


@pytest.mark.parametrize(
    ("frame", "chosen", "message"),
    [
        (WIDE_FRAME, slice("age", "hr"), "X has no column 'hr'"),
        (pd.DataFrame(B, columns=[10, 20, 30]), slice(0, 2), "could mean positions or names of the columns"),
        (pd.DataFrame(B, columns=["x", "x", "y"]), ["x"], "X has the column 'x' twice"),
        (pd.DataFrame(B, columns=["x", "y", "z"]), "yz", "X has no column 'yz'"),
    ],
)
def test_choices_that_mean_nothing_or_two_things(frame, chosen, message):
    with pytest.raises(DataError, match=message):
        split_modalities(frame, {"a": chosen})


NULLABLE = pd.DataFrame({"p": pd.array([1, None], "Int64"), "q": pd.array([0.5, None], "Float64")})


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (NULLABLE, [[1, 0.5], [np.nan, np.nan]]),
        (pd.DataFrame({"p": [1, pd.NA], "q": [2.5, None]}, dtype=object), [[1, 2.5], [np.nan, np.nan]]),
        ([[1, "2"], [3.0, True]], [[1, 2], [3, 1]]),
        (pd.DataFrame({"p": pd.array([True, None], "boolean"), "q": ["1.5", pd.NaT]}), [[1, 1.5], [np.nan, np.nan]]),
        (np.ma.masked_array([[1.0, 2.0], [9.0, 9.0]], [[0, 0], [1, 1]]), [[1, 2], [np.nan, np.nan]]),
        (pd.DataFrame({"p": pd.Categorical([3, 1]), "q": [2, 2]}), [[3, 2], [1, 2]]),
    ],
)
def test_missing_values_and_types_of_pandas(values, expected):
    np.testing.assert_array_equal(split_modalities({"a": values})["a"], np.array(expected, float))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (pd.DataFrame({"p": [1, "x"]}), r"X\['a'\], column 'p', cannot be read as numbers \('x' at row 1\)"),
        ([[1, "1_000"]], r"'1_000' at row 0, column 1"),
        ([[1.0, "nan"], [2.0, ""]], "'nan' at row 0, column 1"),
        (pd.DataFrame({"p": pd.to_datetime(["2020-01-01"])}), "such as days since a date"),
        (A + 1j, "give real numbers"),
        (np.array([[2**60 + 1, 2**60]]), "beyond 2\\^53"),
    ],
)
def test_what_is_no_number_is_named(values, message):
    with pytest.raises(DataError, match=message):
        split_modalities({"a": values})


@pytest.mark.parametrize(
    "other",
    [
        {"b": OTHER.iloc[[2, 0, 3, 1]]},
        {"b": OTHER.set_axis([0, 1, 2, 3]).sort_index(ascending=False)},
        {"b": OTHER.set_axis(list("pqrs")), "c": OTHER.set_axis(list("qprs")), "a": NAMED.set_axis(list("pqrs"))},
    ],
)
def test_rows_in_another_order_are_refused(other):
    with pytest.raises(DataError, match=r"has its rows in another order than X\['a'\]: row \d"):
        split_modalities({"a": NAMED, **other})
    split_modalities({"a": NAMED.set_axis(list("pqrs")), "b": OTHER, "c": B})  # by position, as there is no choice


def test_a_missing_label_of_a_row_is_equal_to_itself():
    rows = [1.0, float("nan"), 3.0, None]
    split_modalities({"a": NAMED.set_axis(rows), "b": OTHER.set_axis(list(rows))})
    pairs = [pd.MultiIndex.from_tuples([(1, float("nan")), (1, 2), (2, float("nan")), (3, 4)]) for _ in range(2)]
    split_modalities({"a": NAMED.set_axis(pairs[0]), "b": OTHER.set_axis(pairs[1])})
    with pytest.raises(DataError, match=r"another order than X\['a'\]: row 0 is 3.0"):
        split_modalities({"a": NAMED.set_axis(rows), "b": OTHER.set_axis([3.0, float("nan"), 1.0, None])})


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([1, "1", 2], r"y mixes types, such as 1 \(row 0\) and '1' \(row 1\)"),
        (pd.Series(["a", "b", 2], dtype=object), "y mixes types"),
        (["a", float("nan"), "b"], "y is missing at row 1"),
        (pd.Series(["a", "b", pd.NA], dtype="string"), "y is missing at row 2"),
        (pd.Series([1, pd.NA, 2], dtype="Int64"), "y is missing at row 1"),
        ([[1], [2, 3], [4]], "y cannot be read as labels"),
    ],
)
def test_labels_of_pandas_and_lists(y, message):
    with pytest.raises(DataError, match=message):
        check_labels(y, 3)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (["1", "1.0", "2"], "'1' and '1.0' of y are perhaps one label written in 2 ways"),
        (["Cat", "cat", "dog"], "'Cat' and 'cat'"),
        (np.array(["a", "nan", "b"]), "y has the class 'nan': if it stands for a missing label"),
    ],
)
def test_labels_that_are_perhaps_none(y, message):
    with pytest.warns(UserWarning, match=message):
        check_labels(y, 3)


def test_nullable_labels_are_plain_numbers():
    assert check_labels(pd.Series([3, 1, 2], dtype="Int64"), 3).dtype.kind == "i"


@pytest.mark.parametrize("value", [{"sensor": None}, "text", None, 7j, {1}])
def test_what_is_no_array_is_said(value):
    with pytest.raises(DataError, match=r"X.* (is|has|cannot)"):
        numbers("X", value)
