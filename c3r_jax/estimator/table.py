"""Modalities side by side as one table that scikit-learn can split by rows."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from c3r_jax.errors import DataError


class MultiModal:
    """Modalities of the same examples, indexed by rows: what ``cross_val_score`` and ``train_test_split`` need.

    A dict of arrays has the length of its keys, so that scikit-learn cannot split it into folds; this table has the
    length of its rows. The estimators take it wherever they take a dict.

    Args:
      parts: {modality: (n, p) array or data frame}, with equal n.

    Attributes:
      parts: as given.
      shape: (n, columns of all modalities).

    Raises:
      DataError: there is no modality, or they have different numbers of rows.

    Examples:
      >>> import numpy as np
      >>> table = MultiModal({"image": np.arange(6.0).reshape(3, 2), "text": np.ones((3, 1))})
      >>> len(table), table.shape, table[[2, 0]]["image"].tolist()
      (3, (3, 3), [[4.0, 5.0], [0.0, 1.0]])
    """

    def __init__(self, parts: Mapping[str, Any]):
        if not isinstance(parts, Mapping) or not parts:
            raise DataError(
                f"parts is {type(parts).__name__}, but a dict of at least one array or data frame by modality was "
                'expected: MultiModal({"image": ..., "text": ...}).'
            )
        self.parts = {name: part if hasattr(part, "shape") else np.asarray(part) for name, part in parts.items()}
        shapes = {name: tuple(part.shape) for name, part in self.parts.items()}
        if any(len(shape) != 2 for shape in shapes.values()) or len({shape[0] for shape in shapes.values()}) > 1:
            raise DataError(f"parts have the shapes {shapes}, but (n, p) with the same n was expected.")
        self.shape = (next(iter(shapes.values()))[0], sum(shape[1] for shape in shapes.values()))

    def __len__(self) -> int:
        """The number of rows."""
        return self.shape[0]

    def __iter__(self) -> Iterator[str]:
        """The modalities' names, as of a dict."""
        return iter(self.parts)

    def __getitem__(self, which: Any) -> Any:
        """A modality by its name; or some rows of all of them, by a slice, numbers or a mask."""
        if isinstance(which, str):
            return self.parts[which]
        if isinstance(which, tuple) and len(which) == 2 and which[1] is Ellipsis:  # as scikit-learn takes rows
            which = which[0]
        if isinstance(which, tuple) or np.ndim(which) > 1 or (np.ndim(which) == 0 and not isinstance(which, slice)):
            raise DataError(
                f"a MultiModal table is indexed by {which!r}, but the name of a modality or several rows were "
                "expected: table['image'], table[:10] or table[[3, 5]]."
            )
        return MultiModal({name: _rows(part, which) for name, part in self.parts.items()})

    def __repr__(self) -> str:
        """Rows, and each modality's columns."""
        columns = ", ".join(f"{name}: {part.shape[1]}" for name, part in self.parts.items())
        return f"MultiModal({len(self)} rows; columns of {columns})"


def _rows(part: Any, which: Any) -> Any:
    return part.iloc[which] if hasattr(part, "iloc") else part[which]
