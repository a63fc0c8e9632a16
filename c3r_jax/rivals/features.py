"""Training on what encoders return: mixed examples, interventions (CaSN) and aligned modalities."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Num, PRNGKeyArray

from c3r_jax.core._batch import all_rows, first_row, global_mean, promote
from c3r_jax.core.contrastive import contrastive_c3r_loss, unit
from c3r_jax.core.counterfactual import Predict
from c3r_jax.core.real_world import Features, Fuse


def mixup_loss(
    predict: Predict,
    fuse: Fuse,
    features: Features,
    labels: Num[Array, "batch ..."],
    loss: Callable[[Array, Array], Float[Array, " batch"]],
    *,
    alpha: Float[Array, ""] | float,
    key: PRNGKeyArray,
    present: Bool[Array, "batch modalities"],
    where: Bool[Array, " batch"],
    axis_name: str | None = None,
) -> Float[Array, ""]:
    r"""The loss at mixed examples, of mixed labels.

    .. math::
       \tilde h_i = \lambda h_i + (1 - \lambda) h_j, \quad \lambda \sim \text{Beta}(\alpha, \alpha), \quad
       L = \lambda\, \ell(\tilde h, y_i) + (1 - \lambda)\, \ell(\tilde h, y_j)

    j is a permutation of the global batch. Representations are mixed, not inputs, so that pictures, texts and signals
    are mixed alike (manifold mixup at the encoders' outputs). A pair shares the modalities that both have; with none in
    common it does not count.

    Args:
      predict: z (B, d) -> outputs (B, K).
      fuse: ({name: (B, d_name)}, present (B, M)) -> z.
      features: {name: (B, d_name)}, zero where absent.
      labels: (B, ...).
      loss: (outputs, labels) -> (B,).
      alpha: of the Beta draw.
      key: of the draw and the permutation, the same on every device.
      present: (B, M) bool.
      where: (B,) bool, rows that count.
      axis_name: mapped axis over which the batch is split; partners are gathered over it.

    Returns:
      The mean over the global batch.

    References:
      H. Zhang et al., mixup: beyond empirical risk minimization, 2018, arXiv 1710.09412.
      V. Verma et al., Manifold mixup, 2019, arXiv 1806.05236.
    """
    draw_key, order_key = jax.random.split(key)
    share = jax.random.beta(draw_key, alpha, alpha)
    everything = all_rows((dict(features), labels, present, where), axis_name)
    order = jax.random.permutation(order_key, len(everything[3]))
    partner = order[first_row(len(where), axis_name) + jnp.arange(len(where))]
    other, other_labels, other_present, other_where = jax.tree.map(lambda x: x[partner], everything)
    mixed = {
        name: share.astype(h.dtype) * h + (1 - share).astype(h.dtype) * other[name] for name, h in features.items()
    }
    both = present & other_present
    outputs = predict(fuse(mixed, both))
    losses = share * loss(outputs, labels) + (1 - share) * loss(outputs, other_labels)
    return global_mean(losses, where & other_where & both.any(1), axis_name)


@jax.custom_vjp
def reversed_gradient(x: Array) -> Array:
    """Returns x; the gradient comes back with the other sign.

    Examples:
      >>> import jax
      >>> print(jax.grad(lambda x: 3 * reversed_gradient(x))(1.0))
      -3.0
    """
    return x


reversed_gradient.defvjp(lambda x: (x, None), lambda _, g: (-g,))


def agreement(
    predict: Predict,
    intervene: Callable[[Array], Array],
    z: Float[Array, "batch d"],
    *,
    radius: float,
    where: Bool[Array, " batch"],
    axis_name: str | None = None,
) -> Float[Array, ""]:
    r"""CaSN's monotonicity measure: how often the prediction stays what it was when the cause is changed.

    .. math::
       M = \text{mean}_i \sum_k p_k(z_i) p_k(\bar z_i), \quad
       \bar z = z + \delta\, \text{rms}(z) \frac{\xi(z)}{|\xi(z)|}

    Sufficiency is the task's loss at z; encoders and head minimise M, so that a change of the cause changes the
    prediction (necessity), and the intervener xi maximises it. The published bound on the risk of not being necessary
    and sufficient is M + 2 SF under |z - z_bar| > delta, here met with equality. Representations are points, not
    distributions, so there is no divergence from a prior.

    Args:
      predict: z (B, d) -> logits (B, K).
      intervene: xi, z (B, d) -> (B, d); its parameters with :func:`reversed_gradient`.
      z: (B, d).
      radius: delta, in units of rms(z).
      where: (B,) bool, rows that count.
      axis_name: mapped axis over which the batch is split.

    Returns:
      M in [0, 1].

    References:
      M. Yang et al., Invariant learning via probability of sufficient and necessary causes, 2023, arXiv 2309.12559.
    """
    fixed = jax.lax.stop_gradient(promote(z))
    size = jnp.sqrt(global_mean(jnp.square(fixed).sum(1), where, axis_name))
    moved = z + (radius * size * unit(intervene(fixed))).astype(z.dtype)
    both = jax.nn.softmax(predict(z)) * jax.nn.softmax(predict(moved))
    return global_mean(both.sum(1), where, axis_name)


def alignment_loss(
    features: Features,
    *,
    temperature: float,
    present: Bool[Array, "batch modalities"],
    where: Bool[Array, " batch"],
    axis_name: str | None = None,
) -> Float[Array, ""]:
    r"""CLIP's term: an example's modalities must find each other among those of the global batch.

    .. math::
       -\log \frac{e^{\langle h^m_i, k_i \rangle / \tau}}{\sum_j e^{\langle h^m_i, k_j \rangle / \tau}}

    of unit vectors, in the mean over examples and modalities; k is the other modality, or the unit mean of the others
    (:func:`c3r_jax.core.contrastive.contrastive_c3r_loss`, whose logits have a fixed temperature here).

    Args:
      features: {name: (B, d)}, zero where absent.
      temperature: tau.
      present: (B, M) bool.
      where: (B,) bool, rows that count.
      axis_name: mapped axis over which the batch is split.

    Returns:
      The loss in nats.

    References:
      A. Radford et al., Learning transferable visual models from natural language supervision, 2021.
    """

    def match(queries: Array, keys: Array) -> Any:
        return queries @ keys.T / temperature

    contrast = partial(contrastive_c3r_loss, match, regularised=False)
    return contrast(features, present=present, where=where, axis_name=axis_name)[0]
