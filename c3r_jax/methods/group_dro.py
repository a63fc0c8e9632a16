"""Group distributionally robust optimisation (group DRO): the worst environment counts most."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from c3r_jax.methods.encoded_batch import EncodedBatch
from c3r_jax.methods.environments import EnvironmentRival, environment_means
from c3r_jax.methods.rival import RivalTerms
from c3r_jax.settings.fields import setting

WEIGHTS = "environment_weights"  # their key in the state


def group_dro_loss(
    losses: Float[Array, " batch"],
    environment: Int[Array, " batch"],
    weights: Float[Array, " environments"],
    step_size: Float[Array, ""] | float,
    *,
    where: Bool[Array, " batch"],
    axis_name: str | None = None,
) -> tuple[Float[Array, ""], Float[Array, " environments"]]:
    r"""Group DRO: environments weighted by exponentiated gradient ascent, towards the worst one.

    .. math::
       q_e \leftarrow q_e e^{\eta R_e} / \sum_j q_j e^{\eta R_j}, \quad L = \sum_e q_e R_e

    Args:
      losses: (B,).
      environment: (B,) ids.
      weights: (E,) q of the previous step, summing to 1.
      step_size: eta.
      where: (B,) bool, rows that count.
      axis_name: mapped axis over which the batch is split.

    Returns:
      L, whose gradient does not flow through q, and the new q.

    Examples:
      >>> import jax.numpy as jnp
      >>> losses, environment, q = jnp.array([0.0, jnp.log(3.0)]), jnp.array([0, 1]), jnp.array([0.5, 0.5])
      >>> print(group_dro_loss(losses, environment, q, 1.0, where=jnp.ones(2, bool))[1].round(4))
      [0.25 0.75]

    References:
      S. Sagawa et al., Distributionally robust neural networks for group shifts, 2020, arXiv 1911.08731, algorithm 1.
    """
    risks, _ = environment_means(losses, environment, len(weights), where=where, axis_name=axis_name)
    raised = jax.lax.stop_gradient(jnp.log(weights) + step_size * risks)
    weights = jax.nn.softmax(raised)
    return (weights * risks).sum(), weights


@dataclass(frozen=True)
class GroupDRO(EnvironmentRival):
    """Replaces the task's loss by :func:`group_dro_loss`; the environments' weights are its state."""

    name: ClassVar[str] = "group_dro"

    strength: float = setting(1.0, "step size of the environments' weights", least=0)

    def first_state(self) -> dict[str, Array]:
        """Equal weights."""
        return {WEIGHTS: jnp.full(self.environments, 1 / self.environments, jnp.float32)}

    def compare(
        self,
        batch: EncodedBatch,
        logits: Float[Array, "batch classes"],
        environment: Int[Array, " batch"],
        *,
        step: Array,
        state: Mapping[str, Array],
    ) -> RivalTerms:
        """The weighted sum of the risks, and the new weights."""
        del step
        task, weights = group_dro_loss(batch.losses(logits), environment, state[WEIGHTS], self.strength, **batch.masks)
        return RivalTerms(task, jnp.zeros(()), state={WEIGHTS: weights})
