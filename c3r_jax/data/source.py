"""Random-access sources: the interface of a data set split, and checks of its examples."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from c3r_jax.errors import DataError
from c3r_jax.tasks.base import TaskSpec
from c3r_jax.tasks.classification import CLASSIFICATION
from c3r_jax.tasks.registry import LABELLED

ENVIRONMENT, UNKNOWN = "environment", -1  # key of an example's environment, and its id where nobody knows it
RESERVED = ("label", "index", "present", ENVIRONMENT)  # keys of an example that are not modalities
Example = dict[str, Any]
Column = np.ndarray | Sequence[str]


@dataclasses.dataclass(frozen=True)
class DatasetInfo:
    """What a model needs to know about a data set.

    Attributes:
      name: the data set's name.
      modalities: names of the modalities; their order is the order of ``present``.
      class_names: one name per label id.
      split_sizes: number of examples per split.
      sha256: checksum of the data file, if there is one.
      image_size: height and width of its images, if it has any.
      task: name of the task that its labels are for, see :attr:`spec`.
      depth: image modalities whose pixels are not colours: augmentation moves them with the others, but does not change
        their values.
      regions: {name: class ids} of masks, whose overlap is scored; {}: every class but the first (background).
      phrases: {class name: what a person would call its examples}, for classification without labels; {}: none.
      environment: the column that says which environment an example is from, such as "subject"; "": there is none.
      columns: {modality: names of its columns}, of features from a table; {}: they are not known.
      environments: names of the environments by id, those of the training split first; (): they are not known.
    """

    name: str
    modalities: tuple[str, ...]
    class_names: tuple[str, ...]
    split_sizes: Mapping[str, int] = dataclasses.field(default_factory=dict)
    sha256: str | None = None
    image_size: int | None = None
    task: str = CLASSIFICATION.name
    depth: tuple[str, ...] = ("depth",)
    regions: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    phrases: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    environment: str = ""
    environments: tuple[str, ...] = ()
    columns: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)

    @property
    def num_classes(self) -> int:
        """Number of classes K."""
        return len(self.class_names)

    @property
    def spec(self) -> TaskSpec:
        """The task that its labels are for.

        Raises:
          DataError: there is none of this name.
        """
        if self.task not in LABELLED:
            raise DataError(
                f"The task of {self.name!r} is {self.task!r}, expected one of {', '.join(LABELLED)}: correct info.task."
            )
        return LABELLED[self.task]

    def check_labels(self, labels: np.ndarray) -> np.ndarray:
        """Returns labels of its examples in the dtype of batches, after checking every one of them.

        Raises:
          DataError: they are none of its task, or out of range.

        Examples:
          >>> DatasetInfo("demo", ("sound",), ("low", "high")).check_labels(np.array([0, 1])).dtype.name
          'int32'
        """
        return self.spec.check_labels(labels, self.num_classes, self.name)

    def check_environments(self, ids: np.ndarray, count: int) -> np.ndarray:
        """Returns the environments of a split's examples as int32, after checking every one of them.

        Args:
          ids: (n,) ids; -1 where the environment is not known.
          count: number of examples n.

        Raises:
          DataError: there are more or fewer of them, or an id has no name.

        Examples:
          >>> info = DatasetInfo("demo", ("sound",), ("low", "high"), environment="site", environments=("A", "B"))
          >>> info.check_environments(np.array([1, -1]), 2).tolist()
          [1, -1]
        """
        ids = np.asarray(ids)
        if ids.shape != (count,) or ids.dtype.kind not in "iu":
            raise DataError(
                f"The environments of {self.name!r} are a {ids.dtype} array of shape {ids.shape}, expected one whole "
                f"number for each of {count} examples."
            )
        wrong = np.flatnonzero((ids < UNKNOWN) | (ids >= len(self.environments)))
        if wrong.size:
            raise DataError(
                f"Example {wrong[0]} of {self.name!r} has environment {ids[wrong[0]]}, expected {UNKNOWN} (unknown) to "
                f"{len(self.environments) - 1}: name every environment in info.environments."
            )
        return ids.astype(np.int32)


@runtime_checkable
class Source(Protocol):
    """A data set split: ``source[i]`` is a dict of its modalities and "label".

    Optional are "index", "present" and, where ``info.environments`` has names, "environment": an id.
    """

    @property
    def info(self) -> DatasetInfo:
        """The data set's description."""
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
    """Returns the kind of a modality, from one of its values.

    "text": a str; uint8 "image" (height, width, channels) and "video" (frames, height, width, channels); floats
    "features" (F,), "sequence" (time, F) and "volume" (depth, height, width) with or without channels at the end.

    Raises:
      DataError: the value is none of these.

    Examples:
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


def environments_of(source: Source) -> np.ndarray | None:
    """The environments (n,) of all examples of a split, int32; None where they are not known.

    Raises:
      DataError: names are known, but the source has no column of ids.
    """
    if not source.info.environments:
        return None
    ids = getattr(source, ENVIRONMENT, None)
    if ids is None:
        raise DataError(
            f"{source.info.name!r} names {len(source.info.environments)} environments, but its source has no column "
            f"{ENVIRONMENT!r}: give it one id for each example."
        )
    return source.info.check_environments(ids, len(source))


def count_environments(train: Source) -> int:
    """The number of environments that training examples come from, 0 if they are not known.

    Raises:
      DataError: the ids of training environments are not 0 to their number: methods have a weight for each.
    """
    ids = environments_of(train)
    if ids is None:
        return 0
    found = np.unique(ids[ids != UNKNOWN])
    if not np.array_equal(found, np.arange(len(found))):
        raise DataError(
            f"The training examples of {train.info.name!r} are from environments {found[:5].tolist()} ... of "
            f"{len(train.info.environments)}, expected 0 to {len(found) - 1}: name those of the training split first."
        )
    return len(found)


def choose_environments(columns: Mapping[str, Sequence[str]], chosen: str, name: str) -> tuple[str, tuple[str, ...]]:
    """A column of environments, and their names.

    Args:
      columns: {column: names by id} of a data set.
      chosen: the column; "": the first one, ("", ()) if there is none.
      name: the data set's name, for messages.

    Raises:
      DataError: there is no such column.

    Examples:
      >>> choose_environments({"site": ["A", "B"]}, "", "demo")
      ('site', ('A', 'B'))
    """
    if chosen and chosen not in columns:
        known = f"expected one of {', '.join(columns)}" if columns else "but that data set names no environments"
        raise DataError(f"config.data.environments is {chosen!r} for {name!r}: {known}; '' takes the first, if any.")
    column = chosen or next(iter(columns), "")
    return column, tuple(columns.get(column, ()))


def keep_padding(sequence: np.ndarray, changed: np.ndarray) -> np.ndarray:
    """Returns a changed sequence (..., T, F) that is zero where the original has frames of zeros, which are padding.

    Examples:
      >>> keep_padding(np.array([[1.0, 0.0], [0.0, 0.0]]), np.full((2, 2), 5.0)).tolist()
      [[5.0, 5.0], [0.0, 0.0]]
    """
    return np.where(sequence.any(-1, keepdims=True), changed, np.zeros((), changed.dtype))


def kinds_and_shapes(
    source: "Source", like: "Source | None" = None
) -> tuple[dict[str, str], dict[str, tuple[int, ...]]]:
    """Returns kind and shape of each modality, from the first example that has it; a text's shape is ().

    Args:
      source: the split.
      like: another split, such as the training split, for modalities that no example of this split has.

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
        known, sizes = kinds_and_shapes(like)
        kinds, shapes = {**known, **kinds}, {**sizes, **shapes}
    elif absent:
        raise DataError(
            f"No example of {source.info.name!r} has modalities {absent}: take them out of info.modalities, or prepare "
            "the set with the files that they come from."
        )
    return {name: kinds[name] for name in modalities}, shapes


def check_source(source: Source) -> None:
    """Checks a split before any long work: not empty, modalities, kinds, image shape, every label.

    Args:
      source: the split; all labels are checked if it has ``labels``, else only that of the first example.

    Raises:
      DataError: the source cannot be used; the message says why.
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
    info.check_labels(np.asarray(labels))


def check_shape(dataset: str, modality: str, position: int, found: tuple, expected: tuple) -> None:
    """Raises a DataError that names both shapes unless they are equal."""
    if tuple(found) != tuple(expected):
        raise DataError(
            f"Example {position} of {dataset!r} has {modality!r} of shape {tuple(found)}, expected {tuple(expected)}: "
            "resize the data or load it with the size the model was built for."
        )
