"""The C3R objective: one function from features to a loss, for any model in any JAX library."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Num

from c3r_jax.core.batch import check_float, check_where, global_mean, keep, promote, static_rows, weighted_mean
from c3r_jax.core.cap import Cap, capped_loss
from c3r_jax.core.config import C3RConfig
from c3r_jax.core.counterfactual import Predict, closeness, counterfactual
from c3r_jax.core.expert import Expert
from c3r_jax.core.first_stage import FirstStage, check_rows
from c3r_jax.core.instruments import (
    Features,
    Fuse,
    RealWorld,
    causal_representation,
    instrument_moments,
    moments_width,
    relevance_loss,
)
from c3r_jax.core.moments import Moments, merge_moments
from c3r_jax.core.risk import C3Risk, c3_risk
from c3r_jax.core.task_term import task_term
from c3r_jax.core.tasks.base import Task, valid_labels
from c3r_jax.core.tasks.classification import CLASSIFICATION

Fitted = tuple[RealWorld, Float[Array, ""], Moments | None]  # z_c, L_v and the batch's moments


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
      experts: {name: :class:`Expert`} of the task term; None without experts.
      cap: :class:`Cap`, how strong the other terms' gradient was; None without a cap. With a cap only the loss can be
        differentiated: these terms are then constants.
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
    cap: Cap | None = None


def c3r_loss(
    predict: Predict,
    fuse: Fuse,
    features: Features,
    labels: Num[Array, "batch ..."],
    *,
    config: C3RConfig = C3RConfig(),
    present: Bool[Array, "batch modalities"] | None = None,
    where: Bool[Array, " batch"] | None = None,
    axis_name: str | None = None,
    key: Array | None = None,
    moments: Moments | None = None,
    fitted: Fitted | None = None,
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
      features: {name: (B, d_name)} per-modality representations, at least two for "two_stage" and "attention".
      labels: (B,) class ids, or the task's own shape.
      config: weights and modes.
      present: (B, M) bool, columns in the sorted order of the names (the order of a dict's keys in JAX); values of
        absent features have no effect.
      where: (B,) bool, rows that count.
      axis_name: mapped axis over which the batch is split.
      key: PRNG key (the same on every device) for counterfactual "permute".
      moments: accumulated :class:`Moments` of earlier batches, pooled with this batch's for the first stage (small
        batches); the gradient goes through this batch only.
      fitted: the result of :func:`real_world` for these rows, where several losses share it.
      task: the task; its loss replaces the cross-entropy, and its necessity and correctness are used.

    Returns:
      The loss and :class:`C3RTerms`.

    Raises:
      ValueError: on fewer than two modalities with an instrument, too few rows for the first stage, or arguments of
        the wrong shape, dtype or range.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> h = {"image": jax.random.normal(jax.random.key(0), (64, 4))}
      >>> h["text"] = h["image"] + 0.1 * jax.random.normal(jax.random.key(1), (64, 4))
      >>> labels = (h["image"][:, 0] > 0).astype(int)
      >>> fuse = lambda h, present: (h["image"] + h["text"]) / 2
      >>> predict = lambda z: jnp.stack([-z[:, 0], z[:, 0]], axis=1)
      >>> loss, terms = c3r_loss(predict, fuse, h, labels)
      >>> bool(loss > 0), bool(terms.relevance < 0.1)
      (True, True)

    References:
      Towards the Causal Complete Cause of Multi-Modal Representation Learning, arXiv 2407.14058.
    """
    features, labels, present, rows = _check_batch(features, labels, config, present, where, task)

    def terms(predict: Predict, fuse: Fuse, features: dict[str, Array]) -> tuple[Array, list[Array], C3RTerms]:
        return _terms(
            predict,
            fuse,
            features,
            labels,
            present,
            rows,
            config=config,
            where=where,
            axis_name=axis_name,
            key=key,
            earlier=moments,
            fitted=fitted,
            task=task,
        )

    if _is_zero(config.cap) or _is_zero(config.w_task):  # without a task term there is nothing to be relative to
        of_task, of_others, measured = terms(predict, fuse, features)
        return sum(of_others, of_task), measured
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

    loss, cap, measured = capped_loss(losses, features, (of_fusion, of_head), cap=config.cap, axis_name=axis_name)
    return loss, measured._replace(cap=cap)


