"""The state of training: everything that a step changes."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PRNGKeyArray

from c3r_jax.core.moments import Moments
from c3r_jax.methods.rival import NO_RIVAL, Rival
from c3r_jax.models.twin import TwinNetwork
from c3r_jax.step.frozen import blank_frozen, split_frozen

Batch = dict[str, Any]


class TrainState(NamedTuple):
    """Everything that a step changes.

    Attributes:
      step: number of steps done.
      seed: seed of everything random in training.
      params: the model's parameters.
      opt_state: the optimiser's state.
      instrument: the running moments' collection, {} without an instrument; also a rival's state.
      ema: averaged parameters, {} if there are none.
    """

    step: Array
    seed: Array
    params: Any
    opt_state: Any
    instrument: dict[str, Array]
    ema: Any

    @property
    def variables(self) -> dict[str, Any]:
        """The variables for ``model.apply``."""
        return {"params": self.params, **({"instrument": self.instrument} if self.instrument else {})}

    @property
    def evaluated(self) -> Any:
        """The parameters to evaluate: the averaged ones, if there are any."""
        return self.ema or self.params

    def earlier_moments(self, decay: float) -> Moments:
        """The running moments as they count beside a new batch's; only where there is an instrument."""
        running = Moments(*(self.instrument[name] for name in Moments._fields))
        return running._replace(count=running.count * decay)


def init_state(
    model: TwinNetwork,
    optimizer: optax.GradientTransformation,
    batch: Batch,
    seed: int | Array,
    *,
    ema: bool = False,
    rival: Rival = NO_RIVAL,
) -> TrainState:
    """Initialises parameters, optimiser and (empty) moments from a seed.

    Args:
      model: the twin network.
      optimizer: output of :func:`build_optimizer`.
      batch: any batch, for the shapes of its inputs.
      seed: seed of the parameters.
      ema: whether to keep averaged parameters.
      rival: the method's rival.
    """
    # Zeros: the program must not differ between processes, which read different rows.
    inputs = {name: jnp.zeros((1, *value.shape[1:]), value.dtype) for name, value in batch["inputs"].items()}
    present = jnp.ones((1, len(model.modalities)), bool)

    @jax.jit
    def init(key: PRNGKeyArray) -> TrainState:
        variables: dict[str, Any] = dict(model.init(key, inputs, present, "instrument"))
        params = blank_frozen(variables["params"], model)
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            seed=jnp.asarray(seed, jnp.uint32),
            params=params,
            opt_state=optimizer.init(split_frozen(params, model)[0]),
            instrument={**variables.get("instrument", {}), **rival.first_state()},
            ema=jax.tree.map(jnp.copy, params) if ema else {},  # a copy: the state's buffers are donated to the next
        )

    return init(jax.random.key(seed))
