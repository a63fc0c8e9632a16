"""From moments to z_c: the two instruments behind one interface.

Both instruments need only one set of :class:`Moments` of other examples: of the concatenated features ("two_stage") or
of attention output and z ("attention"). Training uses a batch's own moments, small batches accumulated ones, and
evaluation the exact ones of the training set, so that a prediction never depends on its batch.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from c3r_jax.core.attention import attend, calibration
from c3r_jax.core.batch import global_mean, promote
from c3r_jax.core.config import C3RConfig
from c3r_jax.core.first_stage import FirstStage, apply_modalities, columns, fit_modalities, relevance
from c3r_jax.core.moments import Moments, batch_moments

Features = Mapping[str, Float[Array, "batch _"]]
Fuse = Callable[[dict[str, Array], Array], Array]


class RealWorld(NamedTuple):
    """The instrument's output on a batch.

    Attributes:
      z_c: (B, d) causal candidate.
      stages: {name: :class:`FirstStage`} for "two_stage", else None.
      h_hat: {name: (B, d_name)} for "two_stage", else None.
    """

    z_c: Float[Array, "batch features"]
    stages: dict[str, FirstStage] | None = None
    h_hat: dict[str, Array] | None = None


def moments_width(config: C3RConfig, widths: Mapping[str, int]) -> int:
    """Number of columns of an instrument's moments, given each modality's width; 0 for "none"."""
    if config.instrument == "none":
        return 0
    return sum(widths.values()) if config.instrument == "two_stage" else 2 * next(iter(widths.values()))


def instrument_moments(
    features: Features,
    z: Float[Array, "batch features"],
    present: Bool[Array, "batch modalities"],
    *,
    config: C3RConfig,
    where: Bool[Array, " batch"],
    axis_name: str | None = None,
) -> Moments:
    """Moments that the instrument is fitted on, over the usable rows.

    "two_stage" uses the rows that have every modality; "attention" those with at least one token to attend to.

    Args:
      features: {name: (B, d_name)}, zero where absent.
      z: (B, d) fused representation.
      present: (B, M) bool.
      config: the configuration, for the instrument.
      where: (B,) bool, rows that count.
      axis_name: mapped axis over which the batch is split.

    Returns:
      :class:`Moments` of width :func:`moments_width`.
    """
    if config.instrument == "two_stage":
        blocks, usable = [promote(h) for h in features.values()], where & present.all(1)
        if config.shuffled:
            blocks, usable = _unpaired(blocks, usable)
        return batch_moments(jnp.concatenate(blocks, axis=1), where=usable, axis_name=axis_name)
    v, exists = attend(features, present, num_heads=config.num_heads, keys=config.attention_keys)
    if v.shape != z.shape:
        raise ValueError(f"instrument 'attention' has width {v.shape[1]}, but z has {z.shape[1]}: they must be equal.")
    return batch_moments(jnp.concatenate([v, promote(z)], axis=1), where=where & exists, axis_name=axis_name)


def _unpaired(blocks: list[Array], usable: Array) -> tuple[list[Array], Array]:
    """Rolls each modality by a different number of rows, so that a row's modalities are from different examples."""
    stride = max(1, usable.shape[0] // len(blocks))
    rolled = [jnp.roll(usable, m * stride) for m in range(len(blocks))]
    return [jnp.roll(block, m * stride, axis=0) for m, block in enumerate(blocks)], jnp.stack(rolled).all(0)


def causal_representation(
    fuse: Fuse,
    features: Features,
    present: Bool[Array, "batch modalities"],
    moments: Moments,
    *,
    config: C3RConfig,
) -> RealWorld:
    """z_c of each row independently, given the moments.

    Args:
      fuse: ({name: (B, d_name)}, present (B, M)) -> z (B, d).
      features: {name: (B, d_name)}, zero where absent.
      present: (B, M) bool.
      moments: :func:`instrument_moments` of these or other rows.
      config: the configuration, for instrument and ridge.

    Returns:
      :class:`RealWorld`.
    """
    if config.instrument == "two_stage":
        stages = fit_modalities(moments, columns(features), ridge=config.ridge, stop_gradient=config.stop_gradient)
        h_hat, present_hat = apply_modalities(stages, features, present)
        return RealWorld(fuse(h_hat, present_hat), stages, h_hat)
    v, exists = attend(features, present, num_heads=config.num_heads, keys=config.attention_keys)
    line = calibration(moments)
    z_c = line.apply(jnp.where(exists[:, None], v, line.mean_v[None, :]))
    return RealWorld(z_c.astype(next(iter(features.values())).dtype))


def relevance_loss(
    real: RealWorld,
    features: Features,
    z: Float[Array, "batch features"],
    present: Bool[Array, "batch modalities"],
    num_rows: Float[Array, ""],
    *,
    config: C3RConfig,
    where: Bool[Array, " batch"],
    axis_name: str | None = None,
) -> Float[Array, ""]:
    """L_v: 1 - R^2 averaged over modalities and features, or KL(softmax(z) || softmax(v)) for "attention"."""
    if real.stages is not None:
        return relevance(real.stages, num_rows)
    v, exists = attend(features, present, num_heads=config.num_heads, keys=config.attention_keys)
    log_p, log_q = jax.nn.log_softmax(promote(z)), jax.nn.log_softmax(v)
    return global_mean((jnp.exp(log_p) * (log_p - log_q)).sum(-1), where & exists, axis_name)
