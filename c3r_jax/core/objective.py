"""The C3R objective: one function from features to a loss, for any model in any JAX library."""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Num

from c3r_jax.core.batch import Where, check_float, checked_weights, global_count, keep, mask_of, weighted_means
from c3r_jax.core.batch_checks import check_batch, checked_evidence, checked_present, without_outer_state
from c3r_jax.core.cap import Cap, capped_loss
from c3r_jax.core.config import C3RConfig
from c3r_jax.core.counterfactual import Predict, closeness
from c3r_jax.core.expert import Expert
from c3r_jax.core.first_stage import FirstStage
from c3r_jax.core.gate import explained_share, is_zero, weights_of
from c3r_jax.core.instruments import Features, Fuse
from c3r_jax.core.mapped_axes import AxisName, checked_axis, has_explicit_axes, with_auto_axes
from c3r_jax.core.moments import Moments
from c3r_jax.core.risk import C3Risk, c3_risk
from c3r_jax.core.short_help import short_help
from c3r_jax.core.task_term import Evidence, outputs_alone, task_term
from c3r_jax.core.tasks.base import Task, valid_labels
from c3r_jax.core.tasks.classification import CLASSIFICATION
from c3r_jax.core.worlds import Fitted, hypothetical_representation, real_world


class C3RTerms(NamedTuple):
    """The terms of :func:`c3r_loss` before weighting (scalars of the global batch).

    Attributes:
      task, sufficiency, necessity, relevance, closeness: the loss terms, in nats where they are entropies.
      risk: 0/1 :class:`C3Risk` of predict(z_c) and predict(z_bar).
      label_probability: mean p_y(z_bar); near 0 with a small necessity loss, it means that labels are inverted.
      logits: (B, K) predict(z).
      z, z_c, z_bar: (B, d).
      first_stage: {name: :class:`FirstStage`} for "two_stage", else None.
      moments: :class:`Moments` of this batch, to accumulate; None without an instrument.
      experts: {name: :class:`Expert`} of the task term; None without experts, or where their evidence was given.
      explained: share of what z predicts that z_c predicts too, :func:`explained_share`; None where no gate, subsets or
        experts need it.
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


@short_help
def c3r_loss(
    predict: Predict,
    fuse: Fuse,
    features: Features,
    labels: Num[Array, "batch ..."],
    *,
    config: C3RConfig = C3RConfig(),
    present: Bool[Array, "batch modalities"] | None = None,
    where: Bool[Array, " batch"] | None = None,
    weights: Num[Array, " batch"] | None = None,
    axis_name: AxisName = None,
    key: Array | None = None,
    moments: Moments | None = None,
    fitted: Fitted | None = None,
    evidence: Evidence | None = None,
    task: Task = CLASSIFICATION,
) -> tuple[Float[Array, ""], C3RTerms]:
    r"""The C3R objective of one (global) batch, for any encoder, fusion and head.

    .. math::
       L = w_{task}\, CE(\text{predict}(z), y) + \lambda_s S + \lambda_n N + \lambda_v L_v + \lambda_{fe} L_{fe}

    z = fuse(h, present); z_c is the part of it that the other modalities explain; z_bar is z in the hypothetical world
    without it. S is the cross-entropy at z_c, N the necessity loss at z_bar, L_v = 1 - R^2 of the first stage. Encoders
    run once, before this function: differentiate through ``features``.

    Under ``pmap`` (or ``shard_map`` with ``check_vma=False``) differentiate inside and average the gradients over
    ``axis_name``: that is the gradient of the global loss.

    Args:
      predict: z (B, d) -> logits (B, K).
      fuse: ({name: (B, d_name)}, present (B, M)) -> z (B, d); reads only present modalities.
      features: {name: (B, d_name)} per-modality representations, at least two for "two_stage" and "attention". Their
        widths may differ where ``fuse`` takes them so.
      labels: (B,) class ids, or the task's own shape.
      config: weights and modes.
      present: (B, M) bool, columns in the sorted order of the names (the order of a dict's keys in JAX); values of
        absent features have no effect.
      where: (B,) bool, rows that count.
      weights: (B,) numbers >= 0, how often each row counts in every mean, share, moment and expert: 2 is the row twice,
        0 is ``where=False``. Class weights are ``table[labels]``. Keep their mean near 1, for they are numbers of rows.
        Which rows "permute" draws does not depend on them.
      axis_name: mapped axis over which the batch is split; () under ``pmap`` where each device has its own batch.
      key: PRNG key (the same on every device) for counterfactual "permute".
      moments: accumulated :class:`Moments` of earlier batches, pooled with this batch's for the first stage (small
        batches); the gradient goes through this batch only.
      fitted: the result of :func:`real_world` for these rows, where several losses share it.
      evidence: {name: (B, K)} of experts of these rows that were computed on all training rows, see
        :func:`c3r_jax.experts_of_rows`; None: experts are computed from the batch.
      task: the task; its loss replaces the cross-entropy, and its necessity and correctness are used.

    Returns:
      The loss and :class:`C3RTerms`.

    Raises:
      ValueError: on fewer than two modalities with an instrument, too few rows for the first stage, or arguments of
        the wrong shape, dtype or range, or no axis under ``pmap`` or ``shard_map``.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> h = {"image": jax.random.normal(jax.random.key(0), (64, 4))}
      >>> h["text"] = h["image"] + 0.1 * jax.random.normal(jax.random.key(1), (64, 4))
      >>> labels = (h["image"][:, 0] > 0).astype(int)
      >>> fuse = lambda h, present: (h["image"] + h["text"]) / 2
      >>> predict = lambda z: jnp.stack([-z[:, 0], z[:, 0]], axis=1)
      >>> loss, terms = jax.jit(lambda h: c3r_loss(predict, fuse, h, labels))(h)  # not compiled, it is slow
      >>> bool(loss > 0), bool(terms.relevance < 0.1)
      (True, True)

    References:
      Towards the Causal Complete Cause of Multi-Modal Representation Learning, arXiv 2407.14058.
    """
    if has_explicit_axes(features):
        present = checked_present(present, next(iter(features.values())).shape[0], sorted(features))
        arrays = (features, labels, present, where, weights, key, moments, fitted, evidence)
        return _with_auto_axes(predict, fuse, arrays, config=config, axis_name=axis_name, task=task)
    axis = checked_axis(axis_name)
    features, labels, present, rows = check_batch(features, labels, config, present, where, task)
    evidence = None if evidence is None else checked_evidence(evidence, features, rows)
    counts: Where = rows
    if weights is not None:
        counts = checked_weights(weights, rows)
        where = rows = counts.rows  # as far as rows are counted before tracing
        features = {name: keep(rows, h) for name, h in features.items()}
        labels = valid_labels(labels, rows, task)

    capped, own_task = not any(is_zero(x) for x in (config.cap, config.strength)), is_zero(config.w_task)
    # Where the task's loss is the caller's own, the task term still says how long the others' gradient may be.
    measured = dataclasses.replace(config, w_task=1.0) if capped and own_task else config

    def terms(predict: Predict, fuse: Fuse, features: dict[str, Array]) -> tuple[Array, list[Array], C3RTerms]:
        return _terms(
            predict,
            fuse,
            features,
            labels,
            present,
            counts,
            config=measured,
            where=where,
            axis_name=axis,
            key=key,
            earlier=moments,
            fitted=fitted,
            evidence=evidence,
            task=task,
        )

    with without_outer_state():
        if not capped:
            of_task, of_others, found = terms(predict, fuse, features)
            return sum(of_others, of_task), found
        shared = {"cap": config.cap, "counted": not own_task, "axis_name": axis, "where": counts}
        loss, found = _capped(predict, fuse, features, present, terms, **shared)
        if own_task:  # which is made of these as often as not
            z = fuse(features, present)
            found = found._replace(z=z, logits=predict(z))
        return loss, found


def _capped(
    predict: Predict,
    fuse: Fuse,
    features: dict[str, Array],
    present: Array,
    terms: Callable[..., tuple[Array, list[Array], C3RTerms]],
    **settings: Any,
) -> tuple[Float[Array, ""], C3RTerms]:
    """The sum of the terms, the gradient of all but the task's within the cap; settings of :func:`capped_loss`."""
    # What the two functions close over, such as the head's parameters, becomes an argument that can be differentiated.
    # The lambdas matter: jax.closure_convert hashes its function, and callable objects that hold arrays have no hash.
    fuse_of, of_fusion = jax.closure_convert(lambda h, mask: fuse(h, mask), features, present)
    z = jax.eval_shape(fuse, features, present)
    predict_of, of_head = jax.closure_convert(lambda z: predict(z), z)

    def losses(features: dict[str, Array], shared: tuple[Any, Any]) -> tuple[tuple[Array, Array], C3RTerms]:
        of_fusion, of_head = shared
        of_task, of_others, measured = terms(
            lambda z: predict_of(z, *of_head), lambda h, mask: fuse_of(h, mask, *of_fusion), features
        )
        return (of_task, sum(of_others, jnp.zeros_like(of_task))), measured

    loss, found, measured = capped_loss(losses, features, (of_fusion, of_head), **settings)
    return loss, measured._replace(cap=found)


