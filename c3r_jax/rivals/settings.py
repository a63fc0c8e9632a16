"""Which published way of training is compared with, and its numbers: a configuration value."""

import math
from dataclasses import dataclass

from jax.core import Tracer

BY_ENVIRONMENT = ("irm", "vrex", "group_dro")
RIVALS = ("none", "ogm_ge", "mixup", *BY_ENVIRONMENT, "casn", "alignment")
WITH_LOSSES = ("evidential", "confidence")  # fusions that are trained by a loss of their own


@dataclass(frozen=True)
class Rival:
    """A way of training besides C3R; it can be joined with C3R's terms.

    Attributes:
      name: one of :data:`RIVALS`.
      strength: weight of the penalty (irm, vrex, casn, alignment, and the divergence or ranking of evidential and
        confidence fusion); alpha of ogm_ge and of mixup's Beta draw; step size of group_dro.
      warmup: steps over which the weights of irm, vrex, casn and the evidential divergence rise from 0.
      radius: of casn's intervention, in units of rms(z).
      temperature: of alignment's similarities.
      environments: number of environments that training rows come from; 0: they are not known.

    Raises:
      ValueError: naming the field, its value and what was expected.

    Examples:
      >>> Rival("mixup", strength=0.2).name
      'mixup'
    """

    name: str = "none"
    strength: float = 1.0
    warmup: int = 100
    radius: float = 1.0
    temperature: float = 0.1
    environments: int = 0

    def __post_init__(self) -> None:
        if self.name not in RIVALS:
            raise ValueError(f"Rival.name is {self.name!r}: expected one of {', '.join(RIVALS)}.")
        for name, least in (
            ("strength", 0),
            ("warmup", 0),
            ("environments", 0),
            ("radius", None),
            ("temperature", None),
        ):
            value = getattr(self, name)
            if isinstance(value, Tracer):
                continue
            if not math.isfinite(value) or (value <= 0 if least is None else value < least):
                expected = "a positive number" if least is None else "a number >= 0"
                raise ValueError(f"Rival.{name} is {value}: expected {expected}.")
        if self.name == "mixup" and not isinstance(self.strength, Tracer) and self.strength == 0:
            raise ValueError("Rival.strength is 0, but mixup draws from Beta(strength, strength): use name 'none'.")
        if self.name in BY_ENVIRONMENT and self.environments < 2:
            raise ValueError(
                f"Rival.name is {self.name!r}, which compares environments, but the training rows have "
                f"{self.environments} of them: at least 2 were expected."
            )


NO_RIVAL = Rival()
