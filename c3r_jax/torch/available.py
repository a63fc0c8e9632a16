"""First stages of three or more modalities where some are missing: moments of the rows that each stage can use.

The stage of modality m is fitted on the rows that have m and at least one other; an absent block of the instrument
counts as its mean over those rows, as it does in prediction (:func:`c3r_jax.torch.first_stage.apply_modalities`). The
mean is not known before all rows are seen. The moments are therefore those of the columns, 0 where absent, and of the
indicators of presence: an absent value replaced by any constant is linear in both, so that batches and processes still
merge exactly.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from c3r_jax.torch.batch import Where, keep, like, mask_of, promote
from c3r_jax.torch.moments import Moments, batch_moments
from c3r_jax.torch.processes import Group


def available_rows(
    present: Bool[Tensor, "batch modalities"], where: Bool[Tensor, " batch"]
) -> Bool[Tensor, "modalities batch"]:
    """Rows of each modality's first stage: those that have it and another one.

    Examples:
      >>> present = torch.tensor([[True, True, False], [True, False, False]])
      >>> available_rows(present, torch.tensor([True, True])).sum(1)
      tensor([1, 1, 0])
    """
    known = present & where[:, None]
    return (known & (known.sum(1, keepdim=True) > 1)).T


def available_moments(
    blocks: Mapping[str, Float[Tensor, "batch _"]],
    present: Bool[Tensor, "batch modalities"],
    where: Where,
    group: Group | None = None,
) -> Moments:
    """Moments of every modality's rows, (M,), (M, p + M) and (M, p + M, p + M); the last M columns are indicators.

    Args:
      blocks: {name: (B, d_name)} in the order of ``present``.
      present: (B, M) bool.
      where: (B,) bool, rows that count.
      group: process group over which the batch is split.
    """
    values = [keep(present[:, m], promote(h)) for m, h in enumerate(blocks.values())]
    x = torch.cat([*values, present.to(values[0].dtype)], dim=1)
    usable = available_rows(present, mask_of(where))
    found = [batch_moments(x, where=like(where, rows), group=group) for rows in usable]
    return Moments(*(torch.stack(parts) for parts in zip(*found, strict=True)))


def stage_moments(moments: Moments, m: int, blocks: Mapping[str, slice]) -> Moments:
    r"""Moments of the columns in the rows of modality m's stage, absent blocks at their mean.

    .. math::
       \mu_b = E[x_b] / E[a_b], \quad x_b + (1 - a_b) \mu_b = (I, -\mu_b) (x_b, a_b)^T + \mu_b

    Args:
      moments: of :func:`available_moments`, of one or more batches.
      m: the modality's place.
      blocks: {name: columns} from :func:`c3r_jax.torch.first_stage.columns`.

    Returns:
      :class:`Moments` of width p.
    """
    p = moments.mean.shape[1] - len(blocks)
    mean, cov = moments.mean[m], moments.cov[m]
    widths = torch.tensor([columns.stop - columns.start for columns in blocks.values()])
    block = torch.arange(len(blocks)).repeat_interleave(widths).to(mean.device)
    share = mean[p:][block]  # of the rows that have each column
    centre = torch.where(share > 0, mean[:p] / torch.where(share > 0, share, 1), 0)
    of_indicators = -centre[:, None] * F.one_hot(block, len(blocks)).to(cov.dtype)
    crossed = of_indicators @ cov[p:, :p]
    imputed = cov[:p, :p] + crossed + crossed.T + of_indicators @ cov[p:, p:] @ of_indicators.T
    # What is left of a constant column after this difference is rounding, relative to the variance that presence adds.
    noise = 32 * torch.finfo(cov.dtype).eps * centre.square() * share * (1 - share)
    varying = imputed.diagonal() > torch.where(share < 1, noise, 0)
    return Moments(moments.count[m], centre, torch.where(varying[:, None] & varying[None, :], imputed, 0))
