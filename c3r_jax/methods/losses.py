"""The loss of a method on an encoded batch: one function per kind of method."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Num, PRNGKeyArray

from c3r_jax.core.batch import global_count, weighted_mean
from c3r_jax.core.contrastive import ContrastiveTerms, contrastive_c3r_loss
from c3r_jax.core.first_stage import FirstStage
from c3r_jax.core.instruments import instrument_moments
from c3r_jax.core.moments import Moments
from c3r_jax.core.objective import c3r_loss
from c3r_jax.core.tasks.base import Task
from c3r_jax.core.terms import C3RTerms
from c3r_jax.methods.encoded_batch import EncodedBatch
from c3r_jax.methods.method import Method
from c3r_jax.methods.official import official_compat_loss
from c3r_jax.methods.rival import RivalTerms
from c3r_jax.models.pair_head import match

INVALID = "invalid_labels"  # the metric: rows of the batch whose label is no class of the model
TERMS = ("task", "sufficiency", "necessity", "relevance", "closeness")

Measured = tuple[dict[str, Array], Moments | None]  # metrics, and the batch's moments where there is an instrument


def method_loss(batch: EncodedBatch, method: Method, key: PRNGKeyArray) -> tuple[Float[Array, ""], Measured]:
    """The loss of a method without its rival's terms; methods without C3R terms do not compute them.

    Args:
      batch: encoded rows of the global batch.
      method: the training method.
      key: PRNG key for random counterfactuals, the same on every device.

    Returns:
      The loss, its metrics and the batch's moments.
    """
    if method.contrastive:
        return _contrastive(batch, method, key)
    if method.official:
        return _official(batch)
    return _c3r(batch, method, key) if method.regularised else _plain(batch, method)


def _plain(batch: EncodedBatch, method: Method) -> tuple[Float[Array, ""], Measured]:
    """The task's loss at z; the instrument is measured but not trained on."""
    target = batch.target
    z = batch.z()
    logits = batch.predict(z)
    columns = jnp.stack([batch.losses(logits), correct_share(target, logits, batch.labels)], axis=1)
    task, accuracy = weighted_mean(columns, batch.where, target.weights(batch.labels), batch.axis_name)
    moments = None
    if method.c3r.instrument != "none":
        frozen = jax.lax.stop_gradient((batch.h, z))
        moments = instrument_moments(*frozen, batch.present, config=method.c3r, **batch.masks)
    metrics = {"task": task, "accuracy": accuracy}
    wrong = target.out_of_range(batch.labels, logits.shape[1])
    if wrong is not None:
        metrics[INVALID] = global_count(batch.where & wrong, batch.axis_name, task.dtype)
    return task, (metrics, moments)


def _c3r(batch: EncodedBatch, method: Method, key: PRNGKeyArray) -> tuple[Float[Array, ""], Measured]:
    """C3R's objective."""
    loss, terms = c3r_loss(
        batch.predict,
        batch.fuse,
        batch.h,
        batch.labels,
        config=method.c3r,
        present=batch.present,
        key=key,
        evidence=batch.evidence,
        explained=batch.explained,
        task=batch.target,
        **batch.masks,
    )
    return loss, (c3r_metrics(terms, batch), terms.moments)


def _contrastive(batch: EncodedBatch, method: Method, key: PRNGKeyArray) -> tuple[Float[Array, ""], Measured]:
    """The contrastive loss between an example's modalities, with or without C3R's terms."""
    head = batch.variables["params"]["head"]  # all that comparing needs

    def compute(head: Any, h: Any, present: Array, where: Array, key: Array, axis_name: Any) -> Any:
        loss, terms = contrastive_c3r_loss(
            partial(match, batch.model, {"params": {"head": head}}),
            h,
            kind=method.task,
            config=method.c3r,
            regularised=method.regularised,
            present=present,
            where=where,
            axis_name=axis_name,
            key=key,
            chunks=batch.key_chunks,
        )
        metrics = contrastive_metrics(terms)
        if terms.moments is not None:
            metrics["first_stage_rows"] = jnp.min(terms.moments.count)
        return loss, (metrics, terms.moments)

    arguments = head, batch.h, batch.present, batch.where, key
    if batch.rows is None:
        return compute(*arguments, batch.axis_name)
    # Left alone, the compiler sums the gradient of all keys once for every use of them; here each device gathers the
    # keys once, and sums that gradient at home first.
    each, copied = batch.rows.spec, PartitionSpec()
    return jax.shard_map(
        partial(compute, axis_name=each[0]),
        mesh=batch.rows.mesh,
        in_specs=(copied, each, each, each, copied),
        out_specs=copied,
        check_vma=False,
    )(*arguments)


