"""Training on several environments: the shared parts of rivals that compare a predictor's risk across them."""

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from c3r_jax.core.batch import global_sum, keep
from c3r_jax.errors import ConfigError
from c3r_jax.methods.encoded_batch import EncodedBatch
from c3r_jax.methods.rival import ONE_OUTPUT, Rival, RivalTerms, risen
from c3r_jax.settings.fields import setting


def environment_means(
    x: Float[Array, " batch"],
    environment: Int[Array, " batch"],
    count: int,
    *,
    where: Bool[Array, " batch"],
    axis_name: str | None = None,
) -> tuple[Float[Array, " environments"], Bool[Array, " environments"]]:
    """Means over the rows of each environment in the global batch.

    Args:
      x: (B,) numbers.
      environment: (B,) ids from 0.
      count: E.
      where: (B,) bool, rows that count.
      axis_name: mapped axis over which the batch is split.

    Returns:
      (E,) means, 0 for an environment without rows in the batch, and (E,) which environments have rows.

    Examples:
      >>> import jax.numpy as jnp
      >>> environment, where = jnp.array([0, 1, 0]), jnp.ones(3, bool)
      >>> print(environment_means(jnp.array([1.0, 5.0, 3.0]), environment, 3, where=where)[0])
      [2. 5. 0.]
    """
    member = (environment[:, None] == jnp.arange(count)[None]) & where[:, None]
    sums = global_sum(jnp.where(member, keep(where, x)[:, None], 0).sum(0), axis_name)
    rows = global_sum(member.astype(x.dtype).sum(0), axis_name)
    return sums / jnp.maximum(rows, 1), rows > 0


@dataclass(frozen=True)
class EnvironmentRival(Rival, abc.ABC):
    """A rival that compares the environments of a batch.

    Attributes:
      environments: number of environments that training rows come from, E.

    Raises:
      ValueError: there are fewer than two.
    """

    tasks: ClassVar[tuple[str, ...]] = ONE_OUTPUT
    needs_environments: ClassVar[bool] = True

    environments: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.environments < 2:
            raise ValueError(
                f"Rival.name is {self.name!r}, which compares environments, but the training rows have "
                f"{self.environments} of them: at least 2 were expected."
            )

    def terms(self, batch: EncodedBatch, *, step: Array, state: Mapping[str, Array], key: PRNGKeyArray) -> RivalTerms:
        """See :meth:`Rival.terms`.

        Raises:
          ConfigError: the batch does not name its rows' environments.
        """
        del key
        logits = batch.predict(batch.z())
        if batch.environment is None:
            raise ConfigError(
                f"rival {self.name!r} compares environments, but the batch has no column 'environment': train on data "
                "with known environments, such as watch or a table with a column of them."
            )
        return self.compare(batch, logits, batch.environment, step=step, state=state)

    @abc.abstractmethod
    def compare(
        self,
        batch: EncodedBatch,
        logits: Float[Array, "batch classes"],
        environment: Int[Array, " batch"],
        *,
        step: Array,
        state: Mapping[str, Array],
    ) -> RivalTerms:
        """The terms of a batch, whose logits are (B, K) and whose rows' environments are (B,)."""


@dataclass(frozen=True)
class PenaltyRival(EnvironmentRival, abc.ABC):
    """A rival that adds a penalty on what differs between environments, whose weight rises in the first steps."""

    strength: float = setting(1.0, "weight of the penalty", least=0)
    warmup: int = setting(100, "steps over which that weight rises from 0", least=0)

    def compare(
        self,
        batch: EncodedBatch,
        logits: Float[Array, "batch classes"],
        environment: Int[Array, " batch"],
        *,
        step: Array,
        state: Mapping[str, Array],
    ) -> RivalTerms:
        """The weighted penalty."""
        del state
        penalty = self.penalty(batch, logits, environment)
        return RivalTerms(None, risen(step, self.warmup) * self.strength * penalty)

    @abc.abstractmethod
    def penalty(
        self, batch: EncodedBatch, logits: Float[Array, "batch classes"], environment: Int[Array, " batch"]
    ) -> Float[Array, ""]:
        """The penalty of a batch, before its weight."""
