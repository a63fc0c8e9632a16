"""A task without its losses: rules for labels, outputs, scores and the wording of reports."""

from typing import Any, ClassVar

import numpy as np

from c3r_jax.errors import DataError


class TaskSpec:
    """A task as data, models, evaluation and reports see it; its losses are in ``c3r_jax.core.tasks``.

    Callers use these attributes instead of comparing names. The defaults stand for features that a task lacks.

    Attributes:
      name: its name in ``config.task``, manifests and results.
      contrastive: an example's modalities are matched with each other: there are no labels, nor rules for them.
      has_classes: labels are classes.
      one_class_per_example: the label of an example is one class id, and its outputs are the classes' logits.
      label_per_class: the label of an example is 0 or 1 for each class.
      dense: outputs and labels are maps, with a value per pixel or voxel.
      dtype: dtype of a batch's labels.
      labels_are: dtype and shape of a data set's labels, in words.
      scores: names of its scores, see ``c3r_jax.metrics.scores``; the first is the headline, which tables show.
      binary_scores: scores that exist only for two classes.
      unit: what its accuracy and risks count, in the plural.
      wrong_means: words added to "wrong" where it needs a bound.
      accuracy_is: meaning of its accuracy, unless it is the share of examples whose class is correct.
      decision: how logits become class names in exported models: "largest" (the class with the largest logit),
        "positive" (the classes with logits above 0), or None.
    """

    name: ClassVar[str]
    contrastive: ClassVar[bool] = False
    has_classes: ClassVar[bool] = False
    one_class_per_example: ClassVar[bool] = False
    label_per_class: ClassVar[bool] = False
    dense: ClassVar[bool] = False
    dtype: ClassVar[type] = np.int32
    labels_are: ClassVar[str] = ""
    scores: ClassVar[tuple[str, ...]] = ("accuracy",)
    binary_scores: ClassVar[tuple[str, ...]] = ()
    unit: ClassVar[str] = "examples"
    wrong_means: ClassVar[str] = ""
    accuracy_is: ClassVar[str] = ""
    decision: ClassVar[str | None] = None

    def __repr__(self) -> str:
        return f"<task {self.name}>"

    @property
    def headline(self) -> str:
        """The score in tables and summaries."""
        return self.scores[0]

    def num_outputs(self, num_classes: int) -> int:
        """Number of outputs of the head for each example (or voxel, where outputs are maps)."""
        return num_classes

    # Rules for labels.

    def fits(self, labels: np.ndarray) -> bool:
        """Whether an array has the dtype and number of axes of this task's labels."""
        raise NotImplementedError(f"{self.name} has no labels.")

    def wrong(self, labels: np.ndarray, num_classes: int) -> tuple[np.ndarray, str]:
        """Which values are not allowed (bool, of the labels' shape), and what is expected instead."""
        raise NotImplementedError(f"{self.name} has no labels.")

    def check_labels(self, labels: np.ndarray, num_classes: int, name: str) -> np.ndarray:
        """Returns the labels of a data set as :attr:`dtype` after checking all of them.

        Args:
          labels: (n, ...) as in :attr:`labels_are`.
          num_classes: K.
          name: the data set's name, for messages.

        Raises:
          DataError: a wrong shape or dtype, or a label that is not allowed.
        """
        labels = np.asarray(labels)
        if not self.fits(labels):
            raise DataError(
                f"The labels of {name!r} are a {labels.dtype} array of shape {labels.shape}, expected "
                f"{self.labels_are}."
            )
        wrong, expected = self.wrong(labels, num_classes)
        if wrong.any():
            place = np.argwhere(wrong)[0]
            raise DataError(f"Example {place[0]} of {name!r} has label {labels[tuple(place)]}, expected {expected}.")
        return labels.astype(self.dtype)

    def item_label(self, label: Any, num_classes: int) -> Any:
        """The label of one example as stored while a data set is prepared: a number, a list, or a map.

        Args:
          label: label from the layout; None: unknown.
          num_classes: K.

        Raises:
          DataError: it cannot be used; the message says why.
        """
        raise NotImplementedError(f"{self.name} has no labels.")

    # Scores of outputs and labels in memory; those of maps are in evaluation/segmentation.py.

    def measure(self, outputs: np.ndarray, labels: np.ndarray, *, tolerance: float, num_bins: int) -> dict[str, float]:
        """{score: value} of outputs (n, K) for labels (n, ...).

        Args:
          outputs: the model's outputs.
          labels: the true labels.
          tolerance: the largest error of a correct number.
          num_bins: bins of calibration errors.
        """
        raise NotImplementedError(f"{self.name} is not scored in memory.")

    def per_class(self, outputs: np.ndarray, labels: np.ndarray, names: tuple[str, ...]) -> dict[str, dict[str, Any]]:
        """{class: its precision, recall, F1 and support}; {} where labels are not classes."""
        del outputs, labels, names
        return {}

    def constant_accuracy(self, train_labels: np.ndarray, labels: np.ndarray, tolerance: float) -> tuple[float, str]:
        """The accuracy of the constant prediction chosen on training labels, and its description."""
        raise NotImplementedError(f"{self.name} is not scored in memory.")

    def constant_errors(self, train_labels: np.ndarray, labels: np.ndarray) -> np.ndarray | None:
        """Absolute errors (n,) of the constant prediction chosen on training labels; None unless labels are numbers."""
        del train_labels, labels
        return None

    def chance(self, labels: np.ndarray, tolerance: float) -> float:
        """The largest accuracy that any constant prediction has on these labels."""
        raise NotImplementedError(f"{self.name} is not scored in memory.")


def outside(labels: np.ndarray, top: int, classes: str = "") -> tuple[np.ndarray, str]:
    """Marks integers outside 0 to ``top``, for :meth:`TaskSpec.wrong`."""
    return (labels < 0) | (labels > top), f"0 to {top}{classes}: correct the label or name the missing class"


def whole_numbers(label: Any, top: int) -> np.ndarray:
    """The label of one example as an array of integers from 0 to ``top``.

    Raises:
      DataError: it is not such an array.

    Examples:
      >>> whole_numbers([0, 2], 2).tolist()
      [0, 2]
    """
    values = np.asarray(label)
    if not np.issubdtype(values.dtype, np.integer) and values.dtype != bool:
        raise DataError(f"its label is a {values.dtype}, expected whole numbers")
    if values.size == 0 or values.min() < 0 or values.max() > top:
        shown = "empty" if not values.size else str(values) if values.ndim == 0 else f"{values.min()} to {values.max()}"
        raise DataError(f"its label is {shown}, expected 0 to {top}")
    return values


def with_shape(label: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The label of one example, if it has this shape.

    Raises:
      DataError: it has another shape.
    """
    if label.shape != shape:
        raise DataError(f"its label has shape {label.shape}, expected {shape}")
    return label
