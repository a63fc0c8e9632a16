"""On-the-fly gradient modulation (OGM-GE): slows down the encoder of the leading modality."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from c3r_jax.core.batch import weighted_mean
from c3r_jax.methods.encoded_batch import EncodedBatch
from c3r_jax.methods.rival import ONE_OUTPUT, Rival, RivalTerms
from c3r_jax.settings.fields import setting


def modulation(scores: Float[Array, " modalities"], alpha: Float[Array, ""] | float) -> Float[Array, " modalities"]:
    r"""The factor on each encoder's gradient.

    .. math::
       \rho_m = s_m / \text{mean}_{n \ne m} s_n, \quad k_m = 1 - \tanh(\alpha \rho_m) \text{ if } \rho_m > 1,
       \text{ else } 1

    With two modalities rho is the published discrepancy ratio.

    Args:
      scores: (M,) s_m, how well each modality alone predicts the label (its mean p_y).
      alpha: strength.

    Returns:
      (M,) numbers in [0, 1].

    Examples:
      >>> import jax.numpy as jnp
      >>> print(modulation(jnp.array([0.8, 0.4]), 0.5).round(3))  # 1 - tanh(1)
      [0.238 1.   ]

    References:
      X. Peng et al., Balanced multimodal learning via on-the-fly gradient modulation, 2022, arXiv 2203.15332.
    """
    others = (scores.sum() - scores) / (len(scores) - 1)
    ratio = scores / jnp.maximum(others, 1e-12)
    return jax.lax.stop_gradient(jnp.where(ratio > 1, 1 - jnp.tanh(alpha * ratio), 1))


def modulated(gradient: Mapping[str, Any], scales: Mapping[str, Float[Array, ""]], key: PRNGKeyArray) -> dict[str, Any]:
    r"""Scales each encoder's gradient, and adds noise to its matrices: g <- k g + N(0, sd(g)^2).

    sd is the standard deviation of the tensor's entries before scaling. The gradient must be that of the global batch,
    so that every device adds the same noise to the same numbers.

    Args:
      gradient: {"encoders_NAME" and other modules: tree}.
      scales: {NAME: k} from :func:`modulation`.
      key: the noise's PRNG key.

    Returns:
      The gradient; other modules' gradients are unchanged.

    References:
      As :func:`modulation`; the noise is the paper's generalisation enhancement (GE).
    """

    def changed(value: Array, scale: Array, key: PRNGKeyArray) -> Array:
        noise = value.std() * jax.random.normal(key, value.shape, value.dtype) if value.ndim > 1 else 0
        return scale.astype(value.dtype) * value + noise

    result = dict(gradient)
    for m, (name, scale) in enumerate(sorted(scales.items())):
        part = f"encoders_{name}"
        if part not in gradient:  # a frozen encoder has no gradient
            continue
        leaves, tree = jax.tree.flatten(gradient[part])
        keys = jax.random.split(jax.random.fold_in(key, m), len(leaves))
        leaves = [changed(leaf, scale, keys[i]) for i, leaf in enumerate(leaves)]
        result[part] = jax.tree.unflatten(tree, leaves)
    return result


@dataclass(frozen=True)
class OGMGE(Rival):
    """Scales the encoders' gradients by :func:`modulation`; the loss is unchanged."""

    name: ClassVar[str] = "ogm_ge"
    tasks: ClassVar[tuple[str, ...]] = ONE_OUTPUT

    strength: float = setting(1.0, "alpha, how much the leading encoder is slowed down", least=0)

    def terms(self, batch: EncodedBatch, *, step: Array, state: Mapping[str, Array], key: PRNGKeyArray) -> RivalTerms:
        """See :meth:`Rival.terms`; the scales are the encoders', by modality."""
        del step, state, key
        scores = [
            weighted_mean(
                batch.target.probability(logits, batch.labels),
                batch.where & batch.present[:, m],
                batch.target.weights(batch.labels),
                batch.axis_name,
            )
            for m, logits in enumerate(batch.alone())
        ]
        scales = dict(zip(batch.model.modalities, modulation(jnp.stack(scores), self.strength), strict=True))
        metrics = {f"modulation/{name}": scale for name, scale in scales.items()}
        return RivalTerms(None, jnp.zeros(()), scales=scales, metrics=metrics)

    def change_gradient(self, gradient: Any, terms: RivalTerms, key: PRNGKeyArray) -> Any:
        """See :func:`modulated`."""
        return modulated(gradient, terms.scales, key)
