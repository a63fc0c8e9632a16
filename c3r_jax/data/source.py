"""Random-access sources: what a data set must offer, and the in-memory one that most sets here are."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from c3r_jax.errors import DataError

RESERVED = ("label", "index", "present")  # keys of an example that are not modalities
Example = dict[str, Any]
Column = np.ndarray | Sequence[str]


@dataclasses.dataclass(frozen=True)
class DatasetInfo:
    """What a model needs to know about a data set.

    Attributes:
      name: the set's name.
      modalities: names of the modalities; their order is the order of ``present``.
      class_names: one name per label id.
      split_sizes: examples per split.
      sha256: checksum of the file it was read from, if there is one.
      image_size: height and width of its images, if it has any.
      task: "classification" (labels are class ids), "multilabel" ((K,) of 0 and 1), "regression" (one number) or
        "segmentation" (a class id per voxel).
      depth: image modalities whose pixels are no colours: training moves them with the others but never recolours them.
    """

    name: str
    modalities: tuple[str, ...]
    class_names: tuple[str, ...]
    split_sizes: Mapping[str, int] = dataclasses.field(default_factory=dict)
    sha256: str | None = None
    image_size: int | None = None
    task: str = "classification"
    depth: tuple[str, ...] = ("depth",)

    @property
    def num_classes(self) -> int:
        """Number of classes K."""
        return len(self.class_names)


@runtime_checkable
class Source(Protocol):
    """A data set split: ``source[i]`` is a dict of its modalities, "label" and, if it likes, "index" and "present"."""

    @property
    def info(self) -> DatasetInfo:
        """The set's description."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, position: int, /) -> Example: ...


_KINDS = {  # by dtype and number of axes of one example's array
    (np.uint8, 3): "image",
    (np.uint8, 4): "video",
    (np.floating, 1): "features",
    (np.floating, 2): "sequence",
    (np.floating, 3): "volume",
    (np.floating, 4): "volume",
}


def kind_of(name: str, value: Any) -> str:
    """Returns what a modality is, by its value.

    "text": a str; uint8 "image" (height, width, channels) and "video" (frames, height, width, channels); floats
    "features" (F,), "sequence" (time, F) and "volume" (depth, height, width) with or without channels at the end.

    Raises:
      DataError: the value is none of these.

    Example:
      >>> kind_of("audio", np.zeros(74, np.float32))
      'features'
    """
    if isinstance(value, str):
        return "text"
    if isinstance(value, np.ndarray):
        dtype = np.floating if np.issubdtype(value.dtype, np.floating) else value.dtype.type
        if (dtype, value.ndim) in _KINDS:
            return _KINDS[dtype, value.ndim]
    found = f"{value.dtype} array of shape {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
    raise DataError(
        f"Modality {name!r} is a {found}, expected a str, a uint8 image (height, width, channels) or video (frames, "
        "height, width, channels), or a float array (features), (time, features), (depth, height, width) or (depth, "
        "height, width, channels): convert it in the source."
    )


def keep_padding(sequence: np.ndarray, changed: np.ndarray) -> np.ndarray:
    """Returns a changed sequence (..., T, F) with zeros where the sequence has frames of zeros, which are padding.

    Example:
      >>> keep_padding(np.array([[1.0, 0.0], [0.0, 0.0]]), np.full((2, 2), 5.0)).tolist()
      [[5.0, 5.0], [0.0, 0.0]]
    """
    return np.where(sequence.any(-1, keepdims=True), changed, np.zeros((), changed.dtype))


def describe(source: "Source", like: "Source | None" = None) -> tuple[dict[str, str], dict[str, tuple[int, ...]]]:
    """Returns kind and shape of each modality, found in the first example that has it; a text's shape is ().

    Args:
      source: the split.
      like: another split of the set, such as training's, that tells of modalities which no example of this one has.

    Raises:
      DataError: no example has a modality, or a value is of no known kind.
    """
    kinds: dict[str, str] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    modalities = source.info.modalities
    for position in range(len(source)):
        example = source[position]
        for name in modalities:
            value = example.get(name)
            if name not in kinds and value is not None:
                kinds[name] = kind_of(name, value)
                shapes[name] = () if kinds[name] == "text" else value.shape
        if len(kinds) == len(modalities):
            break
    absent = [name for name in modalities if name not in kinds]
    if absent and like is not None:
        known, sizes = describe(like)
        kinds, shapes = {**known, **kinds}, {**sizes, **shapes}
    elif absent:
        raise DataError(
            f"No example of {source.info.name!r} has modalities {absent}: take them out of info.modalities, or prepare "
            "the set with the files that they are made of."
        )
    return {name: kinds[name] for name in modalities}, shapes


LABEL_DTYPES = {  # of a batch's labels, by the data set's task
    "classification": np.int32,
    "multilabel": np.int32,
    "regression": np.float32,
    "segmentation": np.uint8,
}
_LABELS = {  # a rank of None: two or more axes after the first
    "classification": (np.integer, 1, "integers of shape (n,): give one class id per example"),
    "multilabel": (np.integer, 2, "integers of shape (n, K): give a 0 or 1 per example and class"),
    "regression": (np.floating, 1, "floats of shape (n,): give one number per example"),
    "segmentation": (np.integer, None, "integers of shape (n, ..., height, width): give a class id per pixel or voxel"),
}


