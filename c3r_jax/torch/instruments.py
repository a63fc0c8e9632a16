"""From moments to z_c: the two instruments behind one interface.

Both instruments need only one set of :class:`Moments` of other examples: of the concatenated features ("two_stage") or
of attention output and z ("attention"). Training uses a batch's own moments, small batches accumulated ones, and
evaluation the exact ones of the training set, so that a prediction never depends on its batch.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from c3r_jax.objective_config import C3RConfig
from c3r_jax.torch.attention import attend, calibration
from c3r_jax.torch.available import available_moments
from c3r_jax.torch.batch import Weighted, Where, global_mean, like, mask_of, promote
from c3r_jax.torch.first_stage import FirstStage, apply_modalities, columns, fit_modalities
from c3r_jax.torch.moments import Moments, batch_moments
from c3r_jax.torch.processes import Group, all_rows, first_row
from c3r_jax.torch.relevance import Relevance, relevance

Features = Mapping[str, Float[Tensor, "batch _"]]
Fuse = Callable[[dict[str, Tensor], Tensor], Tensor]


class RealWorld(NamedTuple):
    """The instrument's output on a batch.

    Attributes:
      z_c: (B, d) causal candidate.
      stages: {name: :class:`FirstStage`} for "two_stage", else None.
      h_hat: {name: (B, d_name)} for "two_stage", else None.
    """

    z_c: Float[Tensor, "batch features"]
    stages: dict[str, FirstStage] | None = None
    h_hat: dict[str, Tensor] | None = None


def no_moments(
    config: C3RConfig,
    widths: Mapping[str, int],
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> Moments | None:
    """The :class:`Moments` of no rows, in the shape that the instrument needs; None for "none".

    Args:
      config: instrument, and which rows its first stages use.
      widths: {name: d_name}.
      dtype: float64 for features in float64.
      device: of the features.

    Examples:
      >>> moments = no_moments(C3RConfig(), {"image": 3, "text": 2})
      >>> print(moments.count.item(), tuple(moments.cov.shape))
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
    shapes = (shape, (*shape, width), (*shape, width, width))
    return Moments(*(torch.zeros(size, dtype=dtype, device=device) for size in shapes))


def rows_by_modality(config: C3RConfig, num_modalities: int) -> bool:
    """Whether each first stage has rows of its own; with two modalities, all use the rows that have both."""
    return config.stage_rows == "available" and num_modalities > 2


def instrument_moments(
    features: Features,
    z: Float[Tensor, "batch features"],
    present: Bool[Tensor, "batch modalities"],
    *,
    config: C3RConfig,
    where: Where,
    group: Group | None = None,
) -> Moments:
    """Moments that the instrument is fitted on, over the usable rows.

    "two_stage" uses the rows that ``config.stage_rows`` says; "attention" those with at least one token to attend to.

    Args:
      features: {name: (B, d_name)}, zero where absent.
      z: (B, d) fused representation.
      present: (B, M) bool.
      config: the configuration, for the instrument.
      where: (B,) bool, rows that count.
      group: process group over which the batch is split.

    Returns:
      :class:`Moments`, for each modality where each has rows of its own.
    """
    if config.instrument == "two_stage":
        blocks, present = {name: promote(h) for name, h in features.items()}, present & mask_of(where)[:, None]
        own_rows = rows_by_modality(config, len(blocks))
        if not own_rows:
            present = present.all(1, keepdim=True).expand_as(present)
        if config.shuffled:
            blocks, present, where = _unpaired(blocks, present, where, group)
        if own_rows:
            return available_moments(blocks, present, like(where, present.any(1)), group)
        rows = like(where, present.all(1))
        return batch_moments(torch.cat([*blocks.values()], 1), where=rows, group=group)
    v, exists = attend(features, present, num_heads=config.num_heads, keys=config.attention_keys)
    if v.shape != z.shape:
        raise ValueError(f"instrument 'attention' has width {v.shape[1]}, but z has {z.shape[1]}: they must be equal.")
    return batch_moments(torch.cat([v, promote(z)], dim=1), where=where & exists, group=group)


def _unpaired(
    blocks: Mapping[str, Tensor], present: Tensor, where: Where, group: Group | None
) -> tuple[dict[str, Tensor], Tensor, Where]:
    """Rolls each modality by a different number of rows, so that a row's modalities are from different examples.

    Rows are rolled through the global batch, whatever the number of processes. Such a row has the mean weight of the
    rows that it is made of.
    """
    own = present.shape[0]
    first, total = first_row(own, group, present.device)
    stride = max(1, total // len(blocks))

    def roll(x: Tensor, m: int) -> Tensor:
        return all_rows(x, first, total, group).roll(m * stride, 0)[first : first + own]

    rolled = [roll(present[:, m].to(torch.uint8), m).bool() for m in range(len(blocks))]
    if isinstance(where, Weighted):
        of_parts = [roll(where.weights, m) for m in range(len(blocks))]
        where = Weighted(where.rows, torch.stack(of_parts).mean(0))
    return {name: roll(h, m) for m, (name, h) in enumerate(blocks.items())}, torch.stack(rolled, 1), where


def causal_representation(
    fuse: Fuse,
    features: Features,
    present: Bool[Tensor, "batch modalities"],
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
    z_c = line.apply(torch.where(exists[:, None], v, line.mean_v[None, :]))
    return RealWorld(z_c.to(next(iter(features.values())).dtype))


def relevance_loss(
    real: RealWorld,
    features: Features,
    z: Float[Tensor, "batch features"],
    present: Bool[Tensor, "batch modalities"],
    num_rows: Float[Tensor, "*modalities"],
    *,
    config: C3RConfig,
    where: Where,
    group: Group | None = None,
) -> Relevance:
    """L_v: 1 - R^2 averaged over modalities and features, or KL(softmax(z) || softmax(v)) for "attention"."""
    if real.stages is not None:
        return relevance(real.stages, num_rows)
    v, exists = attend(features, present, num_heads=config.num_heads, keys=config.attention_keys)
    log_p, log_q = F.log_softmax(promote(z), -1), F.log_softmax(v, -1)
    loss = global_mean((log_p.exp() * (log_p - log_q)).sum(-1), where & exists, group)
    return Relevance(loss, loss)
