"""How far the real world explains what outputs predict: the gate's losses, each at the scale at which it is least."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Num

from c3r_jax.core.batch import Where, masked_means, over, promote
from c3r_jax.core.gate import least_share
from c3r_jax.core.tasks.base import Task

SCALES = (0.0, 0.1, 0.25, 0.5, 1.0, 2.0)  # of outputs that are evidence, from those of the best constant


def explained_outputs(
    joint: Float[Array, "batch outputs"],
    causal: Float[Array, "batch outputs"],
    alone: Float[Array, "modalities batch outputs"] | None,
    explained: Float[Array, "modalities batch outputs"] | None,
    constant: Float[Array, " outputs"],
    labels: Num[Array, "batch ..."],
    present: Bool[Array, "batch modalities"],
    *,
    where: Where,
    axis_name: str | None,
    task: Task,
    label_smoothing: Any = 0.0,
) -> Float[Array, ""]:
    r"""The explained share: of z, and where they are given of each modality alone, whichever is least; no gradient.

    .. math:: T = \min_\beta \text{mean}_i\, \ell(l_0 + \beta (l(z_i) - l_0), y_i)

    and in the same way S at z_c, T_m at modality m alone and S_m at what the others explain of it; H is that of the
    best constant prediction. Outputs of an unfinished or overconfident network so count by what they tell apart. See
    :func:`least_share` for what is made of them. Outputs that do not add up are compared as they are.

    Args:
      joint: (B, K) outputs at z.
      causal: (B, K) outputs at z_c.
      alone: (M, B, K) outputs of each modality alone; None: only z is compared.
      explained: (M, B, K) outputs of what the others explain of each.
      constant: (K,) l_0.
      labels: (B, ...).
      present: (B, M) bool.
      where: (B,) bool, rows that count.
      axis_name: mapped axis over which the batch is split.
      task: what outputs mean.
      label_smoothing: of the task's loss.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from c3r_jax.core.tasks.classification import CLASSIFICATION
      >>> labels, rows, present = jnp.array([0, 1]), jnp.ones(2, bool), jnp.ones((2, 2), bool)
      >>> right, zero = jnp.array([[2.0, 0.0], [0.0, 2.0]]), jnp.zeros(2)
      >>> given = {"where": rows, "axis_name": None, "task": CLASSIFICATION}
      >>> for causal in (right, right / 2, -right):  # outputs are tried at up to twice their size
      ...     print(explained_outputs(right, causal, None, None, zero, labels, present, **given).round(2))
      1.0
      0.84
      0.0
    """
    joint = promote(joint)
    outputs = jnp.stack([joint, promote(causal)])
    if alone is not None and explained is not None:
        outputs = jnp.concatenate([outputs, promote(alone), promote(explained)])
    outputs, constant = jax.lax.stop_gradient((outputs, constant.astype(joint.dtype)))
    scales = jnp.asarray(SCALES if task.adds_up else (1.0,), outputs.dtype)
    loss = partial(task.loss, label_smoothing=label_smoothing)

    def losses(values: Float[Array, "batch outputs"]) -> Float[Array, "scales batch"]:
        def at(scale: Float[Array, ""]) -> Float[Array, " batch"]:
            return loss(task.at_share(values, constant, jnp.full((len(values), 1), scale)), labels)

        return over(at, scales, at_once=task.at_once)

    found = over(losses, outputs, at_once=task.at_once)
    at_constant = loss(jnp.broadcast_to(constant[None], joint.shape), labels)
    nothing = jnp.broadcast_to(at_constant, found.shape[1:])
    compared, masks = [jnp.stack([*found[:2], nothing])], [jnp.ones(len(present), bool)]
    if len(found) > 2:
        several, count = present.sum(1) > 1, present.shape[1]
        compared += compared
        compared += [jnp.stack([found[2 + m], found[2 + count + m], nothing]) for m in range(count)]
        masks += [several, *(present[:, m] & several for m in range(count))]
    columns = jnp.stack(compared)
    sets = columns.reshape(len(masks), -1, len(present))
    means = masked_means(sets, jnp.stack(masks), where, task.weights(labels), axis_name)
    return least_share(*means.reshape(*columns.shape[:3]).min(2).T)
