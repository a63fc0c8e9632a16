"""Fusions of decisions: every modality has its own head, and z is the fused decision."""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from c3r_jax.core.batch import promote

Features = Mapping[str, Float[Array, "batch _"]]
CONFIDENCE_SCALE = 10.0  # of the confidence fusion's weights, as published; it changes no predicted class


class Decision(nn.Module):
    """The head of a fused decision: z is the logits."""

    def __call__(self, z: Float[Array, "batch classes"]) -> Float[Array, "batch classes"]:
        """Returns z."""
        return z


class DecisionFusion(nn.Module):
    """Base of the fusions of decisions: one linear head for each modality.

    Attributes:
      num_outputs: K, which is also the width of z.
    """

    num_outputs: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def opinions(self, h: Features) -> Float[Array, "modalities batch classes"]:
        """Logits of every modality alone, in float32."""
        heads = [nn.Dense(self.num_outputs, dtype=self.dtype, name=f"head_{name}")(value) for name, value in h.items()]
        return promote(jnp.stack(heads))

    def __call__(self, h: Features, present: Bool[Array, "batch modalities"]) -> Float[Array, "batch classes"]:
        """Returns the fused decision (B, K)."""
        return self.combine(self.opinions(h), present.T[..., None])

    def combine(self, opinions: Array, present: Array) -> Array:
        """The fused decision of the opinions (M, B, K) that are ``present`` (M, B, 1)."""
        raise NotImplementedError


class Late(DecisionFusion):
    r"""Late fusion: the mean of the present modalities' logits, z = mean_m (W_m h_m + b_m).

    References:
      T. Baltrusaitis et al., Multimodal machine learning: a survey and taxonomy, 2019.
    """

    def combine(self, opinions: Array, present: Array) -> Array:
        """See :class:`DecisionFusion`."""
        return jnp.where(present, opinions, 0).sum(0) / jnp.maximum(present.sum(0), 1)


class Evidential(DecisionFusion):
    r"""Trusted multi-view classification: Dempster's rule on subjective opinions.

    A modality's evidence e = softplus(W_m h_m + b_m) gives a Dirichlet distribution alpha = e + 1 with strength S =
    sum(alpha), beliefs b = e / S and uncertainty u = K / S, see :func:`combined_evidence`. z = log(alpha) of the
    combined opinion, so that softmax(z) = alpha / S, the expected probabilities. An absent modality has no evidence,
    hence u = 1, which has no effect.

    References:
      Z. Han et al., Trusted multi-view classification, 2021, arXiv 2102.02051.
    """

    def combine(self, opinions: Array, present: Array) -> Array:
        """See :class:`DecisionFusion`."""
        return jnp.log1p(combined_evidence(jnp.where(present, jax.nn.softplus(opinions), 0)))


class Confidence(DecisionFusion):
    r"""Quality-aware fusion: logits weighted by each modality's confidence in the example.

    .. math::
       z = \sum_m w_m l_m, \quad w_m = \frac{1}{10} \log \sum_k e^{l_{mk}}

    w is the negative free energy, a constant for the gradient of z; :func:`c3r_jax.methods.evidence.ranking_loss`
    trains it.

    References:
      Q. Zhang et al., Provable dynamic fusion for low-quality multimodal data, 2023, arXiv 2306.02050.
    """

    def combine(self, opinions: Array, present: Array) -> Array:
        """See :class:`DecisionFusion`."""
        weights = jax.lax.stop_gradient(jax.nn.logsumexp(opinions, axis=-1, keepdims=True)) / CONFIDENCE_SCALE
        return jnp.where(present, weights * opinions, 0).sum(0)


def combined_evidence(evidence: Float[Array, "modalities batch classes"]) -> Float[Array, "batch classes"]:
    r"""Combines the modalities' opinions by Dempster's rule, in its reduced form.

    .. math::
       b_k = \frac{b^1_k b^2_k + b^1_k u^2 + b^2_k u^1}{1 - C}, \quad u = \frac{u^1 u^2}{1 - C}, \quad
       C = \sum_{i \ne j} b^1_i b^2_j

    with b = e / S, u = K / S and S = sum(e) + K for each opinion, one modality after another; 1 - C is the sum of all
    numerators. In terms of evidence, where everything but the products cancels: e = e^1 + e^2 + e^1 e^2 / K.

    Args:
      evidence: (M, B, K) numbers >= 0; all 0: no evidence from the modality.

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
