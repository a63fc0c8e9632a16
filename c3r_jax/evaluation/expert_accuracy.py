"""Accuracy of the experts: how well what each modality has beyond its instrument predicts the label."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from c3r_jax.core.batch import global_mean, keep
from c3r_jax.core.expert import residual_experts
from c3r_jax.core.tasks.classification import CLASSIFICATION


def joint_expert_accuracy(
    h: Mapping[str, Float[Array, "rows _"]],
    labels: Int[Array, " rows"],
    *,
    num_classes: int,
    present: Bool[Array, "rows modalities"],
    where: Bool[Array, " rows"],
    ridge: float = 1e-2,
) -> Float[Array, ""]:
    r"""Accuracy of all experts together, leave-one-out: a measured necessity, comparable between models.

    .. math:: q(y \mid e) \propto p(y) \prod_m \frac{q_m(y \mid e_m)}{p(y)}

    With experts of learned representations it is the share of rows whose label the representations predict without
    the instrument: low where the model reads only what its modalities share. Predicting the most frequent class is
    what it is at least worth comparing with.

    Args:
      h: {modality: (n, d)} representations, not those of rows that the encoders were trained on.
      labels: (n,) class ids.
      num_classes: K.
      present: (n, M) bool; a modality that a row lacks adds nothing.
      where: (n,) bool, rows that count.
      ridge: penalty of the experts' regressions.

    Returns:
      The share of correct rows.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> s, cue = jax.random.normal(jax.random.key(0), (2, 400, 1))
      >>> noise = 0.1 * jax.random.normal(jax.random.key(1), (400, 1))
      >>> every, labels = jnp.ones((400, 2), bool), (s + cue > 0).astype(int)[:, 0]
      >>> settings = {"num_classes": 2, "present": every, "where": every[:, 0]}
      >>> reads_cue = {"image": jnp.concatenate([s, cue], 1), "text": s + noise}
      >>> reads_cause = {"image": s, "text": s + noise}
      >>> [round(float(joint_expert_accuracy(h, labels, **settings)), 1) for h in (reads_cue, reads_cause)]
      [0.7, 0.5]
    """
    targets = CLASSIFICATION.expert_targets(labels, num_classes)
    experts = residual_experts(h, targets, present=present, where=where, ridge=ridge)
    joint: Any = jnp.log(jnp.maximum(global_mean(targets, where, None), 1e-12))[None, :]
    for expert in experts.values():
        joint = joint + expert.log_ratio
    return global_mean(keep(where, (joint.argmax(1) == labels).astype(jnp.float32)), where, None)
