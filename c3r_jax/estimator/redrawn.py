"""Rows that were drawn with replacement, as a bootstrap or an oversampling does: they must not be counted twice."""

from collections.abc import Mapping

import numpy as np

from c3r_jax.step.in_memory import Rows, with_experts

DISTINCT = 20  # a column with fewer different values tells nothing of where a row comes from
DIFFERENT = 0.3  # of all rows; fewer are few possible values rather than copies


def first_of_equal(matrices: Mapping[str, np.ndarray], codes: np.ndarray) -> np.ndarray:
    """For each row the first one that is equal in every column and in its label; itself where there is none before.

    Copies of one example on both sides of a split would make held-out rows known, and tests of n rows have more than
    there are. But rows of counts or categories may be equal and yet of different examples. They count as copies where
    a continuous column, most of whose values are no whole numbers, tells the different rows apart: at least half of
    them have it, and it takes 3/4 as many values and more than 20. They must also be at least 0.3 n (after drawing n of
    n rows, 0.63 n differ); else each row is its own example.

    Args:
      matrices: {modality: (n, p)}, NaN where absent.
      codes: (n,) class numbers.

    Returns:
      (n,) row numbers.

    Examples:
      >>> x = np.random.default_rng(0).standard_normal((40, 2))
      >>> drawn = np.array([*range(40), 7, 7])
      >>> first_of_equal({"a": x[drawn]}, np.zeros(42, int))[-3:].tolist()
      [39, 7, 7]
      >>> scores = np.round(10 * x[drawn])  # whole numbers: two examples may have the same
      >>> first_of_equal({"a": scores}, np.zeros(42, int))[-3:].tolist()
      [39, 40, 41]
    """
    table = np.column_stack([*matrices.values(), codes.astype(np.float64)])
    table = np.where(np.isnan(table), np.nan, table) + 0.0  # one NaN and one zero, for rows are compared bit by bit
    alone = np.arange(len(table))
    seen: dict[bytes, int] = {}
    first_of = np.array([seen.setdefault(row.tobytes(), i) for i, row in enumerate(table)])
    if len(seen) == len(table) or len(seen) < DIFFERENT * len(table):
        return alone
    different = table[list(seen.values()), :-1]
    return first_of if any(map(_tells_apart, different.T)) else alone


def _tells_apart(column: np.ndarray) -> bool:
    known = column[~np.isnan(column)]
    continuous = 2 * int(np.count_nonzero(known != np.round(known))) > len(known)
    values = len(np.unique(known))
    return continuous and 2 * len(known) >= len(column) and values > DISTINCT and 4 * values >= 3 * len(known)


def first_ones(source: np.ndarray) -> np.ndarray:
    """Which rows are the first of their copies (n,) bool, from :func:`first_of_equal`."""
    return source == np.arange(len(source))


def count_once(chosen: np.ndarray, source: np.ndarray) -> int:
    """How many different rows are chosen (n,) bool; copies stay together."""
    return int((chosen & first_ones(source)).sum())


def weights_once(weights: np.ndarray | None, source: np.ndarray) -> np.ndarray | None:
    """The weight of each row and its copies together, at the first of them (n,); None: all rows differ and weigh 1."""
    if weights is None and first_ones(source).all():
        return None
    return np.bincount(source, weights, minlength=len(source))


def with_experts_of_different(
    rows: Rows, num_classes: int, source: np.ndarray, where: np.ndarray | None = None
) -> Rows:
    """As :func:`with_experts`, which see copies of a row once: a row that is left out must not be left in as its copy.

    Args:
      rows: the training rows.
      num_classes: K.
      source: (n,) numbers that are equal for copies of one row.
      where: as for :func:`with_experts`; rows after the n-th are padding. None: all n.
    """
    chosen = np.arange(len(source)) if where is None else np.flatnonzero(where)
    _, first, group = np.unique(source[chosen], return_index=True, return_inverse=True)
    if len(first) == len(chosen):
        return with_experts(rows, num_classes, where=where)
    once = np.zeros(len(rows.labels), bool)
    once[chosen[first]] = True
    of_row = np.arange(len(once))
    of_row[chosen] = chosen[first[group]]
    found = with_experts(rows, num_classes, where=once).evidence or {}
    return rows._replace(evidence={name: value[of_row] for name, value in found.items()})
