"""Converts user input (dicts of arrays, data frames, one wide array) to arrays per modality with a mask."""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.exceptions import DataConversionWarning

from c3r_jax.errors import DataError
from c3r_jax.estimator.frames import (
    Names,
    as_number,
    check_order,
    chosen_columns,
    columns_of,
    in_fitted_order,
    is_missing,
    numbers,
)
from c3r_jax.estimator.table import MultiModal
from c3r_jax.tasks.spellings import spelled_in_several_ways


def split_modalities(
    x: Any, modalities: Mapping[str, Any] | None = None, *, fitted: Mapping[str, Names | None] | None = None
) -> dict[str, np.ndarray]:
    """Splits multi-modal input into modalities.

    Args:
      x: {modality: (n, p) array or data frame}, a dict or :class:`c3r_jax.MultiModal`; or a data frame whose columns
        have two levels, the modality first; or,
        with ``modalities``, one (n, p) array or data frame.
      modalities: {modality: its columns}: integers, a mask or a slice of an array; of a data frame also names, or a
        slice from a name to a name.
      fitted: {modality: names of its columns in ``fit``}: the columns of data frames are put in that order. None: this
        is ``fit``.

    Returns:
      {modality: (n, p) float64}, sorted by name, NaN where values are missing.

    Raises:
      DataError: on any other form, different numbers or orders of rows, other columns than in ``fit``, or values that
        are not numbers.

    Examples:
      >>> parts = split_modalities([[1, 2, 3]], {"a": [0], "b": slice(1, 3)})
      >>> {name: part.tolist() for name, part in parts.items()}
      {'a': [[1.0]], 'b': [[2.0, 3.0]]}
    """
    parts = parts_of(x, modalities, fitted)
    if not parts:
        raise DataError("X has no modality: give a dict of at least two arrays by modality.")
    names = [str(name) for name in parts]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"X has two modalities called {twice!r} ({list(parts)}): give them different names.")
    check_order({f"X[{name!r}]": part for name, part in parts.items()})
    ordered = {str(name): parts[name] for name in sorted(parts, key=str)}
    if fitted is not None:
        known = [name for name in ordered if name in fitted]
        ordered |= {name: in_fitted_order(f"X[{name!r}]", ordered[name], fitted[name]) for name in known}
    matrices = {name: numbers(f"X[{name!r}]", part) for name, part in ordered.items()}
    rows = {name: len(matrix) for name, matrix in matrices.items()}
    if len(set(rows.values())) > 1:
        raise DataError(f"X has {rows} rows by modality: every modality must have the same number.")
    return matrices


def parts_of(
    x: Any, modalities: Mapping[str, Any] | None = None, fitted: Mapping[str, Names | None] | None = None
) -> dict[Any, Any]:
    """{modality: data frame or array}, as :func:`split_modalities` reads them."""
    if isinstance(x, MultiModal):
        return dict(x.parts)
    if hasattr(x, "toarray"):  # also the one that is a dict
        raise DataError("X is a sparse matrix, but a dense one was expected: give X.toarray().")
    columns = columns_of(x)
    if modalities is not None and not isinstance(x, Mapping):
        if columns is not None:
            chosen = {name: (fitted or {}).get(str(name)) or some for name, some in modalities.items()}
            return {name: x[chosen_columns(columns, some, str(name))] for name, some in chosen.items()}
        shape = getattr(x, "shape", None)
        if shape is not None and len(shape) == 1:
            raise DataError(
                f"X has shape {shape}, but one row for each example was expected. Reshape your data: X.reshape(1, -1) "
                "if it is one example."
            )
        wide = x if shape is not None and 0 in shape else numbers("X", x)
        for axis, what, least in ((0, "sample", 1), (1, "feature", 2)):
            if wide.shape[axis] < least:
                raise DataError(
                    f"X has {wide.shape[axis]} {what}(s) (shape={wide.shape}) while a minimum of {least} is required."
                )
        try:
            some: dict[Any, Any] = {
                name: [one] if isinstance(one, (int, np.integer)) else one for name, one in modalities.items()
            }
            return {name: wide[:, one] for name, one in some.items()}
        except (IndexError, TypeError) as error:
            raise DataError(f"X has {wide.shape[1]} columns, but modalities names others: {error}.") from error
    if isinstance(x, Mapping):
        return dict(x)
    if columns is not None and getattr(x.columns, "nlevels", 1) == 2:
        return {name: x[name] for name in x.columns.get_level_values(0).unique()}
    raise DataError(
        f"X is {type(x).__name__}, but a dict of arrays by modality was expected, a c3r_jax.MultiModal table, a data "
        "frame with two levels of columns, or one array together with modalities, such as "
        "modalities={'image': slice(0, 64), 'text': slice(64, None)}."
    )


