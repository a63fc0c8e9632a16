"""Alignment: an example's modalities must find each other in the batch, as CLIP trains them."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from jaxtyping import Array, Bool, Float, PRNGKeyArray

from c3r_jax.core.contrastive import contrastive_c3r_loss
from c3r_jax.core.instruments import Features
from c3r_jax.methods.encoded_batch import EncodedBatch
from c3r_jax.methods.rival import ONE_OUTPUT, Rival, RivalTerms
from c3r_jax.settings.fields import setting


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

    over unit vectors, averaged over examples and modalities; k is the other modality, or the unit mean of the others
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


@dataclass(frozen=True)
class Alignment(Rival):
    """Adds :func:`alignment_loss` to the loss."""

    name: ClassVar[str] = "alignment"
    tasks: ClassVar[tuple[str, ...]] = ONE_OUTPUT

    strength: float = setting(1.0, "weight of the penalty", least=0)
    temperature: float = setting(0.1, "temperature of the similarities", above=0)

    def terms(self, batch: EncodedBatch, *, step: Array, state: Mapping[str, Array], key: PRNGKeyArray) -> RivalTerms:
        """See :meth:`Rival.terms`."""
        del step, state, key
        loss = alignment_loss(batch.h, temperature=self.temperature, present=batch.present, **batch.masks)
        return RivalTerms(None, self.strength * loss)
