"""Causes that are sufficient and necessary (CaSN): a learned change of the cause must change the prediction."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from c3r_jax.core.batch import global_mean, promote
from c3r_jax.core.contrastive import unit
from c3r_jax.core.counterfactual import Predict
from c3r_jax.methods.encoded_batch import EncodedBatch
from c3r_jax.methods.rival import Rival, RivalTerms, risen
from c3r_jax.models.twin import apply
from c3r_jax.settings.fields import setting
from c3r_jax.tasks.classification import CLASSIFICATION


class Intervener(nn.Module):
    """A two-layer perceptron that proposes a change of z."""

    @nn.compact
    def __call__(self, z: Float[Array, "batch dim"]) -> Float[Array, "batch dim"]:
        """Returns a direction (B, d)."""
        return nn.Dense(z.shape[-1])(nn.relu(nn.Dense(max(16, z.shape[-1]))(z)))


@jax.custom_vjp
def reversed_gradient(x: Array) -> Array:
    """Returns x; its gradient has the sign reversed.

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
    r"""CaSN's monotonicity measure: how often the prediction stays the same when the cause is changed.

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
    agree = jax.nn.softmax(predict(z)) * jax.nn.softmax(predict(moved))
    return global_mean(agree.sum(1), where, axis_name)


def _with_reversed_gradient(variables: Mapping[str, Any]) -> dict[str, Any]:
    """The variables, with the gradient of the intervener's parameters reversed."""
    params = variables["params"]
    intervener = jax.tree.map(reversed_gradient, params["intervener"])
    return {**variables, "params": {**params, "intervener": intervener}}


@dataclass(frozen=True)
class CaSN(Rival):
    """Adds :func:`agreement` to the loss, and trains an :class:`Intervener` against it."""

    name: ClassVar[str] = "casn"
    tasks: ClassVar[tuple[str, ...]] = (CLASSIFICATION.name,)

    strength: float = setting(1.0, "weight of the penalty", least=0)
    warmup: int = setting(100, "steps over which that weight rises from 0", least=0)
    radius: float = setting(1.0, "radius of the intervention, in units of rms(z)", above=0)

    def extra_module(self) -> nn.Module:
        """The intervener."""
        return Intervener()

    def terms(self, batch: EncodedBatch, *, step: Array, state: Mapping[str, Array], key: PRNGKeyArray) -> RivalTerms:
        """See :meth:`Rival.terms`."""
        del state, key
        model, weight = batch.model, risen(step, self.warmup) * self.strength
        intervene = partial(apply, model, _with_reversed_gradient(batch.variables), model.intervene)
        measure = agreement(batch.predict, intervene, batch.z(), radius=self.radius, **batch.masks)
        return RivalTerms(None, weight * measure)
