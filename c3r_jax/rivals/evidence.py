"""Losses of fusions that weigh each modality by what it knows: evidence (TMC) and confidence (QMF)."""

from functools import partial

import jax
import jax.numpy as jnp
from jax.scipy.special import digamma, gammaln
from jaxtyping import Array, Bool, Float, Int

from c3r_jax.core._batch import all_rows, first_row, global_mean


def combined_evidence(evidence: Float[Array, "modalities batch classes"]) -> Float[Array, "batch classes"]:
    r"""Combines the modalities' opinions by Dempster's rule, in its reduced form.

    .. math::
       b_k = \frac{b^1_k b^2_k + b^1_k u^2 + b^2_k u^1}{1 - C}, \quad u = \frac{u^1 u^2}{1 - C}, \quad
       C = \sum_{i \ne j} b^1_i b^2_j

    with b = e / S, u = K / S and S = sum(e) + K for each opinion, one modality after another; 1 - C is the sum of all
    numerators. In terms of evidence, where everything but the products cancels: e = e^1 + e^2 + e^1 e^2 / K.

    Args:
      evidence: (M, B, K) numbers >= 0; all 0: the modality says nothing.

    Returns:
      (B, K) evidence of the combined opinion.

    Examples:
      >>> import jax.numpy as jnp
      >>> print(combined_evidence(jnp.array([[[2.0, 0.0]], [[2.0, 4.0]]])))
      [[6. 4.]]

    References:
      Z. Han et al., Trusted multi-view classification, 2021, arXiv 2102.02051, definition 4.
    """
    total = evidence[0]
    for other in evidence[1:]:
        total = total + other + total * other / evidence.shape[-1]
    return total


def evidential_loss(
    alpha: Float[Array, "batch classes"], labels: Int[Array, " batch"], divergence: Float[Array, ""] | float
) -> Float[Array, " batch"]:
    r"""Expected cross-entropy under a Dirichlet distribution, and a penalty of evidence for the wrong classes.

    .. math::
       L = \psi(S) - \psi(\alpha_y) + \lambda KL[D(\tilde\alpha) \| D(1)], \quad
       \tilde\alpha = y + (1 - y) \odot \alpha

    Args:
      alpha: (B, K) concentrations > 0; S is their sum.
      labels: (B,) class ids.
      divergence: lambda, raised from 0 in the course of training.

    Returns:
      (B,) losses in nats.

    Examples:
      >>> import jax.numpy as jnp
      >>> print(evidential_loss(jnp.array([[2.0, 1.0]]), jnp.array([0]), 1.0).round(4))  # psi(3) - psi(2)
      [0.5]

    References:
      M. Sensoy et al., Evidential deep learning to quantify classification uncertainty, 2018, arXiv 1806.01768.
      Z. Han et al., Trusted multi-view classification, 2021, arXiv 2102.02051.
    """
    own = labels[:, None] == jnp.arange(alpha.shape[1])[None]
    expected = digamma(alpha.sum(1)) - digamma(jnp.where(own, alpha, 0).sum(1))
    wrong = jnp.where(own, 1, alpha)
    strength = wrong.sum(1, keepdims=True)
    count = jnp.asarray(alpha.shape[1], alpha.dtype)
    apart = gammaln(strength[:, 0]) - gammaln(count) - gammaln(wrong).sum(1)
    apart += ((wrong - 1) * (digamma(wrong) - digamma(strength))).sum(1)
    return expected + divergence * apart


def trusted_loss(
    fused: Float[Array, "batch classes"],
    opinions: Float[Array, "modalities batch classes"],
    labels: Int[Array, " batch"],
    present: Bool[Array, "batch modalities"],
    divergence: Float[Array, ""] | float,
    *,
    where: Bool[Array, " batch"],
    axis_name: str | None = None,
) -> Float[Array, ""]:
    """The loss of evidential fusion: :func:`evidential_loss` of the combined opinion and of each modality's own.

    Args:
      fused: z (B, K), log concentrations.
      opinions: (M, B, K) logits of the modalities, whose softplus is evidence.
      labels: (B,) class ids.
      present: (B, M) bool.
      divergence: lambda of :func:`evidential_loss`.
      where: (B,) bool, rows that count.
      axis_name: mapped axis over which the batch is split.

    Returns:
      The sum, a mean over the global batch each.
    """
    loss = global_mean(evidential_loss(jnp.exp(fused), labels, divergence), where, axis_name)
    own = jax.vmap(partial(evidential_loss, labels=labels, divergence=divergence))(1 + jax.nn.softplus(opinions))
    return loss + jax.vmap(lambda x, rows: global_mean(x, rows, axis_name))(own, where[None] & present.T).sum()


def ranking_loss(
    confidence: Float[Array, " batch"],
    losses: Float[Array, " batch"],
    *,
    where: Bool[Array, " batch"],
    axis_name: str | None = None,
) -> Float[Array, ""]:
    r"""Asks that examples which a modality fits worse be given less confidence.

    .. math::
       \text{mean}_{i} [ s_{ij} (w_i - w_j) + |\kappa_i - \kappa_j| ]_+, \quad s_{ij} = \text{sign}(\kappa_i - \kappa_j)

    over pairs of neighbours of the global batch, j = i + 1 (the last with the first). kappa is the modality's loss,
    scaled to [0, 1] over the batch. The paper takes its mean over the examples' history; here it is this batch's, so
    that no state of the examples is kept.

    Args:
      confidence: (B,) w of one modality.
      losses: (B,) its losses; no gradient goes through them.
      where: (B,) bool, rows that have the modality.
      axis_name: mapped axis over which the batch is split.

    Returns:
      The mean over the global batch's pairs.

    Examples:
      >>> import jax.numpy as jnp
      >>> losses, both = jnp.array([0.0, 2.0]), jnp.array([True, True])
      >>> ranking_loss(jnp.array([3.0, 1.0]), losses, where=both), ranking_loss(jnp.zeros(2), losses, where=both)
      (Array(0., dtype=float32), Array(1., dtype=float32))

    References:
      Q. Zhang et al., Provable dynamic fusion for low-quality multimodal data, 2023, arXiv 2306.02050.
    """
    losses = jax.lax.stop_gradient(losses)
    low, high = jnp.where(where, losses, jnp.inf).min(), jnp.where(where, losses, -jnp.inf).max()
    if axis_name is not None:
        low, high = jax.lax.pmin(low, axis_name), jax.lax.pmax(high, axis_name)
    span = high - low
    kappa = jnp.where(where & (span > 0), (losses - low) / jnp.where(span > 0, span, 1), 0)
    everything = all_rows((confidence, kappa, where), axis_name)
    following = (first_row(len(losses), axis_name) + 1 + jnp.arange(len(losses))) % len(everything[0])
    other_w, other_kappa, other_where = (x[following] for x in everything)
    apart = kappa - other_kappa
    terms = jax.nn.relu(jnp.sign(apart) * (confidence - other_w) + jnp.abs(apart))
    return global_mean(terms, where & other_where, axis_name)
