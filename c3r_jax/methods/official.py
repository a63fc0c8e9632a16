"""The public PyTorch code's image-text objective, runnable and otherwise unchanged: for comparisons only.

Its defects are reproduced: see :func:`official_compat_loss`. The C3R objective of this package is
:func:`c3r_jax.c3r_loss`.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from c3r_jax.core.risk import C3Risk, c3_risk, sufficiency_loss

LAMBDA_V, LAMBDA_FE = 0.75, 0.4  # the only weights in the public code


class OfficialTerms(NamedTuple):
    """Each term before its weight.

    Attributes:
      task: batch-mean cross-entropy at the detached z.
      relevance: KL(softmax(project(v)) || softmax([text; image])).
      closeness: MSE(z_bar, z).
      risk: 0/1 :class:`C3Risk`.
      logits: (B, K) at z.
      z, z_bar: (B, d).
    """

    task: Float[Array, ""]
    relevance: Float[Array, ""]
    closeness: Float[Array, ""]
    risk: C3Risk
    logits: Float[Array, "batch classes"]
    z: Float[Array, "batch features"]
    z_bar: Float[Array, "batch features"]


def _linear(layer: Mapping[str, Array], x: Array) -> Array:
    y = x @ layer["kernel"]
    return y + layer["bias"][None] if "bias" in layer else y


def official_compat_loss(
    params: Mapping[str, Any],
    image: Float[Array, "batch dim"],
    text: Float[Array, "batch dim"],
    labels: Int[Array, " batch"],
) -> tuple[Float[Array, ""], OfficialTerms]:
    r"""The total loss of the public ``base_vt_causal``.

    .. math::
       s = \sigma(\langle W_Q t, W_K i \rangle / \sqrt d), \quad v = s W_V i + (1 - s) W_V t, \quad z = W [t; i] \\
       \bar z = z - \nabla_z \tfrac1B \sum CE, \quad
       L = CE + 0.75\, KL(\sigma(P v) \| \sigma([t; i])) + 0.4\, MSE(\bar z, z) + R_S + R_N

    As in the public code, z is detached (the cross-entropy trains the head alone); the counterfactual *descends* the
    loss, by a step that shrinks as 1/B; the closeness and the risks have no gradient. Only P is added, since v and
    [t; i] differ in width. The encoders therefore learn only through the relevance term, which does not use the label.

    Args:
      params: {"query", "key", "value", "project", "fusion", "head"}, each {"kernel"[, "bias"]}; the shapes are those of
        :class:`~c3r_jax.models.fusion.representations.OfficialFusion` and of a head (d, K).
      image: (B, d) representations.
      text: (B, d) representations.
      labels: (B,) class ids.

    Returns:
      The loss and :class:`OfficialTerms`.

    Examples:
      >>> import jax
      >>> h = jax.random.normal(jax.random.key(0), (2, 8, 4))
      >>> widths = dict.fromkeys(("query", "key", "value"), (4, 4))
      >>> widths |= {"project": (4, 8), "fusion": (8, 4), "head": (4, 3)}
      >>> params = {name: {"kernel": jnp.ones(shape)} for name, shape in widths.items()}
      >>> encoders = jax.grad(lambda h: official_compat_loss(params, h[0], h[1], jnp.arange(8) % 3)[1].task)(h)
      >>> print(float(abs(encoders).max()))
      0.0

    References:
      github.com/WangJingyao07/Multi-Modal-Base, models/base_vt_causal.py; docs/pytorch.md.
    """
    scores = (_linear(params["query"], text) * _linear(params["key"], image)).sum(1, keepdims=True)
    gate = jax.nn.sigmoid(scores / math.sqrt(image.shape[1]))
    v = gate * _linear(params["value"], image) + (1 - gate) * _linear(params["value"], text)
    both = jnp.concatenate([text, image], axis=1)
    z = jax.lax.stop_gradient(_linear(params["fusion"], both))

    def cross_entropy(z: Array) -> tuple[Array, Array]:
        logits = _linear(params["head"], z)
        return sufficiency_loss(logits, labels).mean(), logits

    (task, logits), gradient = jax.value_and_grad(cross_entropy, has_aux=True)(z)
    z_bar = jax.lax.stop_gradient(z - gradient)
    log_p, log_q = jax.nn.log_softmax(_linear(params["project"], v)), jax.nn.log_softmax(both)
    relevance = (jnp.exp(log_p) * (log_p - log_q)).sum(1).mean()
    closeness = jnp.square(z_bar - z).mean()
    risk = c3_risk(logits, _linear(params["head"], z_bar), labels)
    loss = task + LAMBDA_V * relevance + LAMBDA_FE * closeness + risk.total
    return loss, OfficialTerms(task, relevance, closeness, risk, logits, z, z_bar)
