"""The two worlds of the twin network on a batch: z_c through the instrument, z_bar without what it explains."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Num

from c3r_jax.core.batch import concrete, global_mean, promote, static_rows
from c3r_jax.core.config import C3RConfig
from c3r_jax.core.counterfactual import Predict, counterfactual
from c3r_jax.core.first_stage import check_rows
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
from c3r_jax.core.tasks.base import Task
from c3r_jax.core.tasks.classification import CLASSIFICATION

Fitted = tuple[RealWorld, Float[Array, ""], Moments | None]  # z_c, L_v and the batch's moments


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
        p = moments_width(config, widths) - min(widths.values())
        check_rows(static_rows(z.shape[0], where, axis_name), p)
        known = concrete(present) if axis_name is None else None
        if known is not None and not known.all():
            check_rows(static_rows(z.shape[0], rows & present.all(1), axis_name), p, "rows with every modality")
    batch = instrument_moments(features, z, present, config=config, where=rows, axis_name=axis_name)
    pooled = batch if earlier is None else merge_moments(jax.lax.stop_gradient(earlier), batch)
    real = causal_representation(fuse, features, present, pooled, config=config)
    loss = relevance_loss(real, features, z, present, pooled.count, config=config, where=rows, axis_name=axis_name)
    return real, loss, jax.lax.stop_gradient(batch)


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


def _neutral(
    fuse: Fuse, features: Features, h_hat: Features, present: Array, rows: Array, axis_name: str | None
) -> Array:
    """fuse(h - h_hat + mean(h_hat)): do(causal part := its mean) where fuse is not affine."""
    means = {name: global_mean(promote(value), rows, axis_name) for name, value in h_hat.items()}
    return fuse({name: h - h_hat[name] + means[name].astype(h.dtype)[None, :] for name, h in features.items()}, present)
