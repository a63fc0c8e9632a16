"""How far the real world explains what a model predicts: C3R may silence the rest only to that degree."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Float

from c3r_jax.core.config import C3RConfig


class Weights(NamedTuple):
    """What multiplies each part of the objective beside the task; numbers where they are known before the program runs.

    Attributes:
      expert: share of the task term beyond the experts, 0 to 1.
      sufficiency, necessity, relevance, closeness: weights of the loss terms.
    """

    expert: Any
    sufficiency: Any
    necessity: Any
    relevance: Any
    closeness: Any


def has_gate(config: C3RConfig) -> bool:
    """Whether C3R acts only as far as an instrument explains; the share can then be measured on held-out rows."""
    return config.gate and config.instrument != "none"


def weights_of(config: C3RConfig, explained: Float[Array, ""] | None) -> Weights:
    """The configured weights times the strength, and where ``config.gate`` says so times the explained share.

    A weight of 0 stays the number 0, so that its term is not in the program at all.

    Args:
      config: the configuration.
      explained: output of :func:`explained_share`; None without a gate.
    """

    def gated(weight: Any) -> Any:
        return weight if explained is None or not config.gate or is_zero(weight) else weight * explained

    def times_strength(weight: Any) -> Any:
        return weight if is_zero(weight) else weight * config.strength

    expert = gated(times_strength(config.expert))
    return Weights(
        expert=expert if is_zero(expert) else jnp.minimum(1, expert),
        sufficiency=times_strength(config.lambda_s),
        necessity=gated(times_strength(config.lambda_n)),
        relevance=times_strength(config.lambda_v),
        closeness=times_strength(config.lambda_fe),
    )


def cap_of(config: C3RConfig, explained: Callable[[Any], Float[Array, ""]]) -> Any:
    """The configured cap, and where ``config.gate`` says so times the explained share: then a function of the terms.

    Smaller weights alone would not do: where the penalties' gradient is beyond the cap, it would still be as long.

    Args:
      config: the configuration.
      explained: takes the explained share from the terms.
    """
    return (lambda terms: config.cap * explained(terms)) if config.gate else config.cap


def is_zero(weight: Any) -> bool:
    """Whether a weight is the number 0, known before the program runs."""
    return not isinstance(weight, Tracer | jax.Array) and weight == 0


def at_most_one(strength: Any) -> Any:
    """min(1, strength); a number where that is known before the program runs."""
    return jnp.minimum(1, strength) if isinstance(strength, Tracer | jax.Array) else min(1.0, strength)


def explained_share(
    at_z: Float[Array, ""], at_z_c: Float[Array, ""], at_constant: Float[Array, ""]
) -> Float[Array, ""]:
    r"""The share of what z predicts that z_c predicts too, from their mean losses; without gradient.

    .. math::
       g = \left[ \frac{H - S}{H - T} \right]_0^1

    H is the loss of the best constant prediction, T the loss at z, S at z_c. Where modalities share what decides the
    label, g is near 1. Where each sees a part of the label of its own, nothing passes the instrument and g is 0: what
    it does not explain may then be the only evidence there is. It is 0 as long as z predicts nothing.

    Args:
      at_z: T.
      at_z_c: S.
      at_constant: H.

    Examples:
      >>> import jax.numpy as jnp
      >>> [float(explained_share(*map(jnp.asarray, losses)).round(2)) for losses in [(0.2, 0.4, 1.0), (0.2, 1.1, 1.0)]]
      [0.75, 0.0]
    """
    at_z, at_z_c, at_constant = jax.lax.stop_gradient((at_z, at_z_c, at_constant))
    gained = at_constant - at_z
    predicts = gained > 1e-3 * jnp.abs(at_constant)
    return jnp.where(predicts, jnp.clip((at_constant - at_z_c) / jnp.where(predicts, gained, 1), 0, 1), 0)


def least_share(
    own: Float[Array, " sets"], explained: Float[Array, " sets"], constant: Float[Array, " sets"]
) -> Float[Array, ""]:
    """:func:`explained_share`, :func:`explained_alone` or :func:`repeated_share`, whichever is least; without gradient.

    Args:
      own: (1,) or (2 + M,) mean losses at z, and perhaps at z in the rows with several modalities and of each modality
        alone.
      explained: the same at z_c, and of what the others explain of each modality.
      constant: the same of the best constant prediction.
    """
    share = explained_share(own[0], explained[0], constant[0])
    if len(own) == 1:
        return share
    share = jnp.minimum(share, explained_alone(own[2:], explained[2:], constant[2:]))
    return jnp.minimum(share, repeated_share(explained[1], explained[2:], constant[1], constant[2:]))


def explained_alone(
    alone: Float[Array, " modalities"], explained: Float[Array, " modalities"], constant: Float[Array, " modalities"]
) -> Float[Array, ""]:
    r"""How far the others explain what single modalities predict, from mean losses; without gradient.

    .. math::
       g = \left[ 1 - \frac{\max_m (\min(S_m, H_m) - T_m)_+}{\max_m (H_m - T_m)} \right]_0^1

    T_m is the loss of modality m alone, S_m that of what the other modalities explain of it, H_m of the best constant
    prediction. What z_c predicts can come from one strong modality through what it says of a weak one; the weak one
    explains nothing of the strong one, and g is near 0. A modality that predicts little counts little. It is 1 where
    none predicts anything.

    Args:
      alone: (M,) T_m, each over the rows with modality m and another.
      explained: (M,) S_m.
      constant: (M,) H_m.

    Examples:
      >>> import jax.numpy as jnp
      >>> strong_and_weak = [jnp.asarray(x) for x in ([0.1, 0.9], [0.9, 0.2], [1.0, 1.0])]
      >>> print(explained_alone(*strong_and_weak).round(2))
      0.11
    """
    alone, explained, constant = jax.lax.stop_gradient((alone, explained, constant))
    gained = (constant - alone).max()
    lacking = jnp.maximum(jnp.minimum(explained, constant) - alone, 0).max()
    predicts = gained > 1e-3 * jnp.abs(constant).max()
    return jnp.where(predicts, jnp.clip(1 - lacking / jnp.where(predicts, gained, 1), 0, 1), 1)


NOTHING_REPEATED, ENOUGH_REPEATED = 0.1, 0.3  # r up to which g is 0, and from which on it is 1


def repeated_share(
    together: Float[Array, ""],
    alone: Float[Array, " modalities"],
    at_constant: Float[Array, ""],
    constants: Float[Array, " modalities"],
) -> Float[Array, ""]:
    r"""How far what the others explain of single modalities says the same, from mean losses; without gradient.

    .. math::
       r = \frac{1}{M - 1} \left( \frac{\sum_m (H_m - S_m)_+}{H - S} - 1 \right), \quad
       g = \left[ \frac{r - 0.1}{0.2} \right]_0^1

    S_m is the loss of what the other modalities explain of modality m, S that of all these parts together, H_m and H
    of the best constant prediction. Where one cause is behind all modalities, each part says nearly as much as all of
    them, and r is near 1. Where the evidence is dealt out to the modalities, their parts add up, and r is near 0: each
    of them alone then knows little, and has nothing to lean on in place of what C3R would silence. It is 0 where the
    parts say nothing, and 1 for one modality.

    Args:
      together: S, over the rows with several modalities.
      alone: (M,) S_m, each over those of them with modality m.
      at_constant: H.
      constants: (M,) H_m.

    Examples:
      >>> import jax.numpy as jnp
      >>> ones = jnp.ones(2)
      >>> [float(repeated_share(0.4, jnp.asarray(parts), 1.0, ones).round(2)) for parts in ([0.5, 0.5], [0.7, 0.7])]
      [1.0, 0.0]
    """
    if len(alone) == 1:
        return jnp.ones((), alone.dtype)
    together, alone, at_constant, constants = jax.lax.stop_gradient((together, alone, at_constant, constants))
    gained = at_constant - together
    predicts = gained > 1e-3 * jnp.abs(at_constant)
    parts = jnp.maximum(constants - alone, 0).sum() / jnp.where(predicts, gained, 1)
    repeated = (parts - 1) / (len(alone) - 1)
    ramp = (repeated - NOTHING_REPEATED) / (ENOUGH_REPEATED - NOTHING_REPEATED)
    return jnp.where(predicts, jnp.clip(ramp, 0, 1), 0)
