"""How far the real world explains a model's predictions, measured on rows that it is not trained on."""

from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float, Num
from torch import Tensor

from c3r_jax.earlier_moments import check_moments
from c3r_jax.objective_config import C3RConfig
from c3r_jax.torch.alone import alone_in, alone_in_joint, scaled_estimates
from c3r_jax.torch.autocast import without_autocast
from c3r_jax.torch.batch import global_count, promote, zero_absent
from c3r_jax.torch.batch_checks import check_batch
from c3r_jax.torch.calls import fuse_of, predict_of
from c3r_jax.torch.classification import CLASSIFICATION
from c3r_jax.torch.counterfactual import Predict
from c3r_jax.torch.explained import explained_outputs
from c3r_jax.torch.instruments import Features, Fuse, RealWorld, causal_representation, no_moments
from c3r_jax.torch.moments import Moments
from c3r_jax.torch.processes import Group
from c3r_jax.torch.task import Task


@torch.no_grad()
def held_out_share(
    predict: Predict,
    fuse: Fuse,
    features: Features,
    labels: Num[Tensor, "batch ..."],
    moments: Moments,
    *,
    config: C3RConfig = C3RConfig(),
    present: Bool[Tensor, "batch modalities"] | None = None,
    where: Bool[Tensor, " batch"] | None = None,
    group: Group | None = None,
    task: Task = CLASSIFICATION,
) -> Float[Tensor, ""]:
    r"""The explained share of rows that are not trained on, for ``c3r_loss(explained=...)``; without gradient.

    .. math::
       g = \min\left(\left[\frac{H - S}{H - T}\right]_0^1,\
       \left[1 - \frac{\max_m (S_m - T_m)_+}{\max_m (H_m - T_m)}\right]_0^1,\
       \left[\frac{r - 0.1}{0.2}\right]_0^1\right), \quad
       r = \frac{1}{M - 1} \left( \frac{\sum_m (H_m - S_m)_+}{H - S} - 1 \right), \quad
       T = \min_\beta \text{mean}_i\, \ell(l_0 + \beta (l(z_i) - l_0), y_i)

    S is the same at z_c, H of the best constant prediction, T_m and S_m at modality m alone and at what the others
    explain of it, over the rows with m and another (in r all are of rows with several). On rows that a model has
    learned by heart, every modality says the label and so explains the others: the share of the training batch is then
    too high, and C3R silences what no other modality says. A few hundred rows, asked every ten steps or so, show it.

    Args:
      predict: z (B, d) -> outputs (B, K).
      fuse: ({name: (B, d_name)}, present (B, M)) -> z (B, d).
      features: {name: (B, d_name)} of rows that are not trained on.
      labels: (B, ...).
      moments: of training rows with the same encoders: ``C3RTerms.moments``, better of several batches, merged with a
        decay by :func:`merge_moments`; those of one batch are less exact, and the share is then too small.
      config: instrument and ridge.
      present: (B, M) bool, columns in the sorted order of the names.
      where: (B,) bool, rows that count.
      group: process group over which the rows are split.
      task: what outputs and labels mean.

    Raises:
      ValueError: on arguments of the wrong shape, dtype or range.

    Examples:
      >>> a, b, noise = torch.randn(3, 400, 2, generator=torch.Generator().manual_seed(0))
      >>> same, apart = {"a": a, "b": a + 0.1 * noise}, {"a": a, "b": b}
      >>> labels = (a[:, 0] + b[:, 0] > 0).long()
      >>> fuse = lambda h, present: h["a"] * present[:, :1] + h["b"] * present[:, 1:]
      >>> predict = lambda z: torch.stack([-z[:, 0], z[:, 0]], dim=1)
      >>> from c3r_jax.torch import c3r_loss
      >>> def share(h):
      ...     moments = c3r_loss(predict, fuse, h, labels)[1].moments
      ...     return held_out_share(predict, fuse, h, labels, moments).item()
      >>> share(same) > 0.9, share(apart) < 0.1
      (True, True)
    """
    features, labels, has, rows = check_batch(features, labels, config, present, where, None, task)
    device = next(iter(features.values())).device
    predict, fuse = predict_of(predict, device), fuse_of(fuse, device)
    with without_autocast(device):
        z = fuse(features, has)
        real = RealWorld(z)
        if config.instrument != "none":
            widths = {name: h.shape[1] for name, h in features.items()}
            check_moments(moments, no_moments(config, widths), config.instrument, widths)
            real = causal_representation(fuse, features, has, moments, config=config)
        logits = promote(predict(z))
        prior = task.batch_prior(labels, logits.shape[1], where=rows, group=group, dtype=logits.dtype)
        constant = task.constant(prior, global_count(rows, group, logits.dtype))

        own = others = None
        if real.h_hat is not None:
            own, others = (
                torch.stack([promote(predict(fuse(zero_absent(h, only), only))) for only in alone_in(has)])
                for h in (features, real.h_hat)
            )
            if not task.adds_up:
                sizes: dict[str, Any] = {"where": rows, "group": group, "task": task}
                found = alone_in_joint(logits, own, has, constant, **sizes)
                scaled = partial(scaled_estimates, found=found, labels=labels, present=has, constant=constant, **sizes)
                own, others = scaled(own), scaled(others)
        masks: dict[str, Any] = {"where": rows, "group": group, "task": task}
        return explained_outputs(
            logits,
            predict(real.z_c),
            own,
            others,
            constant,
            labels,
            has,
            label_smoothing=config.label_smoothing,
            **masks,
        )
