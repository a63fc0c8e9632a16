"""Sufficiency and necessity: measured 0/1 risks with bounds, and per-example surrogate losses for training."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int, Num
from torch import Tensor

from c3r_jax.objective_config import NECESSITY_KINDS
from c3r_jax.torch.batch import Where, check_float, check_where, global_count, promote, weigh
from c3r_jax.torch.classification import CLASSIFICATION
from c3r_jax.torch.processes import Group, global_sum
from c3r_jax.torch.task import Task, valid_labels


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

    sufficiency: Float[Tensor, ""]
    necessity: Float[Tensor, ""]
    total: Float[Tensor, ""]
    lower: Float[Tensor, ""]
    upper: Float[Tensor, ""]
    joint: Float[Tensor, ""]


def sufficiency_loss(
    logits: Float[Tensor, "batch classes"], labels: Int[Tensor, " batch"], *, label_smoothing: float = 0.0
) -> Float[Tensor, " batch"]:
    r"""Cross-entropy of the real-world branch: is the causal part enough to predict the label?

    .. math:: S_i = \log \sum_k e^{l_{ik}} - (1 - \epsilon) l_{i y_i} - \tfrac{\epsilon}{K} \sum_k l_{ik}

    Args:
      logits: (B, K) logits, usually ``predict(z_c)``.
      labels: (B,) class ids in [0, K).
      label_smoothing: share epsilon in [0, 1) of the label's probability that is spread over all K classes; the
        logits must then be finite.

    Returns:
      (B,) losses in nats, float32 or wider; the caller reduces.

    Raises:
      ValueError: on wrong ranks or dtypes, fewer than 2 classes, a label or a smoothing out of range.

    Examples:
      >>> sufficiency_loss(torch.tensor([[0.0, 0.0]]), torch.tensor([1]))
      tensor([0.6931])

    References:
      C. Szegedy et al., Rethinking the Inception architecture for computer vision, 2016 (label smoothing).
    """
    CLASSIFICATION.check_smoothing(label_smoothing)
    return CLASSIFICATION.loss(*CLASSIFICATION.check(logits, labels), label_smoothing)


def necessity_loss(
    counterfactual_logits: Float[Tensor, "batch classes"],
    labels: Int[Tensor, " batch"],
    *,
    kind: str = "hinge",
    prior: Float[Tensor, " classes"] | None = None,
) -> Float[Tensor, " batch"]:
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

    Returns:
      (B,) losses in nats, float32 or wider; the caller reduces.

    Raises:
      ValueError: on an unknown kind, "kl" without a prior, or arguments of the wrong shape, dtype or range.

    Examples:
      >>> necessity_loss(torch.tensor([[0.0, 0.0], [0.0, 2.0], [2.0, 0.0]]), torch.tensor([1, 1, 1]))
      tensor([0.0000, 0.5662, 0.0000])
    """
    if kind not in NECESSITY_KINDS:
        raise ValueError(f"necessity kind {kind!r} is unknown: expected one of {', '.join(NECESSITY_KINDS)}.")
    logits, labels = CLASSIFICATION.check(counterfactual_logits, labels)
    if kind in ("hinge", "log"):
        return CLASSIFICATION.necessity(logits, labels, kind)
    if kind == "constant" and prior is None:
        prior = promote(logits).detach().softmax(-1).mean(0)
    if prior is None:
        raise ValueError("necessity kind 'kl' needs prior: the label shares of the training set, shape (K,).")
    prior = CLASSIFICATION.check_prior(torch.as_tensor(prior, device=logits.device), logits.shape[1])
    return CLASSIFICATION.necessity(logits, labels, kind, prior)


def c3_risk(
    logits: Float[Tensor, "batch classes"],
    counterfactual_logits: Float[Tensor, "batch classes"],
    labels: Num[Tensor, "batch ..."],
    *,
    where: Bool[Tensor, " batch"] | None = None,
    group: Group | None = None,
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
      labels: (B,) class ids, or the task's own shape.
      where: (B,) bool, rows that count; None: all.
      group: process group over which the batch is split; risks are then global.
      task: what outputs and labels mean.

    Returns:
      :class:`C3Risk` of scalars; NaN when no row counts. A row with a non-finite logit is wrong in that branch.

    Raises:
      ValueError: on wrong shapes, dtypes or a label outside [0, K).

    Examples:
      >>> correct, wrong = torch.tensor([[0.0, 1.0]] * 4), torch.tensor([[1.0, 0.0]] * 3 + [[0.0, 1.0]])
      >>> [value.item() for value in c3_risk(correct, wrong, torch.tensor([1, 1, 1, 1]))]
      [0.0, 0.25, 0.25, 0.75, 0.75, 0.75]

    References:
      J. Tian, J. Pearl, Probabilities of causation: bounds and identification, 2000.
    """
    logits = check_float("logits", logits, 2)
    where = check_where(where, logits.shape[0], logits.device)
    labels = valid_labels(labels, where, task)
    logits, labels = task.check(logits, labels)
    counterfactual_logits, labels = task.check(counterfactual_logits, labels)
    if logits.shape != counterfactual_logits.shape:
        raise ValueError(
            f"logits have shape {tuple(logits.shape)}, but counterfactual_logits {tuple(counterfactual_logits.shape)}."
        )
    return risk_of(logits, counterfactual_logits, labels, where=where, group=group, task=task)


def risk_of(
    logits: Float[Tensor, "batch classes"],
    counterfactual_logits: Float[Tensor, "batch classes"],
    labels: Num[Tensor, "batch ..."],
    *,
    where: Where,
    group: Group | None,
    task: Task,
) -> C3Risk:
    """:func:`c3_risk` of arguments that were checked."""
    logits = promote(logits)
    real = task.correct(logits, labels)
    hypothetical = task.correct(counterfactual_logits, labels)
    events = torch.stack([~real, hypothetical, real & ~hypothetical], dim=1).to(logits.dtype)
    events = events.mean(-1) if events.ndim == 3 else events  # of a row with several labels, shares of them
    # 0/0 = NaN when no row counts: an empty batch has no risk.
    shares = global_sum(weigh(where, events).sum(0), group) / global_count(where, group, events.dtype)
    sufficiency, necessity, joint = shares.unbind()
    total = sufficiency + necessity
    return C3Risk(
        sufficiency=sufficiency,
        necessity=necessity,
        total=total,
        lower=(1 - total).clamp(min=0),
        upper=torch.minimum(1 - sufficiency, 1 - necessity),
        joint=joint,
    )
