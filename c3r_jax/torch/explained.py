"""How far the real world explains what outputs predict: the gate's losses, each at the scale at which it is least."""

import torch
from jaxtyping import Bool, Float, Num
from torch import Tensor

from c3r_jax.torch.batch import Where, masked_means, promote
from c3r_jax.torch.gate import least_share
from c3r_jax.torch.processes import Group
from c3r_jax.torch.task import Task

SCALES = (0.0, 0.1, 0.25, 0.5, 1.0, 2.0)  # of outputs that are evidence, from those of the best constant


@torch.no_grad()
def explained_outputs(
    joint: Float[Tensor, "batch classes"],
    causal: Float[Tensor, "batch classes"],
    alone: Float[Tensor, "modalities batch classes"] | None,
    explained: Float[Tensor, "modalities batch classes"] | None,
    constant: Float[Tensor, " classes"],
    labels: Num[Tensor, "batch ..."],
    present: Bool[Tensor, "batch modalities"],
    *,
    where: Where,
    group: Group | None,
    task: Task,
    label_smoothing: float = 0.0,
) -> Float[Tensor, ""]:
    """The explained share: of z, and where they are given of each modality alone, whichever is least.

    See ``c3r_jax.core.explained``.

    Args:
      joint: (B, K) outputs at z.
      causal: (B, K) outputs at z_c.
      alone: (M, B, K) outputs of each modality alone; None: only z is compared.
      explained: (M, B, K) outputs of what the others explain of each.
      constant: (K,) l_0.
      labels: (B, ...).
      present: (B, M) bool.
      where: (B,) bool, rows that count.
      group: process group over which the batch is split.
      task: what outputs mean.
      label_smoothing: of the task's loss.
    """
    scales = SCALES if task.adds_up else (1.0,)

    def losses(outputs: Tensor) -> Float[Tensor, "scales batch"]:
        outputs = promote(outputs)
        shares = [torch.full((len(outputs), 1), scale).to(outputs) for scale in scales]
        at = [task.at_share(outputs, constant, share) for share in shares]
        return torch.stack([task.loss(value, labels, label_smoothing) for value in at])

    nothing = task.loss(constant[None, :].expand_as(joint), labels, label_smoothing).expand(len(scales), -1)
    compared = [torch.stack([losses(joint), losses(causal), nothing])]
    masks = [torch.ones_like(present[:, 0])]
    if alone is not None and explained is not None:
        several = present.sum(1) > 1
        compared, masks = compared * 2, [*masks, several]
        for m, (own, others) in enumerate(zip(alone, explained, strict=True)):
            compared.append(torch.stack([losses(own), losses(others), nothing]))
            masks.append(present[:, m] & several)
    columns = torch.stack(compared)
    means = masked_means(columns.flatten(1, 2), torch.stack(masks), where, group)
    return least_share(*means.reshape(columns.shape[:3]).amin(2).T)
