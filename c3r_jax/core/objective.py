"""The C3R objective: one function from features to a loss, for any model in any JAX library."""

import dataclasses
from collections.abc import Callable
from operator import attrgetter
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Num

from c3r_jax.core.batch import Where, checked_weights, concrete, keep
from c3r_jax.core.batch_checks import (
    check_batch,
    check_kinds,
    checked_evidence,
    checked_present,
    checked_rows,
    without_outer_state,
)
from c3r_jax.core.cap import capped_loss
from c3r_jax.core.config import C3RConfig
from c3r_jax.core.counterfactual import Predict
from c3r_jax.core.gate import cap_of, is_zero
from c3r_jax.core.instruments import Features, Fuse
from c3r_jax.core.mapped_axes import AxisName, checked_axis, has_explicit_axes, with_auto_axes
from c3r_jax.core.moments import Moments
from c3r_jax.core.short_help import short_help
from c3r_jax.core.task_term import Evidence
from c3r_jax.core.tasks.base import Task, valid_labels
from c3r_jax.core.tasks.classification import CLASSIFICATION
from c3r_jax.core.terms import C3RTerms, weighted_terms
from c3r_jax.core.worlds import Fitted


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
    explained: Float[Array, ""] | None = None,
    task: Task = CLASSIFICATION,
) -> tuple[Float[Array, ""], C3RTerms]:
    r"""The C3R objective of one (global) batch, for any encoder, fusion and head.

    .. math::
       L = w_{task}\, CE(\text{predict}(z), y) + \lambda_s S + \lambda_n N + \lambda_v L_v + \lambda_{fe} L_{fe}

    z = fuse(h, present); z_c is the part of it that the other modalities explain; z_bar is z in the hypothetical world
    without it. S is the cross-entropy at z_c, N the necessity loss at z_bar, L_v = 1 - R^2 of the first stage. Encoders
    run once, before this function: differentiate through ``features``.

    Under ``pmap`` and ``shard_map`` differentiate inside and average the gradients over ``axis_name``: that is the
    gradient of the global loss. (With ``check_vma``, its default, ``shard_map`` has summed those of parameters already,
    and averaging changes nothing.)

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
      explained: the explained share of rows that are not trained on, see :func:`c3r_jax.held_out_share`, for the gate.
        None, or NaN under ``jit``: that of the batch, too high once its rows have been learned by heart.
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
    check_kinds(features, config, task)
    if has_explicit_axes(features):
        present = checked_present(present, next(iter(features.values())).shape[0], sorted(features))
        arrays = (features, labels, present, where, weights, key, moments, fitted, evidence, explained)
        return _with_auto_axes(predict, fuse, arrays, config=config, axis_name=axis_name, task=task)
    axis = checked_axis(axis_name)
    features, labels, present, rows = check_batch(features, labels, config, present, where, task)
    if evidence is not None and is_zero(config.expert) and not is_zero(config.strength):
        raise ValueError(
            f"evidence is of {sorted(evidence)}, but C3RConfig.expert is 0, which reads none: expected a share above "
            "0, such as C3RConfig(expert=0.5), or no evidence."
        )
    evidence = None if evidence is None else checked_evidence(evidence, features, rows)
    known = None if explained is None else concrete(explained)
    if explained is not None and (jnp.shape(explained) != () or (known is not None and not 0 <= known <= 1)):
        shown = f"has shape {jnp.shape(explained)}" if known is None else f"is {known}"
        raise ValueError(f"explained {shown}, but one share between 0 and 1 was expected: see held_out_share.")
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
        return weighted_terms(
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
            held_out=explained,
            task=task,
        )

    with without_outer_state():
        if not capped:
            of_task, of_others, found = terms(predict, fuse, features)
            return sum(of_others, of_task), found
        shared = {
            "cap": cap_of(config, attrgetter("explained")),
            "counted": not own_task,
            "axis_name": axis,
            "where": counts,
        }
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
    z = checked_rows("fuse(features, present)", jax.eval_shape(fuse, features, present), len(present))
    checked_rows("predict(z)", jax.eval_shape(predict, z), len(present))
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
        names = ("present", "where", "weights", "key", "moments", "fitted", "evidence", "explained")
        return c3r_loss(
            calls["predict"], calls["fuse"], features, labels, **dict(zip(names, others, strict=True)), **settings
        )

    z = jax.eval_shape(fuse, features, arrays[2])
    calls = {"fuse": (fuse, (features, arrays[2])), "predict": (predict, (z,))}
    return with_auto_axes(run, arrays, calls, num_rows)
