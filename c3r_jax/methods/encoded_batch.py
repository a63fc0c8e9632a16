"""The global batch after the encoders, with the network that reads it: the input of every method's loss."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.sharding import NamedSharding
from jaxtyping import Array, Bool, Float, Int, Num

from c3r_jax.core.tasks.base import Task
from c3r_jax.models.twin import TwinNetwork, apply, rows_of


class EncodedBatch(NamedTuple):
    """Encoded rows, the network and what its outputs mean.

    Attributes:
      model: the twin network.
      variables: its variables.
      h: {modality: (B, d)} representations, zero where absent.
      present: (B, M) bool.
      labels: (B, ...).
      where: (B,) bool, rows that count.
      environment: (B,) ids of the environments that rows come from; None: unknown.
      target: the task's losses and correctness.
      label_smoothing: label smoothing of the task's loss.
      axis_name: mapped axis over which the batch is split.
      evidence: {modality: (B, K)} of experts that were computed on all training rows; None: there is none.
      explained: the explained share of rows that are not trained on; None: unknown.
      rows: how rows are split over a mesh whose axes are not mapped; None: they are not, or the axis is mapped.
      key_chunks: ``chunks`` of :func:`c3r_jax.core.contrastive.contrastive_c3r_loss`.
    """

    model: TwinNetwork
    variables: Mapping[str, Any]
    h: dict[str, Float[Array, "batch dim"]]
    present: Bool[Array, "batch modalities"]
    labels: Num[Array, "batch ..."]
    where: Bool[Array, " batch"]
    environment: Int[Array, " batch"] | None
    target: Task
    label_smoothing: float
    axis_name: str | None
    evidence: Mapping[str, Float[Array, "batch classes"]] | None = None
    explained: Float[Array, ""] | None = None
    rows: NamedSharding | None = None
    key_chunks: int | None = None

    @property
    def masks(self) -> dict[str, Any]:
        """The keywords ``where`` and ``axis_name`` of this package's losses."""
        return {"where": self.where, "axis_name": self.axis_name}

    def predict(self, z: Float[Array, "batch dim"]) -> Float[Array, "batch classes"]:
        """Logits (B, K) at any z (B, d)."""
        return apply(self.model, self.variables, self.model.predict, z)

    def fuse(
        self, h: Mapping[str, Float[Array, "batch dim"]], present: Bool[Array, "batch modalities"]
    ) -> Float[Array, "batch dim"]:
        """Representation z (B, d) for any representations of the modalities."""
        return apply(self.model, self.variables, self.model.fuse, h, present)

    def z(self) -> Float[Array, "batch dim"]:
        """Representation z (B, d) of the batch."""
        return self.fuse(self.h, self.present)

    def alone(self) -> Float[Array, "modalities batch classes"]:
        """Logits from each modality alone, see :meth:`TwinNetwork.alone`."""
        return apply(self.model, self.variables, self.model.alone, self.h, self.present)

    def loss(self, logits: Float[Array, "batch classes"], labels: Num[Array, "batch ..."]) -> Float[Array, " batch"]:
        """The task's loss (B,) for any outputs and labels."""
        return self.target.loss(logits, labels, label_smoothing=self.label_smoothing)

    def losses(self, logits: Float[Array, "batch classes"]) -> Float[Array, " batch"]:
        """The task's loss (B,) for any outputs and the batch's labels."""
        return self.loss(logits, self.labels)


def encoded_batch(
    model: TwinNetwork,
    variables: Mapping[str, Any],
    h: Mapping[str, Array],
    present: Bool[Array, "batch modalities"],
    batch: Mapping[str, Any],
    *,
    target: Task,
    label_smoothing: float,
    axis_name: str | None = None,
) -> EncodedBatch:
    """Joins representations with the other columns of their batch; maps become rows, see :func:`rows_of`.

    Args:
      model: the twin network.
      variables: its variables.
      h: {modality: (B, d)} representations, zero where absent, or maps (B, ..., d).
      present: (B, M) bool.
      batch: {"labels", "where"}, and where known "environment" (B,), "evidence" {modality: (B, K)} and
        "explained", a scalar or (B,) with one value.
      target: the task's losses and correctness.
      label_smoothing: label smoothing of the task's loss.
      axis_name: mapped axis over which the batch is split.
    """
    labels = batch["labels"]
    if any(value.ndim > 2 for value in h.values()):  # one label per position of a map
        labels = jnp.reshape(labels, -1)
    rows, (present, where) = rows_of(h, present, batch["where"])
    explained = batch.get("explained")
    if explained is not None:
        explained = jnp.ravel(explained)[0]
    return EncodedBatch(
        model,
        variables,
        rows,
        present,
        labels,
        where,
        batch.get("environment"),
        target,
        label_smoothing,
        axis_name,
        batch.get("evidence"),
        explained,
    )