def _terms(
    predict: Predict,
    fuse: Fuse,
    features: dict[str, Array],
    labels: Num[Array, "batch ..."],
    present: Bool[Array, "batch modalities"],
    rows: Bool[Array, " batch"],
    *,
    config: C3RConfig,
    where: Bool[Array, " batch"] | None,
    axis_name: str | None,
    key: Array | None,
    earlier: Moments | None,
    fitted: Fitted | None,
    task: Task,
) -> tuple[Float[Array, ""], list[Array], C3RTerms]:
    """The weighted task term, the other weighted terms, and all of them alone before their weights."""
    z = check_float("fuse(features, present)", fuse(features, present), 2)
    real, relevance, batch = fitted or real_world(fuse, features, z, config, present, rows, where, axis_name, earlier)
    shared: dict[str, Any] = {"config": config, "where": rows, "axis_name": axis_name, "task": task}
    z_bar = hypothetical_representation(predict, fuse, features, z, labels, real, present, key=key, **shared)
    term = task_term(predict, fuse, features, z, labels, present, **shared)
    causal_logits, hypothetical_logits = predict(real.z_c), predict(z_bar)
    prior = None if config.prior is None else jnp.asarray(config.prior)
    if prior is None and config.necessity == "kl":
        prior = task.batch_prior(labels, term.logits.shape[1], where=rows, axis_name=axis_name)
    losses = jnp.stack(
        [
            _counted(config.w_task, term.losses),
            _counted(config.lambda_s, task.loss(causal_logits, labels, label_smoothing=config.label_smoothing)),
            _counted(config.lambda_n, task.necessity(hypothetical_logits, labels, kind=config.necessity, prior=prior)),
            _counted(0, task.probability(hypothetical_logits, labels)),
        ],
        axis=1,
    )
    means = weighted_mean(losses, rows, task.weights(labels), axis_name)
    task_loss, sufficiency, necessity, label_probability = means
    close = closeness(z, z_bar, rows, axis_name)
    stages = None
    if real.stages is not None and real.h_hat is not None:
        stages = {name: stage._replace(fitted=real.h_hat[name]) for name, stage in real.stages.items()}
    others = (
        (config.lambda_s, sufficiency),
        (config.lambda_n, necessity),
        (config.lambda_v, relevance),
        (config.lambda_fe, close),
    )
    nothing = jnp.zeros((), task_loss.dtype)
    # A term that is switched off is reported, but not even a NaN in it reaches the loss or (see _counted) a gradient.
    of_task = nothing if _is_zero(config.w_task) else config.w_task * task_loss
    of_others = [weight * value for weight, value in others if not _is_zero(weight)]
    return (
        of_task,
        of_others,
        C3RTerms(
            task=task_loss,
            sufficiency=sufficiency,
            necessity=necessity,
            relevance=relevance,
            closeness=close,
            risk=c3_risk(causal_logits, hypothetical_logits, labels, where=rows, axis_name=axis_name, task=task),
            label_probability=label_probability,
            logits=term.logits,
            z=z,
            z_c=real.z_c,
            z_bar=z_bar,
            first_stage=stages,
            moments=batch,
            experts=term.experts,
        ),
    )


def hypothetical_representation(
    predict: Predict,
    fuse: Fuse,
    features: Features,
    z: Float[Array, "batch features"],
    labels: Num[Array, "batch ..."],
    real: RealWorld,
    present: Bool[Array, "batch modalities"],
    *,
    config: C3RConfig,
    where: Bool[Array, " batch"],
    axis_name: str | None = None,
    key: Array | None = None,
    block_rows: int | None = None,
    task: Task = CLASSIFICATION,
) -> Float[Array, "batch features"]:
    """z_bar (B, d) from the configured counterfactual, given z_c; used in training and evaluation."""
    if config.through_fuse:
        assert real.h_hat is not None  # C3RConfig allows it only with a first stage
        return jnp.where(where[:, None], _neutral(fuse, features, real.h_hat, present, where, axis_name), z)
    return counterfactual(
        predict,
        z,
        labels,
        mode=config.counterfactual,
        step_size=config.step_size,
        num_steps=config.num_steps,
        z_c=None if config.instrument == "none" else real.z_c,
        where=where,
        axis_name=axis_name,
        key=key,
        block_rows=block_rows,
        task=task,
    )


