"""What scikit-learn expects of an estimator beside fit and predict: nested parameters, seeds, names of columns."""

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_random_state

from c3r_jax.core.config import C3RConfig
from c3r_jax.errors import ConfigError, DataError
from c3r_jax.estimator.frames import columns_of
from c3r_jax.estimator.table import MultiModal

NESTED = "config__"


class Conventions(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Tags, ``fit_transform``, ``set_output`` and the attributes that say what X was in ``fit``.

    Attributes:
      n_features_in_: number of columns of X, over all modalities.
      feature_names_in_: their names, where X has names: as they are in one wide data frame, else
        ``modality__column``; not there where it has none.
    """

    def __sklearn_tags__(self) -> Any:
        """Declares to scikit-learn that NaN is allowed, and what representations are."""
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.transformer_tags.preserves_dtype = ["float32"]  # representations are float32, whatever X is
        return tags

    def _remember_columns(self, X: Any, widths: Mapping[str, int], names: Mapping[str, Any]) -> None:
        """Sets the attributes, from X in ``fit``, the columns of its modalities and their names."""
        by_modality = isinstance(X, (Mapping, MultiModal))
        whole, width = (None, None) if by_modality else (columns_of(X), _num_columns(X))
        self.n_features_in_ = sum(widths.values()) if width is None else width
        if whole is None or isinstance(whole[0], tuple):
            known = all(isinstance(column, str) for part in names.values() for column in part or (None,))
            found = [f"{name}__{column}" for name in widths for column in names[name]] if known else []
        else:
            found = list(whole) if all(isinstance(column, str) for column in whole) else []
        self.__dict__.pop("feature_names_in_", None)
        if found:
            self.feature_names_in_ = np.array(found, object)

    def _check_width(self, X: Any) -> None:
        """Refuses one wide array with another number of columns than in ``fit``; data frames have names."""
        if isinstance(X, (Mapping, MultiModal)) or columns_of(X) is not None:
            return
        width = _num_columns(X)
        if width is not None and width != self.n_features_in_:
            raise DataError(
                f"X has {width} features, but {type(self).__name__} is expecting {self.n_features_in_} features as "
                "input: give the columns of fit, in their order."
            )


def _num_columns(X: Any) -> int | None:
    """Columns of one wide array or data frame; None where it is neither."""
    columns = columns_of(X)
    if columns is not None:
        return len(columns)
    shape = getattr(X, "shape", None) or np.asarray(X).shape
    return shape[1] if len(shape) == 2 else None


class NestedConfig(BaseEstimator):
    """``config__lambda_n`` and the like: the fields of ``config`` as parameters, in grids and ``set_params``."""

    config: C3RConfig | None
    _default_config: C3RConfig

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Parameters by name; with ``deep`` also the fields of ``config``, as ``config__FIELD``."""
        params = super().get_params(deep)
        if not deep:
            return params
        config = self._default_config if self.config is None else self.config
        return params | {f"{NESTED}{name}": getattr(config, name, None) for name in _fields()}

    def set_params(self, **params: Any) -> Any:
        """Sets parameters; ``config__FIELD`` replaces one field of ``config``, of the defaults where it is None.

        Raises:
          ConfigError: ``config`` has no such field.
          ValueError: on another unknown parameter, or a value that the field cannot have.
        """
        changes = {name[len(NESTED) :]: value for name, value in params.items() if name.startswith(NESTED)}
        unknown = [name for name in changes if name not in _fields()]
        if unknown:
            raise ConfigError(
                f"{NESTED}{unknown[0]} is no parameter: C3RConfig has no field {unknown[0]!r}, but one of "
                f"{', '.join(_fields())} was expected."
            )
        super().set_params(**{name: value for name, value in params.items() if not name.startswith(NESTED)})
        if changes:
            self.config = replace(self._default_config if self.config is None else self.config, **changes)
        return self


def _fields() -> list[str]:
    return [field.name for field in fields(C3RConfig)]


def seed_of(seed: Any, random_state: Any) -> int:
    """The seed of everything random: ``seed`` where it is given, else ``random_state`` as scikit-learn reads it.

    Args:
      seed: whole number >= 0; None: see ``random_state``.
      random_state: whole number >= 0; a ``numpy.random.RandomState``, which is drawn from; None: NumPy's global one.

    Raises:
      ConfigError: they are none of these.

    Examples:
      >>> seed_of(None, 3), seed_of(1, 3)
      (3, 1)
    """
    name, value = ("random_state", random_state) if seed is None else ("seed", seed)
    if seed is None and (value is None or isinstance(value, np.random.RandomState)):
        return int(check_random_state(value).randint(1 << 31))
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 0:
        raise ConfigError(f"{name} is {value!r}, but a whole number of at least 0 was expected.")
    return int(value)
