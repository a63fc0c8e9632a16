"""Losses of fusions that weight each modality by its certainty: evidence (TMC) and confidence (QMF)."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax.scipy.special import digamma, gammaln
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from c3r_jax.core.batch import all_rows, first_row, global_mean
from c3r_jax.methods.encoded_batch import EncodedBatch
from c3r_jax.methods.rival import Rival, RivalTerms, risen
from c3r_jax.models.fusion.decisions import CONFIDENCE_SCALE
from c3r_jax.settings.fields import setting
from c3r_jax.tasks.classification import CLASSIFICATION


def evidential_loss(
    alpha: Float[Array, "batch classes"], labels: Int[Array, " batch"], divergence: Float[Array, ""] | float
) -> Float[Array, " batch"]:
    r"""Expected cross-entropy under a Dirichlet distribution, plus a penalty on evidence for the wrong classes.

    .. math::
       L = \psi(S) - \psi(\alpha_y) + \lambda KL[D(\tilde\alpha) \| D(1)], \quad
       \tilde\alpha = y + (1 - y) \odot \alpha

    Args:
      alpha: (B, K) concentrations > 0; S is their sum.
      labels: (B,) class ids.
      divergence: lambda, which rises from 0 during training.

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
    is_label = labels[:, None] == jnp.arange(alpha.shape[1])[None]
    expected = digamma(alpha.sum(1)) - digamma(jnp.where(is_label, alpha, 0).sum(1))
    wrong = jnp.where(is_label, 1, alpha)
    strength = wrong.sum(1, keepdims=True)
    count = jnp.asarray(alpha.shape[1], alpha.dtype)
    kl = gammaln(strength[:, 0]) - gammaln(count) - gammaln(wrong).sum(1)
    kl += ((wrong - 1) * (digamma(wrong) - digamma(strength))).sum(1)
    return expected + divergence * kl


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
    """The loss of evidential fusion: :func:`evidential_loss` of the combined opinion and of each modality.

    Args:
      fused: z (B, K), log concentrations.
      opinions: (M, B, K) logits of the modalities; their softplus is the evidence.
      labels: (B,) class ids.
      present: (B, M) bool.
      divergence: lambda in :func:`evidential_loss`.
      where: (B,) bool, rows that count.
      axis_name: mapped axis over which the batch is split.

    Returns:
      The sum of the losses, each a mean over the global batch.
    """
    loss = global_mean(evidential_loss(jnp.exp(fused), labels, divergence), where, axis_name)
    losses = jax.vmap(partial(evidential_loss, labels=labels, divergence=divergence))(1 + jax.nn.softplus(opinions))
    return loss + jax.vmap(lambda x, rows: global_mean(x, rows, axis_name))(losses, where[None] & present.T).sum()


def ranking_loss(
    confidence: Float[Array, " batch"],
    losses: Float[Array, " batch"],
    *,
    where: Bool[Array, " batch"],
    axis_name: str | None = None,
) -> Float[Array, ""]:
    r"""Penalises higher confidence on examples that a modality fits worse.

    .. math::
       \text{mean}_{i} [ s_{ij} (w_i - w_j) + |\kappa_i - \kappa_j| ]_+, \quad s_{ij} = \text{sign}(\kappa_i - \kappa_j)

    over pairs of neighbours of the global batch, j = i + 1 (the last with the first). kappa is the modality's loss,
    scaled to [0, 1] over the batch. The paper averages it over each example's history; here it is this batch's
    loss, so that no state per example is stored.

    Args:
      confidence: (B,) w of one modality.
      losses: (B,) the modality's losses; no gradient flows through them.
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
    if axis_name:
        low, high = jax.lax.pmin(low, axis_name), jax.lax.pmax(high, axis_name)
    span = high - low
    kappa = jnp.where(where & (span > 0), (losses - low) / jnp.where(span > 0, span, 1), 0)
    all_columns = all_rows((confidence, kappa, where), axis_name)
    following = (first_row(len(losses), axis_name) + 1 + jnp.arange(len(losses))) % len(all_columns[0])
    other_w, other_kappa, other_where = (x[following] for x in all_columns)
    gap = kappa - other_kappa
    terms = jax.nn.relu(jnp.sign(gap) * (confidence - other_w) + jnp.abs(gap))
    return global_mean(terms, where & other_where, axis_name)


@dataclass(frozen=True)
class EvidentialLoss(Rival):
    """The loss of evidential fusion: :func:`trusted_loss` in place of the task's loss."""

    fusion: ClassVar[str] = "evidential"
    tasks: ClassVar[tuple[str, ...]] = (CLASSIFICATION.name,)

    strength: float = setting(1.0, "weight of the divergence", least=0)
    warmup: int = setting(100, "steps over which that weight rises from 0", least=0)

    def terms(self, batch: EncodedBatch, *, step: Array, state: Mapping[str, Array], key: PRNGKeyArray) -> RivalTerms:
        """See :meth:`Rival.terms`."""
        del state, key
        share, alone, z = risen(step, self.warmup), batch.alone(), batch.z()
        task = trusted_loss(z, alone, batch.labels, batch.present, share * self.strength, **batch.masks)
        return RivalTerms(task, jnp.zeros(()))


@dataclass(frozen=True)
class ConfidenceLoss(Rival):
    """The loss of confidence fusion: adds each modality's loss and the ranking of its confidence."""

    fusion: ClassVar[str] = "confidence"
    tasks: ClassVar[tuple[str, ...]] = (CLASSIFICATION.name,)

    strength: float = setting(1.0, "weight of the ranking", least=0)

    def terms(self, batch: EncodedBatch, *, step: Array, state: Mapping[str, Array], key: PRNGKeyArray) -> RivalTerms:
        """See :meth:`Rival.terms`."""
        del step, state, key
        total = jnp.zeros(())
        for m, logits in enumerate(batch.alone()):
            rows = batch.where & batch.present[:, m]
            losses, confidence = batch.losses(logits), jax.nn.logsumexp(logits, axis=-1) / CONFIDENCE_SCALE
            ranking = ranking_loss(confidence, losses, where=rows, axis_name=batch.axis_name)
            total = total + global_mean(losses, rows, batch.axis_name) + self.strength * ranking
        return RivalTerms(None, total)
