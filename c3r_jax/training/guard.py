"""Numbers that are not finite: found in every step, on the devices, before anything of them is saved."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from c3r_jax.training.optimizer import is_plateau
from c3r_jax.training.step import TERMS, TrainState

WATCHED = (*TERMS, "loss", "gradient_norm")
PARTS = {  # of the state that a step leaves
    "params": "the parameters",
    "opt_state": "the optimiser's state",
    "instrument": "the instrument's moments",
    "ema": "the averaged parameters",
}
BROKEN = "broken_parts"  # the metric: 0, or the sum of 2^i over the parts with a number that is not finite


def guarded(
    step: Callable[..., tuple[TrainState, dict[str, Array]]],
    *,
    skip: bool,
    trained: Callable[[Any], Any] = lambda params: params,
) -> Callable[..., Any]:
    """A train step that also tells which part of its new state is broken, and may leave its own update out.

    A broken optimiser's state would show in the losses only a step later, and infinity in it perhaps never.

    Args:
      step: (state, batch, **settings) -> (state, metrics); its metrics are of the global batch.
      skip: whether a step with any number that is not finite keeps the old state, but for the number of the step.
      trained: the part of the parameters that a step changes. Frozen ones are not looked at: in every step that would
        cost more than a small model on top of them trains in, and what is broken there shows in the losses.

    Returns:
      The same function, its metrics with :data:`BROKEN`.
    """

    def checked(state: TrainState, batch: Any, **settings: Any) -> tuple[TrainState, dict[str, Array]]:
        after, metrics = step(state, batch, **settings)
        looked_at = after._replace(params=trained(after.params), ema=trained(after.ema) if after.ema else after.ema)
        broken = jnp.stack([~all_finite(getattr(looked_at, part)) for part in PARTS])
        metrics = {**metrics, BROKEN: (broken * 2.0 ** jnp.arange(len(PARTS))).sum()}
        if skip:
            whole = all_finite([metrics[name] for name in WATCHED if name in metrics]) & ~broken.any()
            kept = jax.tree.map(lambda new, old: jnp.where(whole, new, old), after, state)
            after = kept._replace(step=after.step)
        return after, metrics

    return checked


def all_finite(tree: Any) -> Bool[Array, ""]:
    """Whether every number is finite, but for schedule "plateau", whose best loss is infinite at first.

    Examples:
      >>> print(all_finite({"w": jnp.ones(3)}), all_finite([jnp.zeros(2), jnp.log(jnp.zeros(1))]))
      True False
    """
    leaves = [x for x in jax.tree.leaves(tree, is_leaf=is_plateau) if not is_plateau(x)]
    return jnp.stack([jnp.array(True), *[jnp.isfinite(x).all() for x in leaves]]).all()


def first_non_finite(metrics: Mapping[str, Any]) -> str | None:
    """Names the first loss term (then the loss, the gradient, a part of the state) that is not finite, or None.

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
