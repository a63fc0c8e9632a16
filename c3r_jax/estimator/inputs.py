"""Converts user input (dicts of arrays, data frames, one wide array) to arrays per modality with a mask."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from c3r_jax.errors import DataError


def split_modalities(x: Any, modalities: Mapping[str, Any] | None = None) -> dict[str, np.ndarray]:
    """Splits multi-modal input into modalities.

    Args:
      x: {modality: (n, p) array or data frame}; or a data frame whose columns have two levels, the modality first; or,
        with ``modalities``, one (n, p) array or data frame.
      modalities: {modality: its columns}, as integers or a slice of an array, as names of a data frame.

    Returns:
      {modality: (n, p) float64}, sorted by name, NaN where values are missing.

    Raises:
      DataError: on any other form, different numbers of rows, or values that are not numbers.

    Examples:
      >>> parts = split_modalities([[1, 2, 3]], {"a": [0], "b": slice(1, 3)})
      >>> {name: part.tolist() for name, part in parts.items()}
      {'a': [[1.0]], 'b': [[2.0, 3.0]]}
    """
    columns = getattr(x, "columns", None)
    if modalities is not None and not isinstance(x, Mapping):
        if columns is not None:
            unknown = [c for chosen in modalities.values() for c in chosen if c not in columns]
            if unknown:
                raise DataError(
                    f"X has no column {unknown[0]!r}, which modalities names: its columns are {[*columns]}."
                )
            parts = {name: x[list(chosen)] for name, chosen in modalities.items()}
        else:
            wide = _matrix("X", x)
            try:
                parts = {name: wide[:, chosen] for name, chosen in modalities.items()}
            except IndexError as error:
                raise DataError(f"X has {wide.shape[1]} columns, but modalities names others: {error}.") from error
    elif isinstance(x, Mapping):
        parts = dict(x)
    elif columns is not None and getattr(columns, "nlevels", 1) == 2:
        parts = {name: x[name] for name in columns.get_level_values(0).unique()}
    else:
        raise DataError(
            f"X is {type(x).__name__}, but a dict of arrays by modality was expected, a data frame with two levels of "
            "columns, or one array together with modalities={name: columns}."
        )
    if not parts:
        raise DataError("X has no modality: give a dict of at least two arrays by modality.")
    matrices = {str(name): _matrix(f"X[{name!r}]", parts[name]) for name in sorted(parts, key=str)}
    rows = {name: len(matrix) for name, matrix in matrices.items()}
    if len(set(rows.values())) > 1:
        raise DataError(f"X has {rows} rows by modality: every modality must have the same number.")
    return matrices


def _matrix(name: str, values: Any) -> np.ndarray:
    try:
        matrix = np.asarray(values, np.float64)
    except (ValueError, TypeError) as error:
        raise DataError(f"{name} cannot be read as numbers ({error}): give an (n, p) array of floats.") from error
    if matrix.ndim != 2 or matrix.shape[1] == 0:
        raise DataError(f"{name} has shape {matrix.shape}, but (n, p) with at least one column was expected.")
    return matrix


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
                raise DataError(f"modality {name!r} has no row without NaN: leave it out, or give rows that have it.")
            rows = matrix[present[:, m]]
            self.mean[name] = rows.mean(0)
            deviation = rows.std(0)
            self.scale[name] = np.where(deviation > 0, deviation, 1.0)
        empty = np.flatnonzero(~present.any(1))
        if len(empty):
            raise DataError(f"row {empty[0]} of X has no modality at all ({len(empty)} such rows): leave them out.")

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
        inputs = {
            name: np.where(present[:, m, None], (complete[name] - self.mean[name]) / self.scale[name], 0.0).astype(
                np.float32
            )
            for m, name in enumerate(self.widths)
        }
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
      DataError: on another shape, a missing label, or fewer than two classes.
    """
    labels = np.asarray(y)
    if labels.shape != (num_rows,):
        raise DataError(f"y has shape {labels.shape}, but {(num_rows,)} was expected: one label for each row of X.")
    # NaN is the only value that differs from itself; None marks a missing string.
    missing = np.flatnonzero([label is None or label != label for label in labels.tolist()])
    if len(missing):
        raise DataError(f"y is missing at row {missing[0]} ({len(missing)} such rows): leave these rows out.")
    classes = np.unique(labels)
    if len(classes) < 2:
        raise DataError(f"y has the one class {classes[0]!r}, but at least 2 classes were expected.")
    if labels.dtype.kind == "f" and not (labels == np.round(labels)).all():
        raise DataError("y has fractional numbers, but class labels were expected: this is not a regressor.")
    return labels


def check_weights(weights: Any, num_rows: int) -> np.ndarray | None:
    """Returns sample weights as (n,) float64, or None."""
    if weights is None:
        return None
    values = np.asarray(weights, np.float64)
    if values.shape != (num_rows,) or not (np.isfinite(values) & (values >= 0)).all() or not values.any():
        raise DataError(
            f"sample_weight has shape {values.shape}, but {(num_rows,)} finite numbers >= 0, not all 0, were expected."
        )
    return values


def stratified_holdout(labels: np.ndarray, fraction: float, rng: np.random.Generator) -> np.ndarray:
    """Marks a random share ``fraction`` of every class's rows, rounded down: (n,) bool."""
    held = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        held[rows[: int(fraction * len(rows))]] = True
    return held
