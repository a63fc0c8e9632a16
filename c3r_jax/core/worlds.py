"""The two worlds of the twin network on a batch: z_c through the instrument, z_bar without what it explains."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Num

from c3r_jax.core.available import available_rows
from c3r_jax.core.batch import Where, concrete, global_mean, mask_of, promote, static_rows
from c3r_jax.core.config import C3RConfig
from c3r_jax.core.counterfactual import Predict, counterfactual
from c3r_jax.core.first_stage import check_rows
from c3r_jax.core.instruments import (
    Features,
    Fuse,
    RealWorld,
    causal_representation,
    instrument_moments,
    no_moments,
    relevance_loss,
    rows_by_modality,
)
from c3r_jax.core.moments import Moments, merge_moments
from c3r_jax.core.relevance import Relevance
from c3r_jax.core.tasks.base import Task
from c3r_jax.core.tasks.classification import CLASSIFICATION
from c3r_jax.earlier_moments import check_moments

Fitted = tuple[RealWorld, Relevance, Moments | None]  # z_c, L_v and the batch's moments


def real_world(
    fuse: Fuse,
    features: Features,
    z: Float[Array, "batch features"],
    config: C3RConfig,
    present: Bool[Array, "batch modalities"],
    rows: Where,
    where: Bool[Array, " batch"] | None,
    axis_name: str | None = None,
    earlier: Moments | None = None,
) -> Fitted:
    """Computes z_c with the configured instrument, L_v and the batch's moments."""
    if config.instrument == "none":
        nothing = jnp.zeros((), promote(z).dtype)
        return RealWorld(z), Relevance(nothing, nothing), None
    if earlier is None and config.instrument == "two_stage":
        widths = {name: h.shape[1] for name, h in features.items()}
        _check_stages(widths, config, present, mask_of(rows), where, axis_name)
    if earlier is not None:
        widths = {name: h.shape[1] for name, h in features.items()}
        check_moments(earlier, no_moments(config, widths), config.instrument, widths)
    batch = instrument_moments(features, z, present, config=config, where=rows, axis_name=axis_name)
    pooled = batch if earlier is None else merge_moments(jax.lax.stop_gradient(earlier), batch)
    real = causal_representation(fuse, features, present, pooled, config=config, axis_name=axis_name)
    loss = relevance_loss(real, features, z, present, pooled.count, config=config, where=rows, axis_name=axis_name)
    return real, loss, jax.lax.stop_gradient(batch)


def _check_stages(
    widths: Mapping[str, int],
    config: C3RConfig,
    present: Array,
    rows: Array,
    where: Array | None,
    axis_name: str | None,
) -> None:
    """Refuses first stages that have too few rows for their columns, as far as rows can be counted before tracing."""
    total = sum(widths.values())
    check_rows(static_rows(len(rows), where, axis_name), total - min(widths.values()))
    known = None if axis_name else concrete(present)
    if known is None or known.all():
        return
    if not rows_by_modality(config, len(widths)):
        complete = static_rows(len(rows), rows & present.all(1), axis_name)
        return check_rows(complete, total - min(widths.values()), "rows with every modality")
    for (name, width), usable in zip(widths.items(), available_rows(present, rows), strict=True):
        kind = f"rows with {name!r} and another modality"
        check_rows(static_rows(len(rows), usable, axis_name), total - width, kind)


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
    where: Where,
    axis_name: str | None = None,
    key: Array | None = None,
    block_rows: int | None = None,
    task: Task = CLASSIFICATION,
) -> Float[Array, "batch features"]:
    """z_bar (B, d) from the configured counterfactual, given z_c; used in training and evaluation."""
    if config.through_fuse:
        assert real.h_hat is not None  # C3RConfig allows it only with a first stage
        return jnp.where(mask_of(where)[:, None], _neutral(fuse, features, real.h_hat, present, where, axis_name), z)
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


def _neutral(
    fuse: Fuse, features: Features, h_hat: Features, present: Array, rows: Where, axis_name: str | None
) -> Array:
    """fuse(h - h_hat + mean(h_hat)): do(causal part := its mean) where fuse is not affine."""
    means = {name: global_mean(promote(value), rows, axis_name) for name, value in h_hat.items()}
    return fuse({name: h - h_hat[name] + means[name].astype(h.dtype)[None, :] for name, h in features.items()}, present)


def both_worlds(
    predict: Predict,
    fuse: Fuse,
    h: dict[str, Array],
    present: Array,
    labels: Array,
    moments: Moments | None,
    *,
    config: C3RConfig,
    where: Array | None = None,
    key: Array | None = None,
    task: Task = CLASSIFICATION,
) -> tuple[Array, Array, Array]:
    """z, z_c and z_bar of evaluated rows; each row's z_c depends only on that row and the moments. Pure.

    Args:
      predict: z (n, d) -> logits (n, K).
      fuse: (h, present) -> z (n, d).
      h: {modality: (n, d_m)}, zero where absent.
      present: (n, M) bool.
      labels: (n,) class ids, or the task's own shape.
      moments: moments of the training set; None without an instrument.
      config: instrument and counterfactual.
      where: (n,) bool, rows that z_bar's means are over, and that have one; None: all.
      key: PRNG key for counterfactual "permute".
      task: the task's losses and correctness.

    Returns:
      z, z_c, z_bar, each (n, d).
    """
    z = fuse(h, present)
    real = RealWorld(z)
    if moments is not None:
        real = causal_representation(fuse, h, present, moments, config=config)
    where = jnp.ones(present.shape[0], bool) if where is None else where
    z_bar = hypothetical_representation(
        predict, fuse, h, z, labels, real, present, config=config, where=where, key=key, task=task
    )
    return z, real.z_c, z_bar
