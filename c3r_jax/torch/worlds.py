"""The two worlds of the twin network on a batch: z_c through the instrument, z_bar without what it explains."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Num
from torch import Tensor

from c3r_jax.earlier_moments import check_moments
from c3r_jax.objective_config import C3RConfig
from c3r_jax.torch.batch import Where, global_mean, mask_of, promote
from c3r_jax.torch.classification import CLASSIFICATION
from c3r_jax.torch.counterfactual import Predict, counterfactual
from c3r_jax.torch.first_stage import check_rows
from c3r_jax.torch.instruments import (
    Features,
    Fuse,
    RealWorld,
    causal_representation,
    instrument_moments,
    no_moments,
    relevance_loss,
    rows_by_modality,
)
from c3r_jax.torch.moments import Moments, merge_moments
from c3r_jax.torch.processes import Group, global_sum
from c3r_jax.torch.relevance import Relevance
from c3r_jax.torch.task import Task


class Fitted(NamedTuple):
    """The real-world branch of a batch: the instrument's output, L_v, and the batch's moments as constants."""

    world: RealWorld
    relevance: Relevance
    moments: Moments | None


def real_world(
    fuse: Fuse,
    features: Features,
    z: Float[Tensor, "batch features"],
    config: C3RConfig,
    present: Bool[Tensor, "batch modalities"],
    rows: Where,
    group: Group | None = None,
    earlier: Moments | None = None,
) -> Fitted:
    """Computes z_c with the configured instrument, L_v and the batch's moments."""
    if config.instrument == "none":
        nothing = promote(z).new_zeros(())
        return Fitted(RealWorld(z), Relevance(nothing, nothing), None)
    if earlier is not None:
        widths = {name: h.shape[1] for name, h in features.items()}
        check_moments(earlier, no_moments(config, widths), config.instrument, widths)
    batch = instrument_moments(features, z, present, config=config, where=rows, group=group)
    if earlier is None and config.instrument == "two_stage":
        _check_stages({name: h.shape[1] for name, h in features.items()}, config, batch, present, mask_of(rows), group)
    pooled = batch if earlier is None else merge_moments(earlier.detach(), batch)
    real = causal_representation(fuse, features, present, pooled, config=config)
    loss = relevance_loss(real, features, z, present, pooled.count, config=config, where=rows, group=group)
    return Fitted(real, loss, batch.detach())


def _check_stages(
    widths: dict[str, int],
    config: C3RConfig,
    batch: Moments,
    present: Tensor,
    rows: Tensor,
    group: Group | None,
) -> None:
    """Refuses first stages that have too few rows for their columns."""
    total, smallest = sum(widths.values()), min(widths.values())
    counted = global_sum(torch.stack([rows.sum(), (rows & ~present.all(1)).sum()]), group)
    *counts, num_rows, absent = torch.cat([batch.count.reshape(-1).long(), counted]).tolist()
    check_rows(num_rows, total - smallest)
    if not absent:
        return
    if not rows_by_modality(config, len(widths)):
        return check_rows(counts[0], total - smallest, "rows with every modality")
    for (name, width), count in zip(widths.items(), counts, strict=True):
        check_rows(count, total - width, f"rows with {name!r} and another modality")


def hypothetical_representation(
    predict: Predict,
    fuse: Fuse,
    features: Features,
    z: Float[Tensor, "batch features"],
    labels: Num[Tensor, "batch ..."],
    real: RealWorld,
    present: Bool[Tensor, "batch modalities"],
    *,
    config: C3RConfig,
    where: Where,
    group: Group | None = None,
    generator: torch.Generator | None = None,
    task: Task = CLASSIFICATION,
) -> Float[Tensor, "batch features"]:
    """z_bar (B, d) from the configured counterfactual, given z_c."""
    if config.through_fuse:
        assert real.h_hat is not None  # C3RConfig allows it only with a first stage
        return torch.where(mask_of(where)[:, None], _neutral(fuse, features, real.h_hat, present, where, group), z)
    return counterfactual(
        predict,
        z,
        labels,
        mode=config.counterfactual,
        step_size=config.step_size,
        num_steps=config.num_steps,
        z_c=None if config.instrument == "none" else real.z_c,
        where=where,
        group=group,
        generator=generator,
        task=task,
    )


def _neutral(
    fuse: Fuse, features: Features, h_hat: Features, present: Tensor, rows: Where, group: Group | None
) -> Tensor:
    """fuse(h - h_hat + mean(h_hat)): do(causal part := its mean) where fuse is not affine."""
    means = {name: global_mean(promote(value), rows, group) for name, value in h_hat.items()}
    return fuse({name: h - h_hat[name] + means[name].to(h.dtype)[None, :] for name, h in features.items()}, present)
