"""From moments to z_c: the two instruments behind one interface.

Both instruments need only one set of :class:`Moments` of other examples: of the concatenated features ("two_stage") or
of attention output and z ("attention"). Training uses a batch's own moments, small batches accumulated ones, and
evaluation the exact ones of the training set, so that a prediction never depends on its batch.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from c3r_jax.core.attention import attend, calibration
from c3r_jax.core.available import available_moments
from c3r_jax.core.batch import Weighted, Where, all_rows, first_row, global_mean, like, mask_of, promote
from c3r_jax.core.config import C3RConfig
from c3r_jax.core.every_stage import apply_modalities, columns, fit_modalities
from c3r_jax.core.first_stage import FirstStage
from c3r_jax.core.moments import Moments, batch_moments
from c3r_jax.core.relevance import Relevance, relevance

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


def no_moments(config: C3RConfig, widths: Mapping[str, int]) -> Moments | None:
    """The :class:`Moments` of no rows, in the shape that the instrument needs; None for "none".

    Args:
      config: instrument, and which rows its first stages use.
      widths: {name: d_name}.

    Examples:
      >>> moments = no_moments(C3RConfig(), {"image": 3, "text": 2})
      >>> print(moments.count, moments.cov.shape)
      0.0 (5, 5)
    """
    if config.instrument == "none":
        return None
    if config.instrument == "attention":
        shape, width = (), 2 * next(iter(widths.values()))
    elif rows_by_modality(config, len(widths)):
        shape, width = (len(widths),), sum(widths.values()) + len(widths)
    else:
        shape, width = (), sum(widths.values())
    return Moments(jnp.zeros(shape), jnp.zeros((*shape, width)), jnp.zeros((*shape, width, width)))


def rows_by_modality(config: C3RConfig, num_modalities: int) -> bool:
    """Whether each first stage has rows of its own; with two modalities, all use the rows that have both."""
    return config.stage_rows == "available" and num_modalities > 2


def instrument_moments(
    features: Features,
    z: Float[Array, "batch features"],
    present: Bool[Array, "batch modalities"],
    *,
    config: C3RConfig,
    where: Where,
    axis_name: str | None = None,
) -> Moments:
    """Moments that the instrument is fitted on, over the usable rows.

    "two_stage" uses the rows that ``config.stage_rows`` says; "attention" those with at least one token to attend to.

    Args:
      features: {name: (B, d_name)}, zero where absent.
      z: (B, d) fused representation.
      present: (B, M) bool.
      config: the configuration, for the instrument.
      where: (B,) bool, rows that count.
      axis_name: mapped axis over which the batch is split.

    Returns:
      :class:`Moments` in the shape of :func:`no_moments`.
    """
    if config.instrument == "two_stage":
        blocks, present = {name: promote(h) for name, h in features.items()}, present & mask_of(where)[:, None]
        own_rows = rows_by_modality(config, len(blocks))
        if not own_rows:
            present = jnp.broadcast_to(present.all(1, keepdims=True), present.shape)
        if config.shuffled:
            blocks, present, where = _unpaired(blocks, present, where, axis_name)
        if own_rows:
            return available_moments(blocks, present, like(where, present.any(1)), axis_name)
        rows = like(where, present.all(1))
        return batch_moments(jnp.concatenate([*blocks.values()], 1), where=rows, axis_name=axis_name)
    v, exists = attend(features, present, num_heads=config.num_heads, keys=config.attention_keys)
    if v.shape != z.shape:
        raise ValueError(f"instrument 'attention' has width {v.shape[1]}, but z has {z.shape[1]}: they must be equal.")
    return batch_moments(jnp.concatenate([v, promote(z)], axis=1), where=where & exists, axis_name=axis_name)


def _unpaired(
    blocks: Mapping[str, Array], present: Array, where: Where, axis_name: str | None
) -> tuple[dict[str, Array], Array, Where]:
    """Rolls each modality by a different number of rows, so that a row's modalities are from different examples.

    Rows are rolled through the global batch, whatever the number of devices. Such a row has the mean weight of the rows
    that it is made of.
    """
    own = present.shape[0]
    first = first_row(own, axis_name)

    def roll(x: Array, m: int) -> Array:
        everywhere = all_rows(x, axis_name)
        moved = jnp.roll(everywhere, m * max(1, everywhere.shape[0] // len(blocks)), axis=0)
        return jax.lax.dynamic_slice_in_dim(moved, first, own)

    rolled = jnp.stack([roll(present[:, m], m) for m in range(len(blocks))], 1)
    if isinstance(where, Weighted):
        of_parts = [roll(where.weights, m) for m in range(len(blocks))]
        where = Weighted(where.rows, jnp.stack(of_parts).mean(0))
    return {name: roll(h, m) for m, (name, h) in enumerate(blocks.items())}, rolled, where


def causal_representation(
    fuse: Fuse,
    features: Features,
    present: Bool[Array, "batch modalities"],
    moments: Moments,
    *,
    config: C3RConfig,
    axis_name: str | None = None,
) -> RealWorld:
    """z_c of each row independently, given the moments.

    Args:
      fuse: ({name: (B, d_name)}, present (B, M)) -> z (B, d).
      features: {name: (B, d_name)}, zero where absent.
      present: (B, M) bool.
      moments: :func:`instrument_moments` of these or other rows.
      config: the configuration, for instrument and ridge.
      axis_name: mapped axis whose devices all have these moments, and may share the solves.

    Returns:
      :class:`RealWorld`.
    """
    if config.instrument == "two_stage":
        how: dict[str, Any] = {"ridge": config.ridge, "stop_gradient": config.stop_gradient, "axis_name": axis_name}
        stages = fit_modalities(moments, columns(features), **how)
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
    num_rows: Float[Array, "*modalities"],
    *,
    config: C3RConfig,
    where: Where,
    axis_name: str | None = None,
) -> Relevance:
    """L_v: 1 - R^2 averaged over modalities and features, or KL(softmax(z) || softmax(v)) for "attention"."""
    if real.stages is not None:
        return relevance(real.stages, num_rows)
    v, exists = attend(features, present, num_heads=config.num_heads, keys=config.attention_keys)
    log_p, log_q = jax.nn.log_softmax(promote(z)), jax.nn.log_softmax(v)
    loss = global_mean((jnp.exp(log_p) * (log_p - log_q)).sum(-1), where & exists, axis_name)
    return Relevance(loss, loss)
