"""How far the real world explains a model's predictions, measured on rows that it is not trained on."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Num

from c3r_jax.core.alone import alone_in, alone_in_joint, scaled_estimates
from c3r_jax.core.batch import global_count, zero_absent
from c3r_jax.core.batch_checks import check_batch
from c3r_jax.core.config import C3RConfig
from c3r_jax.core.counterfactual import Predict
from c3r_jax.core.explained import explained_outputs
from c3r_jax.core.instruments import Features, Fuse, RealWorld, causal_representation, no_moments
from c3r_jax.core.mapped_axes import AxisName, checked_axis
from c3r_jax.core.moments import Moments
from c3r_jax.core.tasks.base import Task
from c3r_jax.core.tasks.classification import CLASSIFICATION
from c3r_jax.earlier_moments import check_moments


def held_out_share(
    predict: Predict,
    fuse: Fuse,
    features: Features,
    labels: Num[Array, "batch ..."],
    moments: Moments,
    *,
    config: C3RConfig = C3RConfig(),
    present: Bool[Array, "batch modalities"] | None = None,
    where: Bool[Array, " batch"] | None = None,
    axis_name: AxisName = None,
    task: Task = CLASSIFICATION,
) -> Float[Array, ""]:
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
    All three are asked for whatever ``config.subsets`` is: unlike in training, single modalities cost little here.

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
      axis_name: mapped axis over which the rows are split.
      task: what outputs and labels mean.

    Raises:
      ValueError: on arguments of the wrong shape, dtype or range.

    Examples:
      >>> import jax, jax.numpy as jnp, c3r_jax
      >>> a, b, noise = jax.random.normal(jax.random.key(0), (3, 400, 2))
      >>> same, apart = {"a": a, "b": a + 0.1 * noise}, {"a": a, "b": b}
      >>> labels = (a[:, 0] + b[:, 0] > 0).astype(int)
      >>> fuse = lambda h, present: jnp.where(present[:, :1], h["a"], 0) + jnp.where(present[:, 1:], h["b"], 0)
      >>> predict = lambda z: jnp.stack([-z[:, 0], z[:, 0]], axis=1)
      >>> def share(h):
      ...     moments = c3r_jax.c3r_loss(predict, fuse, h, labels)[1].moments
      ...     return float(held_out_share(predict, fuse, h, labels, moments))
      >>> share(same) > 0.9, share(apart) < 0.1
      (True, True)
    """
    axis = checked_axis(axis_name)
    features, labels, present, rows = check_batch(features, labels, config, present, where, task)
    z = fuse(features, present)
    real = RealWorld(z)
    if config.instrument != "none":
        widths = {name: h.shape[1] for name, h in features.items()}
        check_moments(moments, no_moments(config, widths), config.instrument, widths)
        real = causal_representation(fuse, features, present, moments, config=config, axis_name=axis)
    logits = predict(z)
    constant = task.constant(
        task.batch_prior(labels, logits.shape[1], where=rows, axis_name=axis), global_count(rows, axis, jnp.float32)
    ).astype(logits.dtype)

    own = others = None
    if real.h_hat is not None:

        def alone(h: Features) -> Float[Array, "modalities batch outputs"]:
            return jax.vmap(lambda only: predict(fuse(zero_absent(h, only), only)))(alone_in(present))

        own, others = alone(features), alone(real.h_hat)
        if not task.adds_up:
            sizes: dict[str, Any] = {"where": rows, "axis_name": axis, "task": task}
            found = alone_in_joint(logits, own, present, constant, **sizes)
            scaled = partial(scaled_estimates, found=found, labels=labels, present=present, constant=constant, **sizes)
            own, others = scaled(own), scaled(others)
    return explained_outputs(
        logits,
        predict(real.z_c),
        own,
        others,
        constant,
        labels,
        present,
        where=rows,
        axis_name=axis,
        task=task,
        label_smoothing=config.label_smoothing,
    )
