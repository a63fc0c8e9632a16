"""Structural causal models with known causes, on which one can check whether a method finds them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit

from c3r_jax.data.counter_rng import check_seed, example_rng

MODELS = ("confounded", "anticausal", "null")
REGIMES = ("same", "shift")
CUE_GAIN = 0.35  # r - 1/2: how much more often than by chance an anticausal cue equals the label
NUM_FACTORS, HIDDEN, WIDTH = 5, 32, 24
# Standard deviations of the sensor noise on each modality's five factors, in the units of the factors.
CONFOUNDED_NOISE = np.array([0.35, 0.1, 0.3, 0.3, 0.3])
ANTICAUSAL_NOISE = np.array([0.35, 0.3, 0.3, 0.1, 0.3])


class StructuralSample(NamedTuple):
    """n samples of a structural model, with their latent factors.

    Attributes:
      inputs: {modality: (n, 24) float32}, the observed inputs of a model.
      labels: (n,) int32, 0 or 1.
      factors: {name: (n,) float64}: the cause "s", cues such as "u_m1" or "c_m1", and the model's other factors.
    """

    inputs: dict[str, np.ndarray]
    labels: np.ndarray
    factors: dict[str, np.ndarray]


@dataclass(frozen=True)
class StructuralModel:
    r"""A structural causal model of a binary label and M modalities with 24 inputs each.

    ``confounded``: s ~ Bern(1/2) causes the label, and every modality has its own confounder u_m ~ Bern(1/2):

    .. math:: \text{logit} P(y=1) = b + 2.2 (2s - 1) + g \sqrt{2/M} \sum_m (2 u_m - 1)

    with g = 1.5, and -1.5 under "shift". Factors [s - 1/2, 1.5 (u_m - 1/2), n_1, n_2, n_3], n ~ N(0, 0.5^2).

    ``anticausal``: y is s flipped with probability 0.1; a (necessary only) is 1 if s, else Bern(0.2); b (sufficient
    only) is Bern(0.8) if s, else 0; the cue c_m equals y with probability r = 0.85, and 0.15 under "shift". Factors
    [s - 1/2, a - 1/2, b - 1/2, 1.5 (c_m - 1/2), n].

    ``null``: as anticausal, but with flip probability 0.05 and without cues: nothing can shift, so regularisation can
    only cost accuracy.

    Every modality observes its factors with independent noise through a fixed random network,
    x_m = tanh(f_m A_m) C_m + N(0, 0.05^2), A_m (5, 32) ~ N(0, 1), C_m (32, 24) ~ N(0, 1/32).

    Attributes:
      name: "confounded", "anticausal" or "null".
      num_modalities: M >= 2, called "m1", "m2", ...
      seed: seed of the networks A_m, C_m; samples have a separate seed.
      positive_share: P(y = 1) in the "same" regime; set through b if confounded, else through P(s = 1).

    Raises:
      ValueError: a field is out of range; the message names it.

    Examples:
      >>> sample = StructuralModel("confounded").sample(100, seed=1)
      >>> sample.inputs["m1"].shape, sorted(sample.factors)
      ((100, 24), ['s', 'u_m1', 'u_m2'])
    """

    name: str
    num_modalities: int = 2
    seed: int = 0
    positive_share: float = 0.5

    def __post_init__(self) -> None:
        if self.name not in MODELS:
            raise ValueError(f"structural model {self.name!r} is unknown: expected one of {', '.join(MODELS)}.")
        if not isinstance(self.num_modalities, int) or self.num_modalities < 2:
            raise ValueError(f"num_modalities is {self.num_modalities!r}: expected a whole number of at least 2.")
        check_seed(self.seed)
        low, high = (0.02, 0.98) if self.name == "confounded" else (self._flip, 1 - self._flip)
        if not low < self.positive_share < high:
            raise ValueError(
                f"positive_share is {self.positive_share}: expected more than {low} and less than {high}, which the "
                f"model {self.name!r} can reach."
            )

    @property
    def _flip(self) -> float:
        """Probability that the label differs from the cause."""
        return {"anticausal": 0.1, "null": 0.05}.get(self.name, 0.0)

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the modalities, sorted."""
        return tuple(sorted(f"m{m + 1}" for m in range(self.num_modalities)))

    @property
    def cues(self) -> tuple[str, ...]:
        """Names of the factors whose relation to the label is reversed under "shift"; none for "null"."""
        letter = {"confounded": "u", "anticausal": "c"}.get(self.name)
        return tuple(f"{letter}_{name}" for name in self.modalities) if letter else ()

    def sample(
        self,
        num_examples: int,
        *,
        seed: int,
        regime: str = "same",
        do: Mapping[str, Any] | None = None,
        cue_strength: float | np.ndarray = 1.0,
    ) -> StructuralSample:
        """Samples examples, possibly under interventions.

        Exogenous noise depends only on the seed and the variable's name. Two samples that differ in ``do`` or
        ``regime`` are therefore the same examples in two worlds: an intervention changes the variable and its effects,
        and nothing else.

        Args:
          num_examples: n >= 1.
          seed: seed of the sample.
          regime: "same" as in training, or "shift", where the cues' relation to the label is reversed.
          do: {factor: 0, 1 or (n,) of them}, interventions that set a factor regardless of its causes.
          cue_strength: number >= 0, or (n,) of them, by which g, or r - 1/2, is multiplied; environments differ in it.
            At most 1 / 0.7 where cues are anticausal.

        Returns:
          :class:`StructuralSample`.

        Raises:
          ValueError: a regime, factor or value is unknown, or a strength is out of range.
        """
        if num_examples < 1:
            raise ValueError(f"num_examples is {num_examples}, but at least 1 was expected.")
        if regime not in REGIMES:
            raise ValueError(f"regime {regime!r} is unknown: expected one of {', '.join(REGIMES)}.")
        strength = np.asarray(cue_strength, np.float64)
        most = 0.5 / CUE_GAIN if self.name == "anticausal" else np.inf
        if strength.shape not in ((), (num_examples,)) or not ((strength >= 0) & (strength <= most)).all():
            raise ValueError(
                f"cue_strength is {cue_strength}: expected a number of 0 to {most:.4g}, or one for each example."
            )
        world = _World(num_examples, check_seed(seed), dict(do or {}), strength)
        draw = self._confounded if self.name == "confounded" else self._anticausal
        labels, factors, rows, noise = draw(world, regime)
        if world.do:
            raise ValueError(f"do names {sorted(world.do)}: expected factors of this model, {sorted(factors)}.")
        inputs = {name: self._observe(world, name, rows[name], noise) for name in self.modalities}
        return StructuralSample(inputs, labels.astype(np.int32), factors)

    def oracle(self, sample: StructuralSample) -> float:
        """Accuracy of the best prediction from the cause s only, as a share."""
        return float((sample.factors["s"].astype(np.int32) == sample.labels).mean())

    def _confounded(self, world: "_World", regime: str) -> tuple:
        s = world.binary("s", 0.5)
        u = {cue: world.binary(cue, 0.5) for cue in self.cues}
        strength = 1.5 * np.sqrt(2 / self.num_modalities)
        sign = 1.0 if regime == "same" else -1.0
        spurious = strength * sum(2 * value - 1 for value in u.values())
        logit = self._intercept(strength) + 2.2 * (2 * s - 1) + sign * world.cue_strength * spurious
        labels = world.uniform("y") < expit(logit)
        rows = {}
        for name, cue in zip(self.modalities, self.cues, strict=True):
            noise = [0.5 * world.normal(f"n{i}_{name}") for i in range(3)]
            rows[name] = np.stack([s - 0.5, 1.5 * (u[cue] - 0.5), *noise], axis=1)
        return labels, {"s": s, **u}, rows, CONFOUNDED_NOISE

    def _intercept(self, strength: float) -> float:
        """The intercept b for which P(y = 1) = positive_share."""
        m = self.num_modalities
        cues = strength * np.arange(-m, m + 1, 2)  # the sum of the cues, binomially distributed
        weights = np.array([1.0])
        for _ in range(m):
            weights = np.convolve(weights, [0.5, 0.5])

        def excess(b: float) -> float:
            return float(sum(weights @ expit(b + sign * 2.2 + cues) for sign in (-1, 1)) / 2 - self.positive_share)

        return float(brentq(excess, -20, 20))

    def _anticausal(self, world: "_World", regime: str) -> tuple:
        s = world.binary("s", (self.positive_share - self._flip) / (1 - 2 * self._flip))
        a = world.binary("a", np.where(s == 1, 1.0, 0.2))
        b = world.binary("b", np.where(s == 1, 0.8, 0.0))
        labels = np.where(world.uniform("y") < self._flip, 1 - s, s)
        agree = 0.5 + (CUE_GAIN if regime == "same" else -CUE_GAIN) * world.cue_strength
        cues = {cue: world.binary(cue, np.where(labels == 1, agree, 1 - agree)) for cue in self.cues}
        rows = {}
        for m, name in enumerate(self.modalities):
            noise = 0.5 * world.normal(f"n_{name}")
            cue = 1.5 * (cues[self.cues[m]] - 0.5) if cues else np.zeros_like(s)
            rows[name] = np.stack([s - 0.5, a - 0.5, b - 0.5, cue, noise], axis=1)
        return labels, {"s": s, "a": a, "b": b, **cues}, rows, ANTICAUSAL_NOISE

    def _observe(self, world: "_World", name: str, factors: np.ndarray, noise: np.ndarray) -> np.ndarray:
        network = example_rng(self.seed, 0, f"network of {name}")
        mix = network.normal(size=(NUM_FACTORS, HIDDEN))
        read = network.normal(size=(HIDDEN, WIDTH)) / np.sqrt(HIDDEN)
        measured = factors + noise * world.normal(f"sensor of {name}", NUM_FACTORS)
        x = np.tanh(measured @ mix) @ read + 0.05 * world.normal(f"x of {name}", WIDTH)
        return x.astype(np.float32)


@dataclass
class _World:
    """Exogenous noise by name, and the interventions that have not been applied yet."""

    num_examples: int
    seed: int
    do: dict[str, Any]
    cue_strength: np.ndarray

    def uniform(self, name: str) -> np.ndarray:
        return example_rng(self.seed, 0, name).random(self.num_examples)

    def normal(self, name: str, width: int | None = None) -> np.ndarray:
        shape = (self.num_examples,) if width is None else (self.num_examples, width)
        return example_rng(self.seed, 0, name).normal(size=shape)

    def binary(self, name: str, probability: float | np.ndarray) -> np.ndarray:
        value = (self.uniform(name) < probability).astype(np.float64)
        if name not in self.do:
            return value
        intervention = np.asarray(self.do.pop(name), np.float64)
        if intervention.shape not in ((), (self.num_examples,)) or not np.isin(intervention, (0, 1)).all():
            raise ValueError(f"do sets {name} to {intervention}: expected 0, 1 or one of them for each example.")
        return np.broadcast_to(intervention, (self.num_examples,)).copy()
