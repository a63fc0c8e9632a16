"""The task term of the objective: the loss at z, over subsets of the modalities, and beyond the experts."""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Num

from c3r_jax.core.batch import Where, global_sum, keep, promote, weigh, zero_absent
from c3r_jax.core.config import C3RConfig
from c3r_jax.core.counterfactual import Predict
from c3r_jax.core.expert import Expert, residual_experts
from c3r_jax.core.gate import at_most_one, is_zero
from c3r_jax.core.instruments import Fuse
from c3r_jax.core.tasks.base import Task
from c3r_jax.core.tasks.classification import CLASSIFICATION

Evidence = Mapping[str, Float[Array, "batch outputs"]]  # {name: an expert's log_ratio}


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
      outputs: (M, B, K) l_m of each modality alone.
      explained: (M, B, K) the same of its explained part, without gradient; None without a first stage.
      additivity: of :class:`Alone`.
    """

    outputs: Float[Array, "modalities batch outputs"]
    explained: Float[Array, "modalities batch outputs"] | None
    additivity: Float[Array, ""]


class TaskTerm(NamedTuple):
    """The task term of a batch.

    Attributes:
      losses: (B,) of each row, before any mean.
      experts: {name: :class:`Expert`} computed from the batch; None without experts, or where they were given.
    """

    losses: Float[Array, " batch"]
    experts: dict[str, Expert] | None


def task_term(
    outputs: Float[Array, "subsets batch outputs"],
    losses: Float[Array, "subsets batch"],
    features: dict[str, Array],
    labels: Num[Array, "batch ..."],
    present: Bool[Array, "batch modalities"],
    *,
    config: C3RConfig,
    alone: Float[Array, ""] | None,
    expert: Any,
    evidence: Evidence | None,
    where: Where,
    axis_name: str | None,
    task: Task,
) -> TaskTerm:
    r"""The loss of each row, over subsets of its modalities and beyond the experts where the configuration asks so.

    .. math::
       T_i = (1 - a)\, t_i(\text{all}) + a\, \text{mean}_m\, t_i(\{m\}), \quad
       t_i(S) = (1 - w)\, \ell(l_S, y_i) + w\, \ell\left(l_S \oplus \{q_m\}_{m \in S}, y_i\right)

    "All" is all that the row has, the mean is over each modality of it alone, see :func:`outputs_alone`, and a is
    ``config.subsets`` times the strength and ``alone``.
    q_m is the expert of modality m, w its weight, and the sign joins outputs with an expert (:meth:`Task.beyond`): for
    classes, :math:`l + \log(q / p)`.

    Args:
      outputs: l_S: (1, B, K) predict(z), or (1 + M, B, K) with :func:`outputs_alone` after it.
      losses: (1, B) or (1 + M, B) their losses.
      features: {name: (B, d_name)}, zero where absent or excluded.
      labels: (B, ...).
      present: (B, M) bool.
      config: how strong C3R is, and the experts' ridge.
      alone: how far modalities alone may stand for all together, 0 to 1; None without modalities alone.
      expert: w, 0 to 1; the number 0 switches experts off.
      evidence: the experts of these rows, where they are known; None: computed from the batch.
      where: (B,) bool, rows that count.
      axis_name: mapped axis over which the batch is split.
      task: what outputs and labels mean.

    Returns:
      :class:`TaskTerm`.
    """
    experts = None
    with_subsets = len(outputs) > 1
    if not is_zero(expert):
        if evidence is None:
            targets = task.expert_targets(labels, outputs.shape[2])
            shared: dict[str, Any] = {"present": present, "where": where, "axis_name": axis_name, "task": task}
            experts = residual_experts(features, targets, ridge=config.ridge, **shared)
            evidence = {name: found.log_ratio for name, found in experts.items()}
        for name, value in evidence.items():
            if value.shape != outputs.shape[1:]:
                raise ValueError(
                    f"evidence[{name!r}] has shape {value.shape}, but the outputs have {outputs.shape[1:]}."
                )
        columns = jnp.concatenate([present[None], *([alone_in(present)] if with_subsets else [])])
        joint = jax.vmap(partial(_joint, evidence))(columns)
        loss = partial(task.loss, label_smoothing=config.label_smoothing)
        beyond = jax.vmap(lambda value, other: loss(task.beyond(value, other), labels))(outputs, joint)
        losses = (1 - expert) * losses + expert * beyond
    if not with_subsets:
        return TaskTerm(losses[0], experts)
    has = present.T
    count = has.sum(0).astype(losses.dtype)
    of_one = jnp.where(has, losses[1:], 0).sum(0) / jnp.maximum(count, 1)
    assert alone is not None  # for type checkers
    share = at_most_one(config.strength) * config.subsets * alone
    return TaskTerm(losses[0] + share * jnp.where(count > 0, of_one - losses[0], 0), experts)


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
) -> AloneOutputs:
    r"""The outputs of each modality alone, with the share c that its evidence has in the fusion.

    .. math::
       l_m = l_0 + c\,(\text{predict}(\text{fuse}(h, \{m\})) - l_0)

    with l_0 the best constant outputs, see :func:`alone_in_joint`. Without c a mean of modalities would have to be as
    sure with one of them as with all, and rare classes would pay for that. A number is an estimate, not evidence: there
    n c takes the place of c, so that a sum of modalities does not ask each of them for the whole label, times
    :func:`own_slopes` within 1/n and 1, so that a mean of noisy measurements need not be as far from the mean label
    with one of them as with all.

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
    """

    def of(h: dict[str, Array]) -> Float[Array, "modalities batch outputs"]:
        # One program for all modalities: it does not grow with their number.
        return jax.vmap(lambda only: predict(fuse(zero_absent(h, only), only)))(alone_in(present))

    outputs = of(features)
    found = alone_in_joint(logits, outputs, present, constant, where=where, axis_name=axis_name, task=task)

    rows: dict[str, Any] = {"labels": labels, "where": where, "axis_name": axis_name}
    scaled = partial(scaled_alone, found=found, present=present, constant=constant, task=task, **rows)
    others = None if explained is None else jax.lax.stop_gradient(scaled(of(jax.lax.stop_gradient(explained))))
    return AloneOutputs(scaled(outputs), others, found.additivity)


def scaled_alone(
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
    """The outputs of each modality alone at the scale at which they answer for the label, see :func:`outputs_alone`."""
    share, count = found.share[:, None], jnp.maximum(present.sum(1, keepdims=True), 1)
    values = jax.vmap(lambda value: task.alone(value, constant, share, count))(outputs)
    if task.adds_up:
        return values
    slopes = own_slopes(values, labels, present, constant, where=where, axis_name=axis_name, task=task)[:, None, None]
    level = constant.astype(values.dtype)[None, None, :]
    return level + jnp.clip(slopes, 1 / count[None], 1).astype(values.dtype) * (values - level)


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
    squares = alone_square * joint_square
    additivity = jnp.where(squares > 0, jnp.square(jnp.maximum(across, 0)) / jnp.where(squares > 0, squares, 1), 1)
    return Alone(jnp.clip(kappa, 1, count) / count, jnp.minimum(additivity, 1))


def _joint(evidence: Evidence, columns: Any) -> Float[Array, "batch outputs"]:
    """The summed evidence of the experts whose modality is in the subset."""
    parts = [keep(columns[:, m], value) for m, value in enumerate(evidence.values())]
    return jnp.stack(parts).sum(0)
