"""One of K classes per voxel: classification with voxels as rows, nearly all of them background."""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar, Self

import numpy as np

from c3r_jax.core.tasks.classification import Classification, class_shares
from c3r_jax.tasks.base import TaskSpec
from c3r_jax.tasks.segmentation import SEGMENTATION


@dataclasses.dataclass(frozen=True)
class Segmentation(Classification):
    """As :class:`Classification`, with class weights for rare classes."""

    spec: ClassVar[TaskSpec] = SEGMENTATION
    at_once: ClassVar[bool] = False  # rows are voxels

    @classmethod
    def for_labels(
        cls, labels: np.ndarray, num_classes: int, *, class_weights: Sequence[float] = (), max_weight: float = 1.0
    ) -> Self:
        """With the given weights, or bounded inverse class shares, relative to the most frequent class.

        Args:
          labels: class ids of any shape, a sample of the training set.
          num_classes: K.
          class_weights: a positive number for each class; (): from the shares.
          max_weight: the bound, at least 1.

        Raises:
          ValueError: a setting cannot be used; the message begins with its name.

        Examples:
          >>> Segmentation.for_labels(np.array([0, 0, 0, 1]), 2, max_weight=2.0).class_weights
          (1.0, 2.0)
        """
        shares = class_shares(labels, num_classes)
        chosen = np.asarray(class_weights, np.float64)
        if chosen.size:
            if chosen.shape != shares.shape or not ((chosen > 0) & np.isfinite(chosen)).all():
                raise ValueError(
                    f"class_weights are {tuple(chosen.tolist())}: expected a positive number for each of {len(shares)} "
                    "classes, or none."
                )
            return cls(tuple(chosen.tolist()))
        if not 1 <= max_weight < np.inf:
            raise ValueError(f"max_weight is {max_weight}: expected a number of at least 1.")
        weights = np.minimum(shares.max() / np.maximum(shares, 1e-12), max_weight)
        return cls(tuple(weights.tolist()))

    def prior(self, labels: np.ndarray, num_classes: int) -> tuple[float, ...]:
        """Each class's share of the total weight, (K,)."""
        shares = class_shares(labels, num_classes)
        weights = np.ones(num_classes) if self.class_weights is None else np.asarray(self.class_weights)
        return tuple((weights * shares / (weights @ shares)).tolist())
