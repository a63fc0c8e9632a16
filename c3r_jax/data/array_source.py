"""A data set split in memory."""

from collections.abc import Mapping

import numpy as np

from c3r_jax.data.source import ENVIRONMENT, Column, DatasetInfo, Example, environments_of
from c3r_jax.errors import DataError


class ArraySource:
    """A split held in memory, one column per modality.

    Args:
      columns: modality name to ``(n, ...)`` array or list of n texts.
      labels: ``(n,)`` integer class ids, or the labels of the info's task, see :class:`DatasetInfo`.
      info: the data set's description; its modalities must be the columns.
      index: ``(n,)`` ids of the examples, 0 to n - 1 if not given.
      present: ``(n, M)`` bool, which modalities each example has; all if not given.
      environment: ``(n,)`` ids into ``info.environments``, -1 where unknown; None if the info names none.

    Raises:
      DataError: columns, labels and info do not match.

    Examples:
      >>> info = DatasetInfo("demo", ("sound",), ("low", "high"))
      >>> ArraySource({"sound": np.ones((3, 4), np.float32)}, np.array([0, 1, 1]), info=info)[2]["label"]
      1
    """

    def __init__(
        self,
        columns: Mapping[str, Column],
        labels: np.ndarray,
        *,
        info: DatasetInfo,
        index: np.ndarray | None = None,
        present: np.ndarray | None = None,
        environment: np.ndarray | None = None,
    ):
        self.info = info
        self.labels = info.check_labels(labels)
        n = len(self.labels)
        if set(columns) != set(info.modalities):
            raise DataError(
                f"{info.name!r} has columns {sorted(columns)}, expected its modalities {sorted(info.modalities)}: "
                "give one column per modality."
            )
        self.columns: dict[str, Column] = {name: columns[name] for name in info.modalities}
        self.index = np.arange(n, dtype=np.int32) if index is None else _int32(np.asarray(index), info.name)
        self.present = None if present is None else np.asarray(present, bool)
        lengths = {**{name: len(column) for name, column in self.columns.items()}, "index": len(self.index)}
        wrong = {name: length for name, length in lengths.items() if length != n}
        if wrong:
            raise DataError(f"{info.name!r} has {n} labels but {wrong} entries: give every column one entry per label.")
        if self.present is not None and self.present.shape != (n, len(info.modalities)):
            raise DataError(
                f"present of {info.name!r} has shape {self.present.shape}, expected {(n, len(info.modalities))}: give "
                "one flag per example and modality."
            )

        self.environment = None if environment is None else info.check_environments(environment, n)
        environments_of(self)  # refuses names without ids

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, position: int, /) -> Example:
        example: Example = {name: column[position] for name, column in self.columns.items()}
        label = self.labels[position]
        example |= {"label": label.item() if label.ndim == 0 else label, "index": int(self.index[position])}
        if self.present is not None:
            example["present"] = self.present[position]
        if self.environment is not None:
            example[ENVIRONMENT] = int(self.environment[position])
        return example

    def gather(self, positions: np.ndarray) -> Example:
        """Returns many examples at once: arrays ``(B, ...)`` and lists of texts, under the keys of one example."""
        batch: Example = {
            name: column[positions] if isinstance(column, np.ndarray) else [column[i] for i in positions]
            for name, column in self.columns.items()
        }
        batch |= {"label": self.labels[positions], "index": self.index[positions]}
        if self.present is not None:
            batch["present"] = self.present[positions]
        if self.environment is not None:
            batch[ENVIRONMENT] = self.environment[positions]
        return batch


def _int32(index: np.ndarray, name: str) -> np.ndarray:
    """Ids of examples as int32."""
    if index.dtype.kind not in "iu" or (index.size and not 0 <= index.min() <= index.max() < 2**31):
        raise DataError(
            f"index of {name!r} is a {index.dtype} array, expected whole numbers from 0 to {2**31 - 1}: number the "
            "examples, and keep large ids elsewhere."
        )
    return index.astype(np.int32)
