"""Columns and numbers of what people give an estimator: data frames, arrays, lists; also with pd.NA and mixed types."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from c3r_jax.errors import DataError
from c3r_jax.tasks.spellings import is_number

EXACT = 1 << 53  # up to here a float64 holds every whole number
Names = tuple[Any, ...]


def columns_of(values: Any) -> Names | None:
    """The names of a data frame's columns; None for what is no data frame."""
    columns = getattr(values, "columns", None)
    return None if columns is None or callable(columns) else tuple(columns)


def names_of(parts: Mapping[str, Any]) -> dict[str, Names | None]:
    """{modality: names of its columns}; None for arrays."""
    return {str(name): columns_of(part) for name, part in parts.items()}


def chosen_columns(columns: Names, chosen: Any, name: str) -> list[Any]:
    """The names of the columns that a user chose from a data frame.

    Args:
      columns: names of all columns.
      chosen: names, one name, a mask, or a slice: of positions as of an array, or from a name to a name, both included.
      name: the modality, for messages.

    Raises:
      DataError: there is no such column, it is there twice, or a slice could mean positions or names.

    Examples:
      >>> names = ("age", "bmi", "hr")
      >>> chosen_columns(names, slice("age", "bmi"), "a"), chosen_columns(names, slice(1, 3), "a")
      (['age', 'bmi'], ['bmi', 'hr'])
    """
    if isinstance(chosen, slice):
        found = [*columns[_positions(columns, chosen, name)]]
    elif isinstance(chosen, (str, int, np.integer)):
        found = [chosen]
    else:
        found = list(chosen)
        if len(found) == len(columns) and all(isinstance(one, (bool, np.bool_)) for one in found):
            found = [column for column, kept in zip(columns, found, strict=True) if kept]
    known = set(columns)
    unknown = [column for column in found if column not in known]
    if unknown:
        raise DataError(f"X has no column {unknown[0]!r}, which modalities names: its columns are {[*columns]}.")
    twice = [] if len(known) == len(columns) else [column for column in found if columns.count(column) > 1]
    if twice:
        raise DataError(f"X has the column {twice[0]!r} twice: rename one, so that modalities names one of them.")
    return found


def _positions(columns: Names, chosen: slice, name: str) -> slice:
    ends = [end for end in (chosen.start, chosen.stop) if end is not None]
    if all(isinstance(end, (int, np.integer)) for end in ends):
        if any(isinstance(column, (int, np.integer)) for column in columns) and columns != tuple(range(len(columns))):
            raise DataError(
                f"modalities[{name!r}] is {chosen}, which could mean positions or names of the columns {[*columns]}: "
                "list the names."
            )
        return chosen
    unknown = [end for end in ends if end not in columns]
    if unknown:
        raise DataError(f"X has no column {unknown[0]!r}, which modalities names: its columns are {[*columns]}.")
    start = None if chosen.start is None else columns.index(chosen.start)
    return slice(start, None if chosen.stop is None else columns.index(chosen.stop) + 1, chosen.step)


def in_fitted_order(name: str, part: Any, fitted: Names | None) -> Any:
    """A modality's columns in the order of ``fit``, by name.

    Args:
      name: of the input, such as "X['a']", for messages.
      part: a data frame or an array.
      fitted: names in ``fit``; None: it was an array.

    Raises:
      DataError: a column is missing, or was not there in ``fit``.
    """
    names = columns_of(part)
    if names is not None and fitted is not None and names != fitted and set(names) == set(fitted):
        if len(names) == len(fitted):
            return part[list(fitted)]
    elif not _named(names) or not _named(fitted):
        if _named(names) or _named(fitted):
            warnings.warn(
                f"{name} has {'names' if _named(names) else 'no names'} of columns, unlike in fit: they are taken in "
                "their order; give data frames to both, and columns are matched by name.",
                stacklevel=5,
            )
        return part
    assert names is not None and fitted is not None
    if names == fitted:
        return part
    missing = [column for column in fitted if column not in names]
    further = [column for column in names if column not in fitted or names.count(column) > 1]
    what = f"no column {missing[0]!r}" if missing else f"column {further[0]!r} once more than fit"
    raise DataError(f"{name} has {what}: its columns are {[*names]}, but those of fit were expected, {[*fitted]}.")


def _named(names: Names | None) -> bool:
    """Whether somebody named the columns; pandas numbers those without names."""
    return names is not None and names != tuple(range(len(names)))


