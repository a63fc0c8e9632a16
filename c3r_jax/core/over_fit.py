"""Whether single modalities learn rows by heart: C3R trains each of them alone, and costs accuracy while they do."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Num

from c3r_jax.core.alone import alone_in
from c3r_jax.core.batch import counted, global_count, masked_means, zero_absent
from c3r_jax.core.counterfactual import Predict
from c3r_jax.core.instruments import Features, Fuse
from c3r_jax.core.mapped_axes import AxisName, checked_axis
from c3r_jax.core.tasks.base import Task
from c3r_jax.core.tasks.classification import CLASSIFICATION

SOME, MUCH = 0.12, 0.2  # a up to which C3R is whole, and from which on it is off
LEARNED, NEARLY = 0.05, 0.15  # b up to which there is nothing left to learn by heart, and from which on there is


def generalising_share(train: Float[Array, ""], held: Float[Array, ""], constant: Float[Array, ""]) -> Float[Array, ""]:
    r"""How far single modalities learn what holds for other rows too, from their mean losses; without gradient.

    .. math::
       f = \max\left(\left[\frac{0.2 - a}{0.08}\right]_0^1,\ \left[\frac{0.15 - b}{0.1}\right]_0^1\right), \quad
       a = \frac{T_{held} - T_{train}}{H}, \quad b = \frac{T_{train}}{H}

    A modality that cannot say the label alone is asked for it all the same, by subset training as by experts. Plain
    training fits all modalities together and then has little to learn; this goes on, and where rows are few, the noise
    of each modality is learned by heart. With T the mean loss of one modality alone, a says how much better it knows
    the rows that it is trained on. Once all of them are learned by heart, b is near 0 and there is nothing more to
    learn: C3R then does no harm.

    On Gaussian classes of 300 to 1,000 rows C3R costs 1 to 6 points of accuracy without it, and at most half a point
    with it; what C3R gains on structural models and on frozen encoders, where b is soon near 0, stays the same.

    Args:
      train: T over rows that are trained on.
      held: T over rows that are not.
      constant: H, loss of the best constant prediction.

    Examples:
      >>> import jax.numpy as jnp
      >>> cases = [(0.5, 0.52, 1.0), (0.5, 0.66, 1.0), (0.5, 0.8, 1.0), (0.0, 0.8, 1.0)]
      >>> [float(generalising_share(*map(jnp.asarray, losses)).round(2)) for losses in cases]
      [1.0, 0.5, 0.0, 1.0]
    """
    train, held, constant = jax.lax.stop_gradient((train, held, constant))
    scale = jnp.where(constant > 0, constant, 1)
    general = jnp.clip((MUCH - (held - train) / scale) / (MUCH - SOME), 0, 1)
    share = jnp.maximum(general, jnp.clip((NEARLY - train / scale) / (NEARLY - LEARNED), 0, 1))
    return jnp.where(jnp.isnan(share), 0, share)


class LossAlone(NamedTuple):
    """What :func:`loss_alone` returns.

    Attributes:
      losses: (M,) mean loss of each modality alone; 0 where no row has it.
      seen: (M,) whether any row has it.
      constant: H, the mean loss of the best constant prediction for the same rows.
    """

    losses: Float[Array, " modalities"]
    seen: Bool[Array, " modalities"]
    constant: Float[Array, ""]


def loss_alone(
    predict: Predict,
    fuse: Fuse,
    features: Features,
    labels: Num[Array, "batch ..."],
    *,
    present: Bool[Array, "batch modalities"],
    where: Bool[Array, " batch"],
    axis_name: AxisName = None,
    task: Task = CLASSIFICATION,
) -> LossAlone:
    r"""The mean loss of each modality alone, whose mean is T of :func:`generalising_share`, and H; without gradient.

    .. math:: T_m = \text{mean}_{i: m}\, \ell(\text{predict}(\text{fuse}(h_i, \{m\})), y_i)

    Args:
      predict: z (B, d) -> outputs (B, K).
      fuse: ({name: (B, d_name)}, present (B, M)) -> z (B, d).
      features: {name: (B, d_name)}.
      labels: (B, ...).
      present: (B, M) bool, columns in the sorted order of the names.
      where: (B,) bool, rows that count.
      axis_name: mapped axis over which the rows are split.
      task: what outputs and labels mean.

    Examples:
      >>> import jax.numpy as jnp
      >>> h = {"a": jnp.array([[2.0], [-2.0]]), "b": jnp.array([[-2.0], [9.0]])}  # "b" is wrong, and once absent
      >>> present = jnp.array([[True, True], [True, False]])
      >>> sums = lambda h, only: jnp.where(only[:, :1], h["a"], 0) + jnp.where(only[:, 1:], h["b"], 0)
      >>> both = lambda z: jnp.concatenate([z, jnp.zeros_like(z)], axis=1)
      >>> found = loss_alone(both, sums, h, jnp.array([0, 1]), present=present, where=jnp.ones(2, bool))
      >>> [round(float(value), 2) for value in (*found.losses, found.constant)]
      [0.13, 2.13, 0.69]
    """
    axis, present_only = checked_axis(axis_name), alone_in(present)
    outputs = jax.vmap(lambda only: predict(fuse(zero_absent(features, only), only)))(present_only)
    num_outputs, num_rows = outputs.shape[2], global_count(where, axis, jnp.float32)
    constant = task.constant(task.batch_prior(labels, num_outputs, where=where, axis_name=axis), num_rows)
    constants = jnp.broadcast_to(constant.astype(outputs.dtype), outputs.shape[1:])
    losses = jnp.stack([*(task.loss(of_one, labels) for of_one in outputs), task.loss(constants, labels)])
    masks = jnp.stack([*present.T, jnp.ones(len(present), bool)])
    means = masked_means(jax.lax.stop_gradient(losses)[:, None], masks, where, task.weights(labels), axis)[:, 0]
    seen = jnp.stack([global_count(jnp.where(mask, counted(where, jnp.float32), 0), axis) for mask in masks[:-1]]) > 0
    return LossAlone(means[:-1], seen, means[-1])
