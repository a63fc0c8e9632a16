"""The terms of the C3R objective on one batch, each before and after its weight."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Num

from c3r_jax.core.alone import AloneOutputs, outputs_alone
from c3r_jax.core.batch import Where, check_float, global_count, mask_of, weighted_means
from c3r_jax.core.cap import Cap
from c3r_jax.core.config import C3RConfig
from c3r_jax.core.counterfactual import Predict, closeness
from c3r_jax.core.expert import Expert
from c3r_jax.core.explained import explained_outputs
from c3r_jax.core.first_stage import FirstStage
from c3r_jax.core.gate import is_zero, weights_of
from c3r_jax.core.instruments import Fuse
from c3r_jax.core.moments import Moments
from c3r_jax.core.risk import C3Risk, c3_risk
from c3r_jax.core.task_term import Evidence, task_term
from c3r_jax.core.tasks.base import Task
from c3r_jax.core.worlds import Fitted, hypothetical_representation, real_world


class C3RTerms(NamedTuple):
    """The terms of :func:`c3r_jax.c3r_loss` before weighting (scalars of the global batch).

    Attributes:
      task, sufficiency, necessity, relevance, closeness: the loss terms, in nats where they are entropies.
      risk: 0/1 :class:`C3Risk` of predict(z_c) and predict(z_bar).
      label_probability: mean p_y(z_bar); near 0 with a small necessity loss, it means that labels are inverted.
      logits: (B, K) predict(z).
      z, z_c, z_bar: (B, d).
      first_stage: {name: :class:`FirstStage`} for "two_stage", else None.
      moments: :class:`Moments` of this batch, to accumulate; None without an instrument.
      experts: {name: :class:`Expert`} of the task term; None without experts, or where their evidence was given.
      explained: the explained share that was given, or that of the batch: of what z predicts, the share that z_c
        predicts too, :func:`explained_share`, and with subsets at most :func:`explained_alone` and
        :func:`repeated_share`. None where no gate, subsets or experts need it.
      rows: {name: number of rows of this batch in the modality's first stage}; None without an instrument.
      cap: :class:`Cap`, how strong the other terms' gradient was; None without a cap. With a cap only the loss can be
        differentiated: these terms are then constants.
      invalid_labels: number of rows whose label is outside [0, K), each of which makes the loss NaN; None where the
        task has no such labels. Outside of ``jit`` they are refused.
    """

    task: Float[Array, ""]
    sufficiency: Float[Array, ""]
    necessity: Float[Array, ""]
    relevance: Float[Array, ""]
    closeness: Float[Array, ""]
    risk: C3Risk
    label_probability: Float[Array, ""]
    logits: Float[Array, "batch classes"]
    z: Float[Array, "batch features"]
    z_c: Float[Array, "batch features"]
    z_bar: Float[Array, "batch features"]
    first_stage: dict[str, FirstStage] | None
    moments: Moments | None
    experts: dict[str, Expert] | None = None
    explained: Float[Array, ""] | None = None
    rows: dict[str, Float[Array, ""]] | None = None
    cap: Cap | None = None
    invalid_labels: Float[Array, ""] | None = None


def weighted_terms(
    predict: Predict,
    fuse: Fuse,
    features: dict[str, Array],
    labels: Num[Array, "batch ..."],
    present: Bool[Array, "batch modalities"],
    rows: Where,
    *,
    config: C3RConfig,
    where: Bool[Array, " batch"] | None,
    axis_name: str | None,
    key: Array | None,
    earlier: Moments | None,
    fitted: Fitted | None,
    evidence: Evidence | None,
    held_out: Float[Array, ""] | None,
    task: Task,
) -> tuple[Float[Array, ""], list[Array], C3RTerms]:
    """The weighted task term, the other weighted terms, and all of them alone before their weights.

    Args:
      predict: z (B, d) -> outputs (B, K).
      fuse: ({name: (B, d_name)}, present (B, M)) -> z (B, d).
      features: {name: (B, d_name)}, zero where absent or excluded.
      labels: (B, ...).
      present: (B, M) bool.
      rows: (B,) bool rows that count, or how often each does.
      config: weights and modes.
      where: the rows that count as far as they are known before tracing, for messages; None: all.
      axis_name: mapped axis over which the batch is split.
      key: PRNG key for counterfactual "permute".
      earlier: accumulated :class:`Moments` of earlier batches.
      fitted: the result of :func:`real_world`, where several losses share it.
      evidence: the experts of these rows, where they are known.
      held_out: the explained share of rows that are not trained on; None or NaN: that of the batch.
      task: what outputs and labels mean.

    Returns:
      w_task times the task term, the weighted terms of those that are switched on, and :class:`C3RTerms`.
    """
    z = check_float("fuse(features, present)", fuse(features, present), 2)
    real, relevance, batch = fitted or real_world(fuse, features, z, config, present, rows, where, axis_name, earlier)
    shared: dict[str, Any] = {"config": config, "where": rows, "axis_name": axis_name, "task": task}
    z_bar = hypothetical_representation(predict, fuse, features, z, labels, real, present, key=key, **shared)
    fixed = weights_of(config, None)  # those that are 0 without a gate are 0 with it
    # z apart from the others, here and below: where the two parts are differentiated one by one, the slope of the task
    # would else go through all of the first stage, as zeros that no compiler sees.
    logits = predict(z)
    causal_logits = _counted(fixed.sufficiency, predict(real.z_c))
    hypothetical_logits = _counted(fixed.necessity, predict(z_bar))
    weights, loss = task.weights(labels), partial(task.loss, label_smoothing=config.label_smoothing)
    prior = _prior(labels, logits, rows, config, axis_name, task)
    causal_losses = loss(causal_logits, labels)
    constant, beside = _outputs_beside(
        predict, fuse, features, real.h_hat, logits, labels, present, prior, rows, config, axis_name, task
    )
    outputs = logits[None] if beside is None else jnp.concatenate([logits[None], beside.outputs])
    of_outputs = _counted(config.w_task, _losses_of(loss, outputs, labels, task.at_once))
    explained, alone = None, None if beside is None else beside.additivity
    if constant is not None:
        explained = explained_outputs(
            logits,
            causal_logits,
            None if beside is None else beside.compared,
            None if beside is None else beside.explained,
            constant,
            labels,
            present,
            label_smoothing=config.label_smoothing,
            where=rows,
            axis_name=axis_name,
            task=task,
        )
        if held_out is not None:
            measured = jax.lax.stop_gradient(jnp.asarray(held_out, explained.dtype))
            explained = jnp.where(jnp.isnan(measured), explained, jnp.clip(measured, 0, 1))
        alone = alone * explained if alone is not None and config.gate else alone
    by = weights_of(config, explained)
    own = {"outputs": outputs, "losses": of_outputs, "alone": alone}
    term = task_term(
        **own, features=features, labels=labels, present=present, expert=by.expert, evidence=evidence, **shared
    )
    losses = (
        _counted(by.sufficiency, causal_losses),
        _counted(by.necessity, _necessity(hypothetical_logits, labels, prior, rows, config, axis_name, task)),
        _counted(0, task.probability(hypothetical_logits, labels)),
    )
    (task_loss,) = weighted_means([_counted(config.w_task, term.losses)], rows, weights, axis_name)
    sufficiency, necessity, label_probability = weighted_means(losses, rows, weights, axis_name)
    close = closeness(z, z_bar, rows, axis_name)
    wrong = task.out_of_range(labels, logits.shape[1])
    stages = None
    if real.stages is not None and real.h_hat is not None:
        stages = {name: stage._replace(fitted=real.h_hat[name]) for name, stage in real.stages.items()}
    others = (
        (by.sufficiency, sufficiency),
        (by.necessity, necessity),
        (by.relevance, relevance.supported if config.gate else relevance.measured),
        (by.closeness, close),
    )
    nothing = jnp.zeros((), task_loss.dtype)
    # A term that is switched off is reported, but not even a NaN in it reaches the loss or (see _counted) a gradient.
    of_task = nothing if is_zero(config.w_task) else config.w_task * task_loss
    weighted = [weight * value for weight, value in others if not is_zero(weight)]
    return (
        of_task,
        weighted,
        C3RTerms(
            task=task_loss,
            sufficiency=sufficiency,
            necessity=necessity,
            relevance=relevance.measured,
            closeness=close,
            risk=c3_risk(causal_logits, hypothetical_logits, labels, where=rows, axis_name=axis_name, task=task),
            label_probability=label_probability,
            logits=logits,
            z=z,
            z_c=real.z_c,
            z_bar=z_bar,
            first_stage=stages,
            moments=batch,
            experts=term.experts,
            explained=explained,
            rows=None if batch is None else _by_name(features, batch.count),
            invalid_labels=None if wrong is None else global_count(mask_of(rows) & wrong, axis_name, task_loss.dtype),
        ),
    )


def _is_relative(config: C3RConfig) -> bool:
    """Whether anything is compared with what a constant prediction says."""
    return bool(config.gate or config.subsets or not is_zero(config.expert))


def _prior(
    labels: Array, logits: Array, rows: Where, config: C3RConfig, axis_name: str | None, task: Task
) -> Array | None:
    """The configured shares of the classes, or those of the batch; None where nothing needs them."""
    if config.prior is not None:
        task.check_prior(config.prior, logits.shape[1])  # before it is an array: under jit its values are known here
        return jnp.asarray(config.prior)
    if _is_relative(config) or config.necessity in ("kl", "constant"):
        return task.batch_prior(labels, logits.shape[1], where=rows, axis_name=axis_name)
    return None


def _outputs_beside(
    predict: Predict,
    fuse: Fuse,
    features: dict[str, Array],
    h_hat: dict[str, Array] | None,
    logits: Float[Array, "batch classes"],
    labels: Num[Array, "batch ..."],
    present: Bool[Array, "batch modalities"],
    prior: Array | None,
    rows: Where,
    config: C3RConfig,
    axis_name: str | None,
    task: Task,
) -> tuple[Array | None, AloneOutputs | None]:
    """The constant outputs (K,) where anything is compared with them; with subsets those of each modality alone.

    Args:
      predict: z (B, d) -> outputs (B, K).
      fuse: ({name: (B, d_name)}, present (B, M)) -> z (B, d).
      features: {name: (B, d_name)}, zero where absent or excluded.
      h_hat: {name: (B, d_name)} what the others explain of each; None without a first stage.
      logits: (B, K) of all modalities together.
      labels: (B, ...).
      present: (B, M) bool.
      prior: (K,) shares of the classes; None where nothing needs them.
      rows: (B,) rows that count.
      config: weights and modes.
      axis_name: mapped axis over which the batch is split.
      task: what outputs and labels mean.
    """
    if prior is None or not _is_relative(config):
        return None, None
    constant = task.constant(prior, global_count(rows, axis_name, prior.dtype))
    if not config.subsets or is_zero(config.strength):
        return constant, None
    masks: dict[str, Any] = {"where": rows, "axis_name": axis_name, "task": task}
    asked, smoothing = h_hat if config.gate else None, config.label_smoothing
    alone = outputs_alone(
        predict, fuse, features, asked, logits, labels, present, constant, label_smoothing=smoothing, **masks
    )
    return constant, alone


def _losses_of(
    loss: Callable[[Array, Array], Array], outputs: Float[Array, "outputs batch classes"], labels: Array, at_once: bool
) -> Float[Array, "outputs batch"]:
    """The losses of several outputs (B, K), as one program where the task allows: a part of the kernels to compile.

    Unlike with :func:`c3r_jax.core.batch.over`, no loop is differentiated.
    """
    if at_once:
        return jax.vmap(loss, (0, None))(outputs, labels)
    return jnp.stack([loss(x, labels) for x in outputs])


def _necessity(
    outputs: Array,
    labels: Array,
    prior: Array | None,
    rows: Where,
    config: C3RConfig,
    axis_name: str | None,
    task: Task,
) -> Float[Array, " batch"]:
    """The penalty of each row; with the gate, rows of rare classes count less."""
    kind = config.necessity
    if prior is None:  # "hinge" or "log", which need none, without the gate
        return task.necessity(outputs, labels, kind=kind)
    asked = prior
    if kind == "constant":
        how: dict[str, Any] = {"by_rarity": config.gate, "where": rows, "axis_name": axis_name}
        asked = task.mean_prediction(outputs, labels, prior, **how)
    if config.gate:
        return task.necessity_by_rarity(outputs, labels, kind=kind, prior=prior, asked=asked)
    return task.necessity(outputs, labels, kind=kind, prior=asked)


def _by_name(features: Mapping[str, Array], counts: Array) -> dict[str, Array]:
    """{name: its number of rows}, from one number for all modalities or one for each."""
    return dict(zip(features, jnp.broadcast_to(counts, (len(features),)), strict=True))


def _counted(weight: Any, values: Array) -> Array:
    """Per-example values, as constants where their weight is 0."""
    return jax.lax.stop_gradient(values) if is_zero(weight) else values