def check_order(parts: Mapping[str, Any]) -> None:
    """Refuses inputs whose rows have the same labels in different orders: they would be matched by position.

    Args:
      parts: {name for messages: data frame, series or anything else}.

    Raises:
      DataError: two of them do.
    """
    known = {name: part.index for name, part in parts.items() if not callable(getattr(part, "index", len))}
    labels = {name: np.asarray(index).tolist() for name, index in known.items()}
    first = next(iter(labels), None)
    for name, found in labels.items():
        expected = labels[str(first)]
        if found == expected or len(found) != len(expected):
            continue
        differ = [i for i, (a, b) in enumerate(zip(found, expected, strict=True)) if not _same(a, b)]
        if not differ:
            continue
        default = list(range(len(found)))
        shared = set(map(str, found)) & set(map(str, expected))
        if len(shared) == len(set(map(str, found))) or (shared and default not in (found, expected)):
            row = differ[0]
            raise DataError(
                f"{name} has its rows in another order than {first}: row {row} is {found[row]!r} there and "
                f"{expected[row]!r} here by their index. Align them, with .loc[{first}.index], or call "
                "reset_index(drop=True) on both if row i of one belongs to row i of the other."
            )


def _same(a: Any, b: Any) -> bool:
    """Whether two labels of rows are equal; missing ones are, though NaN is not NaN."""
    if isinstance(a, tuple) and isinstance(b, tuple) and len(a) == len(b):
        return all(map(_same, a, b))
    return is_missing(a) == is_missing(b) and (is_missing(a) or bool(a == b))


def numbers(name: str, values: Any) -> np.ndarray:
    """The values as (n, p) float64, NaN where they are missing (None, NaN, pd.NA, NaT, masked).

    Raises:
      DataError: a value is no number; the message names row and column.

    Examples:
      >>> numbers("X", [[1, None], [True, "2.5"]]).tolist()
      [[1.0, nan], [1.0, 2.5]]
    """
    columns = columns_of(values)
    if columns:
        if len(set(columns)) < len(columns):
            twice = [column for column in columns if columns.count(column) > 1]
            raise DataError(f"{name} has the column {twice[0]!r} twice: rename one of them.")
        parts = [_converted(name, values[column], repr(column)) for column in columns]
        return np.stack(parts, axis=1)
    matrix = _converted(name, values, None)
    if matrix.ndim != 2 or matrix.shape[1] == 0:
        raise DataError(f"{name} has shape {matrix.shape}, but (n, p) with at least one column was expected.")
    return matrix


def _converted(name: str, values: Any, column: str | None) -> np.ndarray:
    where = name if column is None else f"{name}, column {column},"
    if hasattr(values, "toarray"):
        raise DataError(f"{where} is a sparse matrix, but a dense one was expected: give {name}.toarray().")
    if isinstance(values, np.ma.MaskedArray):
        return np.ma.filled(values.astype(np.float64), np.nan)
    try:
        found = np.asarray(values)
    except (ValueError, TypeError) as error:
        raise DataError(f"{where} cannot be read as numbers ({error}): give an (n, p) array of floats.") from error
    if found.dtype.kind in "cMmV":
        raise DataError(
            f"{where} cannot be read as numbers (it is {found.dtype}): give real numbers, such as days since a date"
            f"{'. Complex data not supported.' if found.dtype.kind == 'c' else '.'}"
        )
    if found.dtype.kind in "iu" and found.size and max(int(found.max()), -int(found.min())) > EXACT:
        raise DataError(
            f"{where} has whole numbers beyond 2^53, such as {found.max()}, which are not kept apart: leave ids out, "
            "or give differences."
        )
    if found.dtype.kind in "fiub":
        return found.astype(np.float64)
    if not found.ndim:
        raise DataError(f"{where} is {values!r}, but an (n, p) array of floats was expected."[:300])
    if isinstance(values, (list, tuple)):
        found = np.array(values, object)  # numbers beside texts would all become texts
    result = np.empty(found.shape)
    for place, value in np.ndenumerate(found):
        number = as_number(value)
        if number is None:
            at = f"row {place[0]}" + (f", column {place[1]}" if len(place) > 1 else "")
            raise DataError(
                f"{where} cannot be read as numbers ({value!r} at {at}): give an (n, p) array of floats, with NaN "
                "where values are missing."
            )
        result[place] = number
    return result


def as_number(value: Any) -> float | None:
    """One value as a float, NaN if it is missing; None if it is no number."""
    if is_missing(value):
        return float("nan")
    if isinstance(value, (str, bytes)):
        text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
        return float(text) if is_number(text.strip()) else None
    if isinstance(value, (complex, np.complexfloating, np.datetime64, np.timedelta64, Sequence, np.ndarray)):
        return None
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def is_missing(value: Any) -> bool:
    """Whether a value is None, NaN, pd.NA or NaT; pandas need not be there.

    Examples:
      >>> [is_missing(value) for value in (None, float("nan"), "nan", 0)]
      [True, True, False, False]
    """
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, (float, np.floating)) and bool(value != value)