def check_labels(labels: np.ndarray, num_classes: int, name: str, task: str = "classification") -> np.ndarray:
    """Returns the labels of a task in their dtype (:data:`LABEL_DTYPES`) after checking every one of them.

    Args:
      labels: (n,) class ids, (n, K) of 0 and 1 ("multilabel"), (n,) numbers ("regression") or (n, ..., H, W) class ids
        ("segmentation").
      num_classes: K; not looked at for "regression".
      name: of the data set, for messages.
      task: of the data set.

    Raises:
      DataError: an unknown task, another shape or dtype than its labels have, or a label that is out of range.

    Example:
      >>> check_labels(np.array([0, 2]), 3, "demo").dtype.name
      'int32'
      >>> check_labels(np.array([0.5, -2.0]), 0, "demo", "regression").dtype.name
      'float32'
    """
    if task not in _LABELS:
        raise DataError(f"The task of {name!r} is {task!r}, expected one of {', '.join(_LABELS)}: correct info.task.")
    labels = np.asarray(labels)
    labels = labels.astype(np.int32) if labels.dtype == bool and task == "multilabel" else labels
    kind, rank, expected = _LABELS[task]
    shaped = labels.ndim >= 3 if rank is None else labels.ndim == rank
    if not shaped or not np.issubdtype(labels.dtype, kind):
        raise DataError(
            f"The labels of {name!r} are a {labels.dtype} array of shape {labels.shape}, expected {expected}."
        )
    if task == "multilabel" and labels.shape[1] != num_classes:
        raise DataError(
            f"The labels of {name!r} have shape {labels.shape}, expected a column for each of {num_classes} classes: "
            "add the missing columns or name the missing classes."
        )
    if task == "regression":
        wrong = ~np.isfinite(labels)
        expected = "a finite number: correct it or leave the example out"
    else:
        top = 1 if task == "multilabel" else num_classes - 1
        wrong = (labels < 0) | (labels > top)
        classes = "" if task == "multilabel" else f" ({num_classes} classes)"
        expected = f"0 to {top}{classes}: correct the label or name the missing class"
    if wrong.any():
        place = np.argwhere(wrong)[0]
        raise DataError(f"Example {place[0]} of {name!r} has label {labels[tuple(place)]}, expected {expected}.")
    return labels.astype(LABEL_DTYPES[task])


class ArraySource:
    """A split held in memory, one column per modality.

    Args:
      columns: modality name to ``(n, ...)`` array or list of n texts.
      labels: ``(n,)`` integer class ids, or what else the info's task has, see :func:`check_labels`.
      info: the set's description; its modalities must be the columns.
      index: ``(n,)`` ids of the examples, 0 to n - 1 if not given.
      present: ``(n, M)`` bool, which modalities an example really has; all if not given.

    Raises:
      DataError: columns, labels and info do not fit together.

    Example:
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
    ):
        self.info = info
        self.labels = check_labels(labels, info.num_classes, info.name, info.task)
        n = len(self.labels)
        if set(columns) != set(info.modalities):
            raise DataError(
                f"{info.name!r} has columns {sorted(columns)}, expected its modalities {sorted(info.modalities)}: "
                "give one column per modality."
            )
        self.columns: dict[str, Column] = {name: columns[name] for name in info.modalities}
        self.index = np.arange(n, dtype=np.int32) if index is None else np.asarray(index, np.int32)
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

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, position: int, /) -> Example:
        example: Example = {name: column[position] for name, column in self.columns.items()}
        label = self.labels[position]
        example |= {"label": label.item() if label.ndim == 0 else label, "index": int(self.index[position])}
        if self.present is not None:
            example["present"] = self.present[position]
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
        return batch


def check_source(source: Source) -> None:
    """Checks what can be checked before any long work: not empty, modalities, kinds, image shape, every label.

    Args:
      source: the split to check; labels are all checked if it has ``labels``, else the first example's.

    Raises:
      DataError: the source cannot be used, and why.
    """
    info = source.info
    if len(source) == 0:
        raise DataError(f"The split of {info.name!r} has 0 examples, expected at least 1: check the split's name.")
    example = source[0]
    if not any(example.get(name) is not None for name in info.modalities):
        raise DataError(
            f"The first example of {info.name!r} has keys {sorted(example)}, expected some of {info.modalities}: name "
            "the modalities in info as in the examples."
        )
    if "label" not in example:
        raise DataError(f"The first example of {info.name!r} has no 'label': add it to every example.")
    for name in info.modalities:
        value = example.get(name)
        if value is not None and kind_of(name, value) == "image" and info.image_size is not None:
            check_shape(info.name, name, 0, value.shape, (info.image_size, info.image_size, value.shape[-1]))
    labels = getattr(source, "labels", None)
    labels = [example["label"]] if labels is None else labels
    check_labels(np.asarray(labels), info.num_classes, info.name, info.task)


def check_shape(dataset: str, modality: str, position: int, found: tuple, expected: tuple) -> None:
    """Raises a DataError that names both shapes unless they are equal."""
    if tuple(found) != tuple(expected):
        raise DataError(
            f"Example {position} of {dataset!r} has {modality!r} of shape {tuple(found)}, expected {tuple(expected)}: "
            "resize the data or load it with the size the model was built for."
        )