def _official(batch: EncodedBatch) -> tuple[Float[Array, ""], Measured]:
    """The public PyTorch code's objective."""
    layers = {**batch.variables["params"]["fusion"], "head": batch.variables["params"]["head"]}
    image, text = batch.h.values()
    loss, terms = official_compat_loss(layers, image, text, batch.labels)
    return loss, ({"task": terms.task, "relevance": terms.relevance, "closeness": terms.closeness}, None)


def with_rival(
    loss: Float[Array, ""], metrics: dict[str, Array], terms: RivalTerms, method: Method
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """Adds a rival's terms to a method's loss and to its metrics.

    Where the rival has a task loss of its own, the loss is that of :meth:`Method.beside_own_loss`.
    """
    if terms.task is not None:
        loss = loss + method.c3r.w_task * method.own_share * terms.task if method.regularised else terms.task
        metrics = {**metrics, "rival_task": terms.task}
    return loss + terms.penalty, {**metrics, "rival": terms.penalty, **terms.metrics}


def correct_share(
    target: Task, logits: Float[Array, "batch classes"], labels: Num[Array, "batch ..."]
) -> Float[Array, " batch"]:
    """1 for a correct row, else 0; for rows with several labels, the share that is correct."""
    return target.correct(logits, labels).astype(logits.dtype).reshape(logits.shape[0], -1).mean(-1)


def c3r_metrics(terms: C3RTerms, batch: EncodedBatch) -> dict[str, Array]:
    """Every term, the 0/1 risk with its interval, and the first stage's R^2 and F (median over features).

    With a cap also what it multiplied the other terms' gradient by, and with experts the share that each has correct.
    """
    correct = correct_share(batch.target, terms.logits, batch.labels)
    weights = batch.target.weights(batch.labels)
    metrics = {name: getattr(terms, name) for name in TERMS}
    metrics |= {f"risk_{name}": value for name, value in terms.risk._asdict().items()}
    metrics |= {
        "accuracy": weighted_mean(correct, batch.where, weights, batch.axis_name),
        "label_probability": terms.label_probability,
    }
    stages = terms.first_stage or {}
    for name, r2, f in zip(stages, *_of_stages([*stages.values()]), strict=True):
        metrics |= {f"r2/{name}": r2, f"f/{name}": f}
    rows = [] if terms.rows is None else [*terms.rows.values()]
    metrics["first_stage_rows"] = jnp.min(jnp.stack(rows)) if rows else jnp.zeros(())
    if terms.invalid_labels is not None:
        metrics[INVALID] = terms.invalid_labels
    if terms.explained is not None:
        metrics["explained"] = terms.explained
    if terms.cap is not None:
        metrics |= {"cap_scale": terms.cap.scale, "cap_limit": terms.cap.limit}
    for name, expert in (terms.experts or {}).items():
        metrics[f"expert_accuracy/{name}"] = expert.accuracy
    return metrics


def _of_stages(stages: list[FirstStage]) -> tuple[list[Array], list[Array]]:
    """Mean R^2 and median F of each stage; of stages of one width together, so that one sort is compiled for all."""
    if len({stage.r2.shape for stage in stages}) == 1:
        r2, f = (jnp.stack(values) for values in zip(*((stage.r2, stage.f_stat) for stage in stages), strict=True))
        return [*r2.mean(1)], [*jnp.median(f, axis=1)]
    return [stage.r2.mean() for stage in stages], [jnp.median(stage.f_stat) for stage in stages]


def contrastive_metrics(terms: ContrastiveTerms) -> dict[str, Array]:
    """Task and accuracy, and C3R's terms, 0/1 risks and gate, means over the matched modalities; the cap's scale."""
    metrics = {"task": terms.task, "accuracy": terms.accuracy}
    if terms.c3r:
        per_modality = [
            {name: getattr(matched, name) for name in TERMS[1:]}
            | {f"risk_{name}": value for name, value in matched.risk._asdict().items()}
            | ({} if matched.explained is None else {"explained": matched.explained})
            for matched in terms.c3r.values()
        ]
        metrics |= jax.tree.map(lambda *values: jnp.stack(values).mean(), *per_modality)
    if terms.cap is not None:
        metrics |= {"cap_scale": terms.cap.scale, "cap_limit": terms.cap.limit}
    return metrics
