"""Sufficiency and necessity: measured 0/1 risks with bounds, and per-example surrogate losses for training."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from c3r_jax.core.batch import Where, check_counts, check_float, global_count, global_sum, mask_of, promote, weigh
from c3r_jax.core.short_help import short_help
from c3r_jax.core.tasks.base import Task, valid_labels
from c3r_jax.core.tasks.classification import CLASSIFICATION


class C3Risk(NamedTuple):
    """The C3 risk of a batch (scalars, shares of examples) and its bounds on C3.

    Attributes:
      sufficiency: R_S = P(argmax predict(z_c) != y).
      necessity: R_N = P(argmax predict(z_bar) = y).
      total: R = R_S + R_N, in [0, 2].
      lower: max(0, 1 - R), the Frechet lower bound of C3.
      upper: min(1 - R_S, 1 - R_N), its upper bound.
      joint: P(correct at z_c and wrong at z_bar), as observed for this predictor; within [lower, upper].
    """

    sufficiency: Float[Array, ""]
    necessity: Float[Array, ""]
    total: Float[Array, ""]
    lower: Float[Array, ""]
    upper: Float[Array, ""]
    joint: Float[Array, ""]


@short_help
def sufficiency_loss(
    logits: Float[Array, "batch classes"],
    labels: Num[Array, "batch ..."],
    *,
    label_smoothing: float = 0.0,
    task: Task = CLASSIFICATION,
) -> Float[Array, " batch"]:
    r"""Cross-entropy of the real-world branch: is the causal part enough to predict the label?

    .. math:: S_i = \log \sum_k e^{l_{ik}} - (1 - \epsilon) l_{i y_i} - \tfrac{\epsilon}{K} \sum_k l_{ik}

    Args:
      logits: (B, K) logits, usually ``predict(z_c)``.
      labels: (B,) class ids in [0, K).
      label_smoothing: share epsilon in [0, 1) of the label's probability that is spread over all K classes; the
        logits must then be finite.
      task: the task; other tasks than classification have their own loss.

    Returns:
      (B,) losses in nats, float32 or wider; the caller reduces. An out-of-range label gives NaN under ``jit``.

    Raises:
      ValueError: on wrong ranks or dtypes, fewer than 2 classes, a known label or a smoothing out of range.

    Examples:
      >>> import jax.numpy as jnp
      >>> sufficiency_loss(jnp.array([[0.0, 0.0]]), jnp.array([1])).round(4)
      Array([0.6931], dtype=float32)

    References:
      Towards the Causal Complete Cause of Multi-Modal Representation Learning, arXiv 2407.14058.
      C. Szegedy et al., Rethinking the Inception architecture for computer vision, 2016 (label smoothing).
    """
    return task.loss(logits, labels, label_smoothing=label_smoothing)


@short_help
def necessity_loss(
    counterfactual_logits: Float[Array, "batch classes"],
    labels: Num[Array, "batch ..."],
    *,
    kind: str = "hinge",
    prior: Float[Array, " classes"] | None = None,
    task: Task = CLASSIFICATION,
) -> Float[Array, " batch"]:
    r"""Penalty of the hypothetical-world branch: can the label still be predicted without the causal part?

    .. math::
       \text{hinge:}\ [\log p_{y}(\bar z) + \log K]_+ \qquad
       \text{log:}\ -\log(1 - p_y(\bar z)) \qquad
       \text{kl:}\ KL(\text{prior} \| p(\bar z)) \qquad
       \text{constant:}\ KL(\text{mean}\ p(\bar z) \| p(\bar z))

    ``hinge`` is zero once the label's probability is at most chance, so inverted labels satisfy it: watch the accuracy
    and a probe on z_bar. ``kl`` asks z_bar to carry no information, and drifts to the majority class under imbalance;
    where one class lies amid the others it takes that class away, as z_bar is its place. ``constant`` asks for one
    prediction at every z_bar, whichever it is; its mean has no gradient, so that it moves no bias.

    Args:
      counterfactual_logits: (B, K) logits ``predict(z_bar)``.
      labels: (B,) class ids in [0, K).
      kind: "hinge", "log", "kl" or "constant".
      prior: (K,) training label shares, positive, summing to 1; needed by "kl". For "constant" the mean prediction;
        None: that of these rows.
      task: the task; other tasks than classification have their own penalties.

    Returns:
      (B,) losses in nats, float32 or wider; the caller reduces.

    Raises:
      ValueError: on an unknown kind, "kl" without a prior, or arguments of the wrong shape, dtype or range.

    Examples:
      >>> import jax.numpy as jnp
      >>> losses = necessity_loss(jnp.array([[0.0, 0.0], [0.0, 2.0], [2.0, 0.0]]), jnp.array([1, 1, 1]))
      >>> [round(float(loss), 4) for loss in losses]
      [0.0, 0.5662, 0.0]
    """
    if kind == "constant" and prior is None:
        outputs, labels = task.check(counterfactual_logits, labels)
        rows = jnp.ones(len(outputs), bool)
        prior = task.batch_prior(labels, outputs.shape[1], where=rows)
        prior = task.mean_prediction(outputs, labels, prior, by_rarity=False, where=rows)
    return task.necessity(counterfactual_logits, labels, kind=kind, prior=prior)


@short_help
def c3_risk(
    logits: Float[Array, "batch classes"],
    counterfactual_logits: Float[Array, "batch classes"],
    labels: Num[Array, "batch ..."],
    *,
    where: Where | None = None,
    axis_name: str | None = None,
    task: Task = CLASSIFICATION,
) -> C3Risk:
    r"""Measures the C3 risk with 0/1 losses, and the interval that it implies for C3.

    .. math::
       R_S = P(\arg\max l \neq y), \quad R_N = P(\arg\max \bar l = y), \quad
       \max(0, 1 - R_S - R_N) \le C^3 \le \min(1 - R_S, 1 - R_N)

    argmax has no gradient: this is for reports; train on :func:`sufficiency_loss` and :func:`necessity_loss`. R_N is
    comparable only between runs with equal K, label shares and counterfactual mode.

    Args:
      logits: (B, K) logits of the real-world branch, ``predict(z_c)``.
      counterfactual_logits: (B, K) logits of the hypothetical-world branch, ``predict(z_bar)``.
      labels: (B,) class ids.
      where: (B,) bool, rows that count; None: all.
      axis_name: mapped axis over which the batch is split (``pmap``, ``shard_map``); risks are then global.
      task: the task, which defines when a prediction is correct.

    Returns:
      :class:`C3Risk` of scalars; NaN when no row counts. A row with a non-finite logit is wrong in that branch.

    Raises:
      ValueError: on wrong shapes, dtypes or a known label outside [0, K).

    Examples:
      >>> import jax.numpy as jnp
      >>> correct, wrong = jnp.array([[0.0, 1.0]] * 4), jnp.array([[1.0, 0.0]] * 3 + [[0.0, 1.0]])
      >>> risk = c3_risk(correct, wrong, jnp.array([1, 1, 1, 1]))
      >>> print(risk.sufficiency, risk.necessity, risk.lower, risk.upper, risk.joint)
      0.0 0.25 0.75 0.75 0.75

    References:
      J. Tian, J. Pearl, Probabilities of causation: bounds and identification, 2000.
    """
    logits = promote(check_float("logits", logits, 2))
    rows = check_counts(where, logits.shape[0])
    labels = valid_labels(labels, mask_of(rows), task)
    events = _events(logits, counterfactual_logits, labels, task)
    weights = task.weights(labels)
    sums = [weigh(rows, x if weights is None else x * weights).sum() for x in events]
    counts = global_count(rows, None, sums[0].dtype) if weights is None else weigh(rows, weights).sum()
    return _risk(*global_sum(jnp.stack([counts, *sums]), axis_name))


def risk_events(
    logits: Float[Array, "batch classes"],
    counterfactual_logits: Float[Array, "batch classes"],
    labels: Num[Array, "batch ..."],
    task: Task = CLASSIFICATION,
) -> Float[Array, "batch 3"]:
    """The events of :func:`c3_risk` by row: wrong at z_c, correct at z_bar, correct at z_c and wrong at z_bar.

    Where a row has several labels these are shares of them.
    """
    return jnp.stack(_events(logits, counterfactual_logits, labels, task), axis=1)


def _events(logits: Array, counterfactual_logits: Array, labels: Array, task: Task) -> list[Float[Array, " batch"]]:
    """The columns of :func:`risk_events`; to sum them one by one is less to compile than to join them first."""
    logits, labels = task.check(logits, labels)
    counterfactual_logits, labels = task.check(counterfactual_logits, labels)
    if logits.shape != counterfactual_logits.shape:
        raise ValueError(f"logits have shape {logits.shape}, but counterfactual_logits {counterfactual_logits.shape}.")
    real, hypothetical = task.correct(logits, labels), task.correct(counterfactual_logits, labels)
    events = [x.astype(logits.dtype) for x in (~real, hypothetical, real & ~hypothetical)]
    return [x.mean(-1) if x.ndim == 2 else x for x in events]


def risk_of(
    events: Float[Array, "batch 3"],
    *,
    where: Where,
    weights: Float[Array, " batch"] | None = None,
    axis_name: str | None = None,
) -> C3Risk:
    """The :class:`C3Risk` of events from :func:`risk_events`, with weighted rows."""
    if weights is None:
        count = global_count(where, axis_name, events.dtype)
    else:
        events = events * weights[:, None]
        count = global_sum(weigh(where, weights).sum(), axis_name)
    return _risk(count, *global_sum(weigh(where, events).sum(0), axis_name))


def _risk(
    count: Float[Array, ""], sufficiency: Float[Array, ""], necessity: Float[Array, ""], joint: Float[Array, ""]
) -> C3Risk:
    """The risk from the number of rows and the sums of :func:`risk_events`."""
    # 0/0 = NaN when no row counts: an empty batch has no risk.
    sufficiency, necessity, joint = sufficiency / count, necessity / count, joint / count
    total = sufficiency + necessity
    return C3Risk(
        sufficiency=sufficiency,
        necessity=necessity,
        total=total,
        lower=jnp.maximum(0, 1 - total),
        upper=jnp.minimum(1 - sufficiency, 1 - necessity),
        joint=joint,
    )
