"""Non-finite numbers: detected in every step, on the devices, before they can be saved."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from c3r_jax.methods.losses import TERMS
from c3r_jax.step.optimizer import is_plateau
from c3r_jax.step.state import TrainState

WATCHED = (*TERMS, "loss", "gradient_norm")
PARTS = {  # of the state after a step
    "params": "the parameters",
    "opt_state": "the optimiser's state",
    "instrument": "the instrument's moments",
    "ema": "the averaged parameters",
}
BROKEN = "broken_parts"  # the metric: sum of 2^i over the parts with a non-finite number


def guarded(
    step: Callable[..., tuple[TrainState, dict[str, Array]]],
    *,
    skip: bool,
    trained: Callable[[Any], Any] = lambda params: params,
) -> Callable[..., Any]:
    """A train step that also reports which part of its new state is not finite, and may skip its update.

    A non-finite optimiser state would show in the losses only a step later, and an infinity perhaps never.

    Args:
      step: (state, batch, **settings) -> (state, metrics); with metrics of the global batch.
      skip: whether a step with a non-finite number keeps the old state, except for its step number.
      trained: returns the parameters that a step changes. Frozen ones are not checked: in every step that would cost
        more than training a small model on top of them, and non-finite ones show in the losses.

    Returns:
      The same function, with :data:`BROKEN` among its metrics.
    """

    def checked(state: TrainState, batch: Any, **settings: Any) -> tuple[TrainState, dict[str, Array]]:
        after, metrics = step(state, batch, **settings)
        changed = after._replace(params=trained(after.params), ema=trained(after.ema) if after.ema else after.ema)
        broken = jnp.stack([~all_finite(getattr(changed, part)) for part in PARTS])
        metrics = {**metrics, BROKEN: (broken * 2.0 ** jnp.arange(len(PARTS))).sum()}
        if skip:
            finite = all_finite([metrics[name] for name in WATCHED if name in metrics]) & ~broken.any()
            chosen = jax.tree.map(lambda new, old: jnp.where(finite, new, old), after, state)
            after = chosen._replace(step=after.step)
        return after, metrics

    return checked


def all_finite(tree: Any) -> Bool[Array, ""]:
    """Whether every number is finite, except in the state of schedule "plateau", whose best loss starts at infinity.

    Examples:
      >>> print(all_finite({"w": jnp.ones(3)}), all_finite([jnp.zeros(2), jnp.log(jnp.zeros(1))]))
      True False
    """
    leaves = [x for x in jax.tree.leaves(tree, is_leaf=is_plateau) if not is_plateau(x)]
    return jnp.stack([jnp.array(True), *[jnp.isfinite(x).all() for x in leaves]]).all()


def first_non_finite(metrics: Mapping[str, Any]) -> str | None:
    """The first non-finite loss term (then the loss, the gradient, a part of the state), or None.

    Examples:
      >>> first_non_finite({"task": 1.0, "loss": float("nan"), "gradient_norm": float("nan")})
      'loss'
      >>> first_non_finite({"loss": 1.0, "broken_parts": 2.0})
      "the optimiser's state"
    """
    for name in WATCHED:
        if name in metrics and not np.isfinite(metrics[name]):
            return name
    parts = int(metrics.get(BROKEN, 0))
    return next((words for i, words in enumerate(PARTS.values()) if parts >> i & 1), None)
