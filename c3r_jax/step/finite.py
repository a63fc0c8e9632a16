"""Non-finite numbers: loss and gradient are looked at in every step, the whole state before it can be saved."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

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
BROKEN = "broken_parts"  # the metric: what :func:`broken_parts` returns


def _itself(params: Any) -> Any:
    return params


def broken_parts(
    state: TrainState, *, parts: Collection[str] = PARTS, trained: Callable[[Any], Any] = _itself
) -> Float[Array, ""]:
    """Which parts of a state have a number that is not finite: the sum of 2^i over them, 0 if none has.

    Args:
      state: the state.
      parts: those to look at; the others count as finite.
      trained: returns the parameters that a step changes. Frozen ones are not checked: that would cost more than
        training a small model on top of them, and non-finite ones show in the losses.
    """
    changed = state._replace(params=trained(state.params), ema=trained(state.ema) if state.ema else state.ema)
    broken = [~all_finite(getattr(changed, part)) * 2.0**i for i, part in enumerate(PARTS) if part in parts]
    return jnp.stack(broken).sum()


def guarded(
    step: Callable[..., tuple[TrainState, dict[str, Array]]],
    *,
    skip: bool,
    trained: Callable[[Any], Any] = _itself,
) -> Callable[..., Any]:
    """A train step that also reports non-finite moments, which no loss need show, and may skip its update.

    Parameters and the optimiser's state are not looked at in every step, which took a third of a small model's: the
    loss and the gradient mostly show them a step later, and :func:`broken_parts` all of them before they are saved. An
    update cannot be undone later, so that with ``skip`` the whole new state is looked at in every step.

    Args:
      step: (state, batch, **settings) -> (state, metrics); with metrics of the global batch.
      skip: whether a step with a non-finite number keeps the old state, except for its step number.
      trained: as for :func:`broken_parts`.

    Returns:
      The same function, with :data:`BROKEN` among its metrics.
    """
    parts = tuple(PARTS) if skip else ("instrument",)

    def checked(state: TrainState, batch: Any, **settings: Any) -> tuple[TrainState, dict[str, Array]]:
        after, metrics = step(state, batch, **settings)
        broken = broken_parts(after, parts=parts, trained=trained)
        if skip:
            finite = all_finite([metrics[name] for name in WATCHED if name in metrics]) & (broken == 0)
            chosen = jax.tree.map(lambda new, old: jnp.where(finite, new, old), after, state)
            after = chosen._replace(step=after.step)
        return after, {**metrics, BROKEN: broken}

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