def _with_auto_axes(predict: Predict, fuse: Fuse, arrays: tuple[Any, ...], **settings: Any) -> Any:
    """:func:`c3r_loss` where shardings are types (a mesh with Explicit axes): only the two functions see them."""
    features = arrays[0]
    num_rows = next(iter(features.values())).shape[0]

    def run(arrays: tuple[Any, ...], calls: dict[str, Any]) -> Any:
        features, labels, *others = arrays
        names = ("present", "where", "weights", "key", "moments", "fitted", "evidence")
        return c3r_loss(
            calls["predict"], calls["fuse"], features, labels, **dict(zip(names, others, strict=True)), **settings
        )

    z = jax.eval_shape(fuse, features, arrays[2])
    calls = {"fuse": (fuse, (features, arrays[2])), "predict": (predict, (z,))}
    return with_auto_axes(run, arrays, calls, num_rows)


def _terms(
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
    task: Task,
) -> tuple[Float[Array, ""], list[Array], C3RTerms]:
    """The weighted task term, the other weighted terms, and all of them alone before their weights."""
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
    prior = None if config.prior is None else jnp.asarray(config.prior)
    relative = bool(config.gate or config.subsets or not is_zero(config.expert))  # to what a constant prediction says
    if prior is None and (relative or config.necessity == "kl"):
        prior = task.batch_prior(labels, logits.shape[1], where=rows, axis_name=axis_name)
    causal_losses, explained = loss(causal_logits, labels), None
    outputs = [logits]
    if relative:
        assert prior is not None  # for type checkers
        constant = task.constant(prior, global_count(rows, axis_name, prior.dtype))
        if config.subsets and not is_zero(config.strength):
            masks: dict[str, Any] = {"where": rows, "axis_name": axis_name, "task": task}
            outputs += [*outputs_alone(predict, fuse, features, logits, present, constant, **masks)]
        outputs.append(jax.lax.stop_gradient(jnp.broadcast_to(constant.astype(logits.dtype), logits.shape)))
    of_outputs = _counted(config.w_task, _losses_of(loss, outputs, labels, task.at_once))
    subsets = len(outputs) - relative
    if relative:
        compared = jax.lax.stop_gradient((of_outputs[0], causal_losses, of_outputs[subsets]))
        explained = explained_share(*weighted_means(compared, rows, weights, axis_name))
    by = weights_of(config, explained)
    own = {"outputs": jnp.stack(outputs[:subsets]), "losses": of_outputs[:subsets]}
    term = task_term(
        **own, features=features, labels=labels, present=present, expert=by.expert, evidence=evidence, **shared
    )
    losses = (
        _counted(by.sufficiency, causal_losses),
        _counted(by.necessity, _necessity(hypothetical_logits, labels, prior, config, task)),
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
        (by.relevance, relevance),
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
            relevance=relevance,
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


def _losses_of(
    loss: Callable[[Array, Array], Array], outputs: list[Array], labels: Array, at_once: bool
) -> Float[Array, "outputs batch"]:
    """The losses of several outputs (B, K), as one program where the task allows: a part of the kernels to compile."""
    if at_once:
        return jax.vmap(loss, (0, None))(jnp.stack(outputs), labels)
    return jnp.stack([loss(x, labels) for x in outputs])


def _necessity(
    outputs: Array, labels: Array, prior: Array | None, config: C3RConfig, task: Task
) -> Float[Array, " batch"]:
    """The penalty of each row; with the gate, rows of rare classes count less."""
    losses = task.necessity(outputs, labels, kind=config.necessity, prior=prior)
    rarity = task.rarity(labels, prior) if config.gate and prior is not None else None
    return losses if rarity is None else rarity.astype(losses.dtype) * losses


def _by_name(features: Mapping[str, Array], counts: Array) -> dict[str, Array]:
    """{name: its number of rows}, from one number for all modalities or one for each."""
    return dict(zip(features, jnp.broadcast_to(counts, (len(features),)), strict=True))


def _counted(weight: Any, values: Array) -> Array:
    """Per-example values, as constants where their weight is 0."""
    return jax.lax.stop_gradient(values) if is_zero(weight) else values
