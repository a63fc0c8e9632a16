"""On-the-fly gradient modulation (OGM-GE): the encoder of the modality that leads is slowed down."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray


def modulation(scores: Float[Array, " modalities"], alpha: Float[Array, ""] | float) -> Float[Array, " modalities"]:
    r"""By how much each encoder's gradient is scaled.

    .. math::
       \rho_m = s_m / \text{mean}_{n \ne m} s_n, \quad k_m = 1 - \tanh(\alpha \rho_m) \text{ if } \rho_m > 1,
       \text{ else } 1

    With two modalities rho is the published discrepancy ratio.

    Args:
      scores: (M,) s_m, how much of the label each modality tells alone (its mean p_y).
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
    r"""Scales each encoder's gradient, and gives its matrices back the noise they lose: g <- k g + N(0, sd(g)^2).

    sd is that of the tensor's own entries before scaling. The gradient must be that of the global batch, so that every
    device adds the same noise to the same numbers.

    Args:
      gradient: {"encoders_NAME" and other modules: tree}.
      scales: {NAME: k} of :func:`modulation`.
      key: of the noise.

    Returns:
      The gradient, other modules' untouched.

    References:
      As :func:`modulation`; the noise is the paper's generalisation enhancement (GE).
    """

    def own(value: Array, scale: Array, key: PRNGKeyArray) -> Array:
        noise = value.std() * jax.random.normal(key, value.shape, value.dtype) if value.ndim > 1 else 0
        return scale.astype(value.dtype) * value + noise

    result = dict(gradient)
    for m, (name, scale) in enumerate(sorted(scales.items())):
        part = f"encoders_{name}"
        if part not in gradient:  # a frozen encoder has no gradient
            continue
        leaves, tree = jax.tree.flatten(gradient[part])
        keys = jax.random.split(jax.random.fold_in(key, m), len(leaves))
        moved = [own(leaf, scale, keys[i]) for i, leaf in enumerate(leaves)]
        result[part] = jax.tree.unflatten(tree, moved)
    return result