def _is_zero(weight: Any) -> bool:
    return not isinstance(weight, Tracer) and weight == 0


def _counted(weight: Any, losses: Array) -> Array:
    """Per-example losses, as constants where their weight is 0."""
    return jax.lax.stop_gradient(losses) if _is_zero(weight) else losses


def _check_batch(
    features: Any, labels: Any, config: C3RConfig, present: Any, where: Any, task: Task
) -> tuple[dict[str, Array], Array, Array, Array]:
    """Checks the arguments, and zeroes absent or excluded values, so that they reach no sum and no gradient."""
    if not isinstance(features, Mapping) or not features:
        raise ValueError(f"features are {type(features).__name__}, but a non-empty dict of (B, d) arrays was expected.")
    # jit and grad rebuild a dict in sorted order: only that order is the same with and without them.
    features = {name: check_float(f"features[{name!r}]", features[name], 2) for name in sorted(features)}
    shapes = {name: h.shape for name, h in features.items()}
    num_examples = next(iter(shapes.values()))[0]
    if len({shape[0] for shape in shapes.values()}) != 1:
        raise ValueError(f"features have shapes {shapes}: every modality must have the same number of rows.")
    if len(features) < 2 and config.instrument != "none":
        raise ValueError(
            f"instrument {config.instrument!r} needs at least 2 modalities, but only {list(features)} was given: one "
            "modality has no other to serve as its instrument; add one, or use C3RConfig(instrument='none')."
        )
    if present is None:
        present = jnp.ones((num_examples, len(features)), bool)
    present = jnp.asarray(present)
    if present.shape != (num_examples, len(features)) or present.dtype != bool:
        raise ValueError(
            f"present has shape {present.shape} and dtype {present.dtype}, but {(num_examples, len(features))} and "
            f"bool were expected: one column for each of {list(features)}."
        )
    rows = check_where(where, num_examples)
    labels = valid_labels(labels, rows, task)
    features = {name: keep(rows & present[:, m], h) for m, (name, h) in enumerate(features.items())}
    return features, labels, present, rows


def real_world(
    fuse: Fuse,
    features: Features,
    z: Float[Array, "batch features"],
    config: C3RConfig,
    present: Bool[Array, "batch modalities"],
    rows: Bool[Array, " batch"],
    where: Bool[Array, " batch"] | None,
    axis_name: str | None = None,
    earlier: Moments | None = None,
) -> Fitted:
    """Computes z_c with the configured instrument, L_v and the batch's moments."""
    if config.instrument == "none":
        return RealWorld(z), jnp.zeros((), promote(z).dtype), None
    if earlier is None and config.instrument == "two_stage":
        widths = {name: h.shape[1] for name, h in features.items()}
        check_rows(static_rows(z.shape[0], where, axis_name), moments_width(config, widths) - min(widths.values()))
    batch = instrument_moments(features, z, present, config=config, where=rows, axis_name=axis_name)
    pooled = batch if earlier is None else merge_moments(jax.lax.stop_gradient(earlier), batch)
    real = causal_representation(fuse, features, present, pooled, config=config)
    loss = relevance_loss(real, features, z, present, pooled.count, config=config, where=rows, axis_name=axis_name)
    return real, loss, jax.lax.stop_gradient(batch)


def _neutral(
    fuse: Fuse, features: Features, h_hat: Features, present: Array, rows: Array, axis_name: str | None
) -> Array:
    """fuse(h - h_hat + mean(h_hat)): do(causal part := its mean) where fuse is not affine."""
    means = {name: global_mean(promote(value), rows, axis_name) for name, value in h_hat.items()}
    return fuse({name: h - h_hat[name] + means[name].astype(h.dtype)[None, :] for name, h in features.items()}, present)
