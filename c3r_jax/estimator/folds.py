"""Folds of classified rows for choosing among settings."""

from typing import Any

import numpy as np
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold, StratifiedKFold

from c3r_jax.data.counter_rng import example_rng
from c3r_jax.errors import ConfigError, DataError
from c3r_jax.estimator.frames import is_missing
from c3r_jax.estimator.held_out import stratified_holdout


def make_folds(
    cv: Any,
    codes: np.ndarray,
    classes: np.ndarray,
    groups: np.ndarray | None,
    *,
    seed: int,
    source: np.ndarray | None = None,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Folds of classified rows, as masks.

    Args:
      cv: number of folds, which are stratified by class, or by groups if there are any; or a splitter of scikit-learn.
      codes: (n,) class numbers.
      classes: (K,) names of the classes.
      groups: (n,) groups that must not be split; None: none.
      seed: seed of the order of rows.
      source: (n,) from :func:`c3r_jax.estimator.redrawn.first_of_equal`: without groups, copies of a row stay together
        in the folds that are made here. None: all rows are different.

    Returns:
      [(rows outside of the fold, rows of the fold)], each (n,) bool.

    Raises:
      ConfigError: ``cv`` is no number of folds.
      DataError: a class or a group is too small for the folds.

    Examples:
      >>> codes = np.arange(6) % 2
      >>> [int(held.sum()) for _, held in make_folds(3, codes, np.array(["no", "yes"]), None, seed=0)]
      [2, 2, 2]
    """
    splitter = cv
    if not hasattr(splitter, "split"):
        if not isinstance(splitter, (int, np.integer)) or splitter < 2:
            raise ConfigError(
                f"cv is {cv!r}, but a whole number of at least 2 or a splitter of scikit-learn was expected."
            )
        counts, distinct = np.bincount(codes), 0 if groups is None else len(np.unique(groups))
        if groups is not None and distinct < splitter:
            raise DataError(
                f"groups has {distinct} different values, but cv is {splitter} folds, none of which may split a "
                "group: lower cv, or give finer groups."
            )
        if groups is None and counts.min() < splitter:
            raise DataError(
                f"class {classes[counts.argmin()]} has {counts.min()} rows, but cv is {splitter} folds, each of "
                "which needs one: lower cv, leave the class out, or give more rows."
            )
        if groups is not None:
            splitter = GroupKFold(splitter)
        elif source is None or len(np.unique(source)) == len(source):
            splitter = StratifiedKFold(splitter, shuffle=True, random_state=seed)
        else:
            splitter = _Together(StratifiedGroupKFold(splitter, shuffle=True, random_state=seed), source)
    masks = []
    for fold, (outside, inside) in enumerate(splitter.split(np.zeros((len(codes), 1)), codes, groups)):
        mask = np.zeros((2, len(codes)), bool)
        mask[0, outside], mask[1, inside] = True, True
        absent = sorted(set(range(len(classes))) - set(codes[mask[0]]))
        if absent or not mask[1].any():
            what = f"has no row of class {classes[absent[0]]} to train on" if absent else "holds no row out"
            raise DataError(f"fold {fold} {what}: use fewer folds, larger groups or another cv.")
        shared = [] if groups is None else sorted(set(groups[mask[0]].tolist()) & set(groups[mask[1]].tolist()))
        if shared:
            raise DataError(
                f"group {shared[0]!r} is on both sides of fold {fold}: use a splitter that keeps groups together, such "
                "as GroupKFold, or a number of folds."
            )
        masks.append((mask[0], mask[1]))
    return masks


class _Together:
    """A splitter of groups that are no groups of the user's."""

    def __init__(self, splitter: Any, source: np.ndarray):
        self._splitter, self._source = splitter, source

    def split(self, X: Any, y: Any, groups: Any = None) -> Any:
        """As scikit-learn's splitters."""
        del groups
        return self._splitter.split(X, y, self._source)


def check_groups(groups: Any, num_rows: int) -> np.ndarray | None:
    """Returns groups as an (n,) array without missing values, or None."""
    if groups is None:
        return None
    values = np.asarray(groups)
    if values.shape != (num_rows,):
        raise DataError(f"groups has shape {values.shape}, but {(num_rows,)} was expected: a value for each row of X.")
    missing = [i for i, value in enumerate(values.tolist()) if is_missing(value)]
    if missing:
        raise DataError(f"groups is missing at row {missing[0]} ({len(missing)} such rows): leave these rows out.")
    return values


def split_off(
    codes: np.ndarray, outside: np.ndarray, *, fraction: float, seed: int, source: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The rows outside of a fold, as masks: those that are trained on, and those that calibration is fitted on."""
    rows = np.flatnonzero(outside)
    _, first, group = np.unique(source[rows], return_index=True, return_inverse=True)
    kept = stratified_holdout(codes[rows], fraction, example_rng(seed, 0, "hold out"), source=first[group])
    masks = np.zeros((2, len(codes)), bool)
    masks[0, rows[~kept]], masks[1, rows[kept]] = True, True
    return masks[0], masks[1]