def check_rows(matrices: Mapping[str, np.ndarray]) -> None:
    """Checks all rows of the caller's X, before some are held out: messages name its rows.

    Raises:
      DataError: see :func:`presence`, or a row has no modality.
    """
    check_present(presence(matrices))


def check_present(present: np.ndarray) -> None:
    """Checks that each row has a modality: of nothing there is nothing to learn or to predict.

    Args:
      present: (n, M) bool.

    Raises:
      DataError: a row has none.
    """
    empty = np.flatnonzero(~present.any(1))
    if len(empty):
        raise DataError(f"row {empty[0]} of X has no modality at all ({len(empty)} such rows): leave them out.")


class Layout:
    """The modalities an estimator was fitted on, with the scaling of their columns.

    Args:
      matrices: the training rows, from :func:`split_modalities`.

    Raises:
      DataError: on fewer than two modalities, a modality without rows, or rows without any modality.
    """

    def __init__(self, matrices: Mapping[str, np.ndarray]):
        if len(matrices) < 2:
            raise DataError(
                f"X has the modalities {list(matrices)}, but at least 2 were expected: one modality has no other to "
                "serve as its instrument."
            )
        self.widths = {name: matrix.shape[1] for name, matrix in matrices.items()}
        self.mean: dict[str, np.ndarray] = {}
        self.scale: dict[str, np.ndarray] = {}
        present = presence(matrices)
        for m, (name, matrix) in enumerate(matrices.items()):
            if not present[:, m].any():
                raise DataError(
                    f"modality {name!r} has no row without NaN among the rows that are trained on: leave it out, or "
                    "give more rows that have it."
                )
            rows = matrix[present[:, m]]
            with np.errstate(over="ignore"):
                self.mean[name] = rows.mean(0)
            # The deviation of equal numbers is rounding, not 0: divided by it, one more rounding would be a million.
            rounding = 8 * np.finfo(np.float64).eps * np.abs(rows).max(0)
            with np.errstate(over="ignore", invalid="ignore"):
                self.scale[name] = np.where(np.ptp(rows, axis=0) > rounding, rows.std(0), 1.0)
            beyond = np.flatnonzero(~(np.isfinite(self.mean[name]) & np.isfinite(self.scale[name])))
            if len(beyond):
                raise DataError(
                    f"column {beyond[0]} of X[{name!r}] has values up to {np.abs(rows[:, beyond[0]]).max():g}, whose "
                    "standard deviation is beyond what numbers can hold: give it in another unit, or its logarithm."
                )
        check_rows(matrices)

    def arrays(self, matrices: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Standardised inputs, zero where absent, and the mask.

        Args:
          matrices: output of :func:`split_modalities`; a missing modality is absent in every row.

        Returns:
          {modality: (n, p) float32} and present (n, M) bool.

        Raises:
          DataError: on an unknown modality or another number of columns.
        """
        unknown = [name for name in matrices if name not in self.widths]
        if unknown or not matrices:
            raise DataError(f"X has the modalities {list(matrices)}, but {list(self.widths)} or some were expected.")
        n = len(next(iter(matrices.values())))
        complete = {name: matrices.get(name, np.full((n, width), np.nan)) for name, width in self.widths.items()}
        for name, matrix in complete.items():
            if matrix.shape[1] != self.widths[name]:
                raise DataError(
                    f"X[{name!r}] has {matrix.shape[1]} columns, but {self.widths[name]} as in fit were expected."
                )
        present = presence(complete)
        inputs = {}
        for m, name in enumerate(self.widths):
            with np.errstate(over="ignore"):
                scaled = np.where(present[:, m, None], (complete[name] - self.mean[name]) / self.scale[name], 0.0)
                inputs[name] = scaled.astype(np.float32)
            beyond = np.argwhere(~np.isfinite(inputs[name]))
            if len(beyond):
                row, column = beyond[0]
                raise DataError(
                    f"X[{name!r}] is {complete[name][row, column]:g} at row {row}, column {column}, but in fit this "
                    f"column was {self.mean[name][column]:g} ± {self.scale[name][column]:g}: standardised, it is "
                    "beyond float32; correct the value."
                )
        return inputs, present


def presence(matrices: Mapping[str, np.ndarray]) -> np.ndarray:
    """Which modalities each row has (n, M): a row of NaN is absent.

    Raises:
      DataError: on an infinite value, or a row that is NaN in part.
    """
    columns = []
    for name, matrix in matrices.items():
        infinite = np.argwhere(np.isinf(matrix))
        if len(infinite):
            row, column = infinite[0]
            raise DataError(f"X[{name!r}] is infinite at row {row}, column {column}: expected finite numbers or NaN.")
        missing = np.isnan(matrix)
        partly = np.flatnonzero(missing.any(1) & ~missing.all(1))
        if len(partly):
            raise DataError(
                f"row {partly[0]} of X[{name!r}] is NaN in part ({len(partly)} such rows): impute the values, or make "
                "the complete row NaN, which means that the modality is absent."
            )
        columns.append(~missing.all(1))
    return np.stack(columns, axis=1)


def check_labels(y: Any, num_rows: int) -> np.ndarray:
    """Returns labels as an (n,) array without missing values.

    Raises:
      DataError: on another shape, a missing label, texts beside numbers, or fewer than two classes.
    """
    if y is None:
        raise DataError("fit requires y to be passed, but the target y is None: give one label for each row of X.")
    if not num_rows:
        raise DataError("X has no row, but a row for each of several examples was expected.")
    try:
        labels = np.asarray(y)
    except ValueError as error:
        raise DataError(f"y cannot be read as labels ({error}): one label for each row of X was expected.") from error
    if labels.shape == (num_rows, 1):
        warnings.warn(
            "A column-vector y was passed when a 1d array was expected: give y.ravel(), of shape (n,).",
            DataConversionWarning,
            stacklevel=4,
        )
        y = labels = labels[:, 0]
    if labels.shape != (num_rows,):
        raise DataError(f"y has shape {labels.shape}, but {(num_rows,)} was expected: one label for each row of X.")
    # NumPy makes texts of numbers, and of NaN, in a list that has both.
    values = list(y) if isinstance(y, (list, tuple)) else labels.tolist()
    missing = [row for row, label in enumerate(values) if is_missing(label)]
    if missing:
        raise DataError(f"y is missing at row {missing[0]} ({len(missing)} such rows): leave these rows out.")
    kinds: dict[str, int] = {}
    for row, label in enumerate(values):
        kinds.setdefault(
            "text" if isinstance(label, str) else "number" if as_number(label) is not None else "other", row
        )
    if len(kinds) > 1:
        shown = " and ".join(f"{values[row]!r} (row {row})" for row in kinds.values())
        raise DataError(f"y mixes types, such as {shown}: write every label in one way, as texts or as numbers.")
    if labels.dtype == object and "number" in kinds:
        labels = np.array(values)
    classes = np.unique(labels)
    if len(classes) < 2:
        raise DataError(f"y has the one class {classes[0]!r}, but at least 2 classes were expected.")
    if labels.dtype.kind == "f" and np.isinf(labels).any():
        raise DataError(f"y is {labels[np.isinf(labels)][0]} at row {np.isinf(labels).argmax()}: a class was expected.")
    if labels.dtype.kind == "f" and not (labels == np.round(labels)).all():
        raise DataError("y is continuous (fractions), but class labels were expected: this is not a regressor.")
    if "text" in kinds:
        _warn_of_spellings([str(name) for name in classes])
    return labels


def _warn_of_spellings(classes: list[str]) -> None:
    for group in spelled_in_several_ways(classes):
        warnings.warn(
            f"the classes {' and '.join(map(repr, group))} of y are perhaps one label written in {len(group)} ways: if "
            "so, write it in one way.",
            stacklevel=5,
        )
    empty = [name for name in classes if name.strip().casefold() in ("", "nan", "na", "n/a", "none", "null", "<na>")]
    if empty:
        warnings.warn(
            f"y has the class {empty[0]!r}: if it stands for a missing label, leave its rows out.", stacklevel=5
        )


def check_weights(weights: Any, num_rows: int) -> np.ndarray | None:
    """Returns sample weights as (n,) float64, or None."""
    if weights is None:
        return None
    try:
        values = np.asarray(weights, np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"sample_weight cannot be read as numbers ({error}): one for each row was expected.") from error
    if values.shape != (num_rows,):
        raise DataError(
            f"sample_weight has shape {values.shape}, but {(num_rows,)} was expected: one for each row of X."
        )
    wrong = np.flatnonzero(~(np.isfinite(values) & (values >= 0)))
    if len(wrong):
        raise DataError(
            f"sample_weight is {values[wrong[0]]:g} at row {wrong[0]} ({len(wrong)} such rows), but finite numbers "
            ">= 0 were expected: give 0 to a row that does not count."
        )
    if not values.any():
        raise DataError("sample_weight is 0 in all rows: every weight is zero, so that no row is left to train on.")
    return values


def check_class_weight(class_weight: Any) -> None:
    """Refuses weights of classes that are no finite numbers >= 0; what they name is checked by scikit-learn.

    Raises:
      DataError: naming the class.
    """
    for name, weight in class_weight.items() if isinstance(class_weight, Mapping) else ():
        if not isinstance(weight, (int, float, np.number)) or not 0 <= weight < np.inf:
            raise DataError(f"class_weight[{name!r}] is {weight!r}, but a finite number >= 0 was expected.")
