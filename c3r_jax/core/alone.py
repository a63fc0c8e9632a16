"""What each modality says alone, at the scale at which its evidence counts in the task term and the gate."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Num

from c3r_jax.core.batch import Where, global_sum, keep, promote, weigh, zero_absent
from c3r_jax.core.counterfactual import Predict
from c3r_jax.core.evidence_scale import evidence_scales
from c3r_jax.core.instruments import Fuse
from c3r_jax.core.tasks.base import Task
from c3r_jax.core.tasks.classification import CLASSIFICATION


class Alone(NamedTuple):
    """How the joint outputs are made of those of each modality alone; without gradient.

    Attributes:
      share: (B,) share c that one modality's evidence has in the joint outputs.
      additivity: squared correlation of the joint outputs with the mean of those alone; 1 where they are a multiple of
        it, as with a mean of modalities and a linear head.
    """

    share: Float[Array, " batch"]
    additivity: Float[Array, ""]


class AloneOutputs(NamedTuple):
    """What each modality alone says, and what the others explain of it.

    Attributes:
      outputs: (M, B, K) l_m of each modality alone, for the task term.
      compared: (M, B, K) predict(fuse(h, {m})), or the estimates of a task whose outputs do not add up, for the gate.
      explained: (M, B, K) of its explained part, as ``compared``; None without a first stage.
      additivity: of :class:`Alone`.
    """

    outputs: Float[Array, "modalities batch outputs"]
    compared: Float[Array, "modalities batch outputs"]
    explained: Float[Array, "modalities batch outputs"] | None
    additivity: Float[Array, ""]


def alone_in(present: Bool[Array, "batch modalities"]) -> Bool[Array, "modalities batch modalities"]:
    """Of each row one modality; a row without it keeps what it has, so that its z is finite, and is not counted."""
    has = present.T
    return jnp.where(has[:, :, None], jnp.eye(len(has), dtype=bool)[:, None, :], present[None, :, :])


def outputs_alone(
    predict: Predict,
    fuse: Fuse,
    features: dict[str, Array],
    explained: dict[str, Array] | None,
    logits: Float[Array, "batch outputs"],
    labels: Num[Array, "batch ..."],
    present: Bool[Array, "batch modalities"],
    constant: Float[Array, " outputs"],
    *,
    where: Where,
    axis_name: str | None,
    task: Task,
    label_smoothing: Any = 0.0,
) -> AloneOutputs:
    r"""The outputs of each modality alone, at the scale at which its evidence counts.

    .. math::
       l_m = l_0 + s_m\,(\text{predict}(\text{fuse}(h, \{m\})) - l_0)

    with l_0 the best constant outputs and s_m within c and 1 (``core.evidence_scale``). A number is an estimate, not
    evidence: there s_m is n c, so that a sum of modalities does not ask each of them for the whole label, times
    :func:`own_slopes` within 1/n and 1, so that a mean of noisy measurements need not be as far from the mean label
    with one of them as with all. Either way the loss of one modality alone asks for its direction, not for its size.

    Args:
      predict: z (B, d) -> outputs (B, K).
      fuse: ({name: (B, d_name)}, present (B, M)) -> z (B, d).
      features: {name: (B, d_name)}, zero where absent or excluded.
      explained: {name: (B, d_name)} what the other modalities explain of each; None without a first stage.
      logits: (B, K) predict(fuse(features, present)).
      labels: (B, ...).
      present: (B, M) bool.
      constant: (K,) l_0.
      where: (B,) bool, rows that count.
      axis_name: mapped axis over which the batch is split.
      task: what outputs mean.
      label_smoothing: of the task's loss.
    """

    def of(h: dict[str, Array]) -> Float[Array, "modalities batch outputs"]:
        # One program for all modalities: it does not grow with their number.
        return jax.vmap(lambda only: predict(fuse(zero_absent(h, only), only)))(alone_in(present))

    outputs = of(features)
    found = alone_in_joint(logits, outputs, present, constant, where=where, axis_name=axis_name, task=task)

    others = None if explained is None else of(jax.lax.stop_gradient(explained))
    rows: dict[str, Any] = {"labels": labels, "where": where, "axis_name": axis_name}
    if not task.adds_up:
        scaled = partial(scaled_estimates, found=found, present=present, constant=constant, task=task, **rows)
        trained = scaled(outputs)
        return AloneOutputs(trained, trained, None if others is None else scaled(others), found.additivity)
    smoothed = partial(task.loss, label_smoothing=label_smoothing)
    scales = evidence_scales(logits, outputs, found.share, present, constant, task=task, loss=smoothed, **rows)
    trained = jax.vmap(partial(task.at_share, constant=constant))(outputs, share=scales)
    return AloneOutputs(trained, outputs, others, found.additivity)


def scaled_estimates(
    outputs: Float[Array, "modalities batch outputs"],
    *,
    found: Alone,
    labels: Num[Array, "batch ..."],
    present: Bool[Array, "batch modalities"],
    constant: Float[Array, " outputs"],
    where: Where,
    axis_name: str | None,
    task: Task,
) -> Float[Array, "modalities batch outputs"]:
    """Estimates of each modality alone, of a task whose outputs do not add up, see :func:`outputs_alone`."""
    count = jnp.maximum(present.sum(1), 1)[None, :, None]
    level = constant.astype(outputs.dtype)[None, None, :]
    values = level + (found.share[None, :, None] * count).astype(outputs.dtype) * (outputs - level)
    slopes = own_slopes(values, labels, present, constant, where=where, axis_name=axis_name, task=task)[:, None, None]
    return level + jnp.clip(slopes, 1 / count, 1).astype(values.dtype) * (values - level)


def own_slopes(
    alone: Float[Array, "modalities batch outputs"],
    labels: Num[Array, "batch ..."],
    present: Bool[Array, "batch modalities"],
    constant: Float[Array, " outputs"],
    *,
    where: Where,
    axis_name: str | None,
    task: Task,
) -> Float[Array, " modalities"]:
    r"""Least-squares slopes of the label on what each modality alone says; without gradient; 1 where it says nothing.

    .. math:: b_m = \frac{\langle y - l_0,\ l_m - l_0 \rangle}{\langle l_m - l_0,\ l_m - l_0 \rangle}

    over the rows of the global batch that have the modality. With it the loss of one modality alone asks for its
    direction, not for its size: of n measurements with independent noise, the best mean is further from the mean label
    than each of them should be alone.

    Args:
      alone: (M, B, K) l_m; anything where absent.
      labels: (B, ...).
      present: (B, M) bool.
      constant: (K,) l_0.
      where: (B,) bool, rows that count.
      axis_name: mapped axis over which the batch is split.
      task: what labels mean.
    """
    alone = promote(alone)
    level = constant.astype(alone.dtype)[None, :]
    y = task.expert_targets(labels, alone.shape[2]).astype(alone.dtype) - level
    products = []
    for m, value in enumerate(jax.lax.stop_gradient(alone)):
        rows = where & present[:, m]
        e, s = keep(rows, y), keep(rows, value - level)
        products.append(jnp.stack([weigh(rows, e * s).sum(), weigh(rows, s * s).sum()]))
    across, square = jax.lax.stop_gradient(global_sum(jnp.stack(products), axis_name)).T
    return jnp.where(square > 0, across / jnp.where(square > 0, square, 1), 1)


def alone_in_joint(
    joint: Float[Array, "batch outputs"],
    alone: Float[Array, "modalities batch outputs"],
    present: Bool[Array, "batch modalities"],
    constant: Float[Array, " outputs"],
    *,
    where: Where,
    axis_name: str | None = None,
    task: Task = CLASSIFICATION,
) -> Alone:
    r"""The share that one modality's evidence has in the joint outputs: 1/n under a mean of n, 1 under a sum.

    .. math::
       c_i = \kappa / n_i, \quad
       \kappa = \frac{\langle l - l_0,\ \bar l - l_0 \rangle}{\langle \bar l - l_0,\ \bar l - l_0 \rangle}
       \ \text{within } [1, n_i], \quad
       \rho^2 = \frac{\langle l - l_0,\ \bar l - l_0 \rangle_+^2}{\|l - l_0\|^2\ \|\bar l - l_0\|^2}

    where :math:`\bar l` is the mean of the outputs from each present modality alone, and the products run over the rows
    of the global batch with several modalities; what a softmax ignores, the mean of a row's logits, is left out.

    Args:
      joint: (B, K) outputs l of all modalities.
      alone: (M, B, K) outputs of each alone; anything where absent.
      present: (B, M) bool.
      constant: (K,) l_0.
      where: (B,) bool, rows that count.
      axis_name: mapped axis over which the batch is split.
      task: what outputs mean.

    Returns:
      :class:`Alone`: c and rho^2, which is 1 where no row has several modalities.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> alone = jax.random.normal(jax.random.key(0), (2, 8, 3))
      >>> rows, present, zero = jnp.ones(8, bool), jnp.ones((8, 2), bool), jnp.zeros(3)
      >>> found = alone_in_joint(alone.mean(0), alone, present, zero, where=rows)
      >>> print(found.share[:2].round(3), found.additivity.round(3))
      [0.5 0.5] 1.0
    """
    joint, alone = promote(joint), promote(alone)  # squares of logits are beyond float16
    joint, alone, constant = jax.lax.stop_gradient((joint, alone, constant.astype(joint.dtype)))
    count = jnp.maximum(present.sum(1), 1).astype(joint.dtype)
    mean = jnp.stack([keep(present[:, m], value) for m, value in enumerate(alone)]).sum(0) / count[:, None]
    several = where & (count > 1)
    e, s = (keep(several, task.contrasts(value - constant[None, :])) for value in (joint, mean))
    products = jnp.stack([weigh(several, x * other).sum() for x, other in ((e, s), (s, s), (e, e))])
    across, alone_square, joint_square = global_sum(products, axis_name)
    kappa = across / jnp.where(alone_square > 0, alone_square, 1)
    # One quotient after the other: of outputs in large units the product of both squares is beyond float32.
    some = (alone_square > 0) & (joint_square > 0)
    of_joint = jnp.maximum(across, 0) / jnp.where(some, joint_square, 1)
    additivity = jnp.where(some, kappa * of_joint, 1)
    return Alone(jnp.clip(kappa, 1, count) / count, jnp.minimum(additivity, 1))
