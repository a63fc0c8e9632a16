"""Segmentation: one of K classes per pixel or voxel."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from c3r_jax.settings.fields import Part, setting
from c3r_jax.tasks.base import TaskSpec, outside, whole_numbers


class SegmentationSpec(TaskSpec):
    """Labels are maps of class ids (n, ..., H, W).

    Examples:
      >>> SEGMENTATION.check_labels(np.zeros((1, 2, 2), int), 3, "demo").dtype.name
      'uint8'
    """

    name = "segmentation"
    has_classes = dense = True
    dtype = np.uint8
    labels_are = "integers of shape (n, ..., height, width): give a class id per pixel or voxel"
    scores = ("dice", "accuracy")
    unit = "voxels, by the weights of their classes,"
    accuracy_is = "the share of voxels that are correct, each by the weight of its class"

    def fits(self, labels: np.ndarray) -> bool:
        """See :class:`TaskSpec`."""
        return labels.ndim >= 3 and np.issubdtype(labels.dtype, np.integer)

    def wrong(self, labels: np.ndarray, num_classes: int) -> tuple[np.ndarray, str]:
        """See :class:`TaskSpec`: everything that is not a class id."""
        return outside(labels, num_classes - 1, f" ({num_classes} classes)")

    def item_label(self, label: Any, num_classes: int) -> np.ndarray:
        """See :class:`TaskSpec`: a map."""
        return whole_numbers(label, num_classes - 1).astype(np.uint8)


@dataclass(frozen=True)
class SegmentationSettings(Part, place=SegmentationSpec.name):
    """Task segmentation."""

    class_weights: tuple[float, ...] = setting(
        (), "Weights of voxels, by class; empty: inverse to the class shares in training."
    )
    max_weight: float = setting(
        100.0, "Largest class weight, relative to the most frequent class; 1: all voxels weigh the same.", least=1
    )


SEGMENTATION = SegmentationSpec()
