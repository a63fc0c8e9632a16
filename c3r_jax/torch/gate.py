"""How far the real world explains what a model predicts: C3R may silence the rest only to that degree."""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from c3r_jax.objective_config import C3RConfig


class Weights(NamedTuple):
    """What multiplies each part of the objective beside the task; numbers, or scalar tensors where they are gated.

    Attributes:
      expert: share of the task term beyond the experts, 0 to 1.
      sufficiency, necessity, relevance, closeness: weights of the loss terms.
    """

    expert: Any
    sufficiency: Any
    necessity: Any
    relevance: Any
    closeness: Any


def weights_of(config: C3RConfig, explained: Float[Tensor, ""] | None) -> Weights:
    """The configured weights times the strength, and where ``config.gate`` says so times the explained share.

    A weight of 0 stays the number 0, so that its term is left out of the loss.

    Args:
      config: the configuration.
      explained: output of :func:`explained_share`; None without a gate.
    """

    def gated(weight: float) -> Any:
        return weight if explained is None or not config.gate or is_zero(weight) else weight * explained

    expert = gated(config.expert * config.strength)
    return Weights(
        expert=expert.clamp(max=1) if isinstance(expert, Tensor) else min(1, expert),
        sufficiency=config.lambda_s * config.strength,
        necessity=gated(config.lambda_n * config.strength),
        relevance=config.lambda_v * config.strength,
        closeness=config.lambda_fe * config.strength,
    )


def cap_of(config: C3RConfig) -> Any:
    """The configured cap, and where ``config.gate`` says so times the explained share: a function of the terms.

    Smaller weights alone would not do: where the penalties' gradient is beyond the cap, it would still be as long.
    """

    def gated(terms: Any) -> Float[Tensor, ""]:
        return config.cap * terms.explained

    return gated if config.gate else config.cap


def is_zero(weight: Any) -> bool:
    """Whether a weight is the number 0."""
    return not isinstance(weight, Tensor) and weight == 0


def explained_share(
    at_z: Float[Tensor, ""], at_z_c: Float[Tensor, ""], at_constant: Float[Tensor, ""]
) -> Float[Tensor, ""]:
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
      >>> [round(explained_share(*map(torch.tensor, x)).item(), 2) for x in [(0.2, 0.4, 1.0), (0.2, 1.1, 1.0)]]
      [0.75, 0.0]
    """
    at_z, at_z_c, at_constant = at_z.detach(), at_z_c.detach(), at_constant.detach()
    gained = at_constant - at_z
    predicts = gained > 1e-3 * at_constant.abs()
    return torch.where(predicts, ((at_constant - at_z_c) / torch.where(predicts, gained, 1)).clamp(0, 1), 0)


def least_share(
    own: Float[Tensor, " sets"], explained: Float[Tensor, " sets"], constant: Float[Tensor, " sets"]
) -> Float[Tensor, ""]:
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
    share = torch.minimum(share, explained_alone(own[2:], explained[2:], constant[2:]))
    return torch.minimum(share, repeated_share(explained[1], explained[2:], constant[1], constant[2:]))


@torch.no_grad()
def explained_alone(
    alone: Float[Tensor, " modalities"], explained: Float[Tensor, " modalities"], constant: Float[Tensor, " modalities"]
) -> Float[Tensor, ""]:
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
      >>> strong_and_weak = map(torch.tensor, ([0.1, 0.9], [0.9, 0.2], [1.0, 1.0]))
      >>> round(explained_alone(*strong_and_weak).item(), 2)
      0.11
    """
    gained = (constant - alone).max()
    lacking = (torch.minimum(explained, constant) - alone).clamp(min=0).max()
    predicts = gained > 1e-3 * constant.abs().max()
    return torch.where(predicts, (1 - lacking / torch.where(predicts, gained, 1)).clamp(0, 1), 1)


NOTHING_REPEATED, ENOUGH_REPEATED = 0.1, 0.3  # r up to which g is 0, and from which on it is 1


@torch.no_grad()
def repeated_share(
    together: Float[Tensor, ""],
    alone: Float[Tensor, " modalities"],
    at_constant: Float[Tensor, ""],
    constants: Float[Tensor, " modalities"],
) -> Float[Tensor, ""]:
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
      >>> parts, one = [torch.tensor(x) for x in ([0.5, 0.5], [0.7, 0.7])], torch.ones(())
      >>> [round(repeated_share(0.4 * one, x, one, torch.ones(2)).item(), 2) for x in parts]
      [1.0, 0.0]
    """
    if len(alone) == 1:
        return torch.ones_like(together)
    gained = at_constant - together
    predicts = gained > 1e-3 * at_constant.abs()
    parts = (constants - alone).clamp(min=0).sum() / torch.where(predicts, gained, 1)
    repeated = (parts - 1) / (len(alone) - 1)
    ramp = (repeated - NOTHING_REPEATED) / (ENOUGH_REPEATED - NOTHING_REPEATED)
    return torch.where(predicts, ramp.clamp(0, 1), 0)
