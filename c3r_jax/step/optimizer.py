"""Optimisers and schedules by name, all from Optax."""

from collections.abc import Callable
from typing import Any

import jax
import optax
import optax.contrib

from c3r_jax.errors import ConfigError
from c3r_jax.settings.optimizer import OptimizerSettings
from c3r_jax.step.layer_decay import scaled_backbones

# {name: (learning rate, steps after the warm-up) -> schedule}.
SCHEDULES: dict[str, Callable[[float, int], optax.Schedule]] = {
    "cosine": optax.cosine_decay_schedule,
    "linear": lambda rate, steps: optax.linear_schedule(rate, 0.0, steps),
    "constant": lambda rate, steps: optax.constant_schedule(rate),
    "plateau": lambda rate, steps: optax.constant_schedule(rate),  # lowered when the training loss stops falling
}


def decayed(decay: float) -> optax.GradientTransformation:
    """Weight decay, as ``optax.add_decayed_weights``, of all parameters but single numbers.

    A learned temperature or offset of logits is not a weight: pulled towards 0, it would change how sure outputs are.

    Examples:
      >>> import jax.numpy as jnp
      >>> params = {"kernel": jnp.ones(2), "log_scale": jnp.float32(3.0)}
      >>> updates, _ = decayed(0.1).update(jax.tree.map(jnp.zeros_like, params), optax.EmptyState(), params)
      >>> print(updates["kernel"], updates["log_scale"])
      [0.1 0.1] 0.0
    """
    if not decay:
        return optax.identity()
    return optax.stateless(
        lambda updates, params: jax.tree.map(lambda u, p: u + decay * p if p.ndim else u, updates, params)
    )


# {name: (schedule, weight decay) -> updates}.
OPTIMIZERS: dict[str, Callable[[optax.Schedule, float], optax.GradientTransformation]] = {
    "adamw": lambda schedule, decay: optax.chain(
        optax.scale_by_adam(), decayed(decay), optax.scale_by_learning_rate(schedule)
    ),
    "adam": lambda schedule, decay: optax.chain(decayed(decay), optax.adam(schedule)),
    "sgd": lambda schedule, decay: optax.chain(decayed(decay), optax.sgd(schedule, momentum=0.9)),
    # Two vectors per matrix instead of two matrices; unlike optax.adafactor's, the decay follows the learning rate.
    "adafactor": lambda schedule, decay: optax.chain(
        optax.scale_by_factored_rms(),
        optax.clip_by_block_rms(1.0),
        decayed(decay),
        optax.scale_by_learning_rate(schedule),
    ),
    "lion": lambda schedule, decay: optax.chain(
        optax.scale_by_lion(b1=0.9, b2=0.99), decayed(decay), optax.scale_by_learning_rate(schedule)
    ),
}


def build_schedule(settings: OptimizerSettings, steps: int) -> optax.Schedule:
    """Learning rate by step: linear warm-up, at most of all steps but one (:func:`warmup_of`), then the schedule.

    Args:
      settings: the optimiser's settings.
      steps: length of the run.

    Raises:
      ConfigError: on an unknown schedule.
    """
    rate, rise = settings.learning_rate, warmup_of(settings, steps)
    if settings.schedule not in SCHEDULES:
        raise ConfigError(
            f"config.optimizer.schedule is {settings.schedule!r}: expected one of {', '.join(SCHEDULES)}."
        )
    # The first step already moves: a warm-up from exactly 0 would waste it.
    warmup = optax.linear_schedule(rate / (rise + 1), rate, rise)
    return optax.join_schedules([warmup, SCHEDULES[settings.schedule](rate, steps - rise)], [rise])


def warmup_of(settings: OptimizerSettings, steps: int) -> int:
    """Steps of the warm-up: those that are configured, but fewer than the run has, so that a short trial runs too.

    Args:
      settings: the optimiser's settings.
      steps: length of the run.

    Examples:
      >>> warmup_of(OptimizerSettings(warmup_steps=30), 1000), warmup_of(OptimizerSettings(warmup_steps=30), 20)
      (30, 19)
    """
    return min(settings.warmup_steps, steps - 1)


def build_optimizer(settings: OptimizerSettings, steps: int) -> optax.GradientTransformation:
    """The configured optimiser, with its schedule and global-norm clipping.

    Args:
      settings: the optimiser's settings.
      steps: length of the run.

    Raises:
      ConfigError: on an unknown name, or from :func:`build_schedule`.
    """
    schedule = build_schedule(settings, steps)
    if settings.name not in OPTIMIZERS:
        raise ConfigError(f"config.optimizer.name is {settings.name!r}: expected one of {', '.join(OPTIMIZERS)}.")
    parts = [optax.clip_by_global_norm(settings.clip_norm)] if settings.clip_norm else []
    parts.append(OPTIMIZERS[settings.name](schedule, settings.weight_decay))
    if (settings.encoder_scale, settings.layer_decay) != (1, 1):
        parts.append(scaled_backbones(settings.encoder_scale, settings.layer_decay))
    if settings.schedule == "plateau":
        parts.append(_plateau(settings))
    return optax.chain(*parts) if len(parts) > 1 else parts[0]


def _plateau(settings: OptimizerSettings) -> optax.GradientTransformation:
    """Scales the updates down whenever the training loss has stopped falling; it reads no validation data.

    The step stays one pure function of state and batch, so that a run resumes exactly, as with other schedules.
    """
    return optax.contrib.reduce_on_plateau(
        factor=settings.plateau_factor, patience=settings.plateau_patience, accumulation_size=settings.plateau_window
    )


def plateau_scale(opt_state: optax.OptState) -> Any:
    """The factor of schedule "plateau" on the learning rate; None with other schedules."""
    states = [s for s in jax.tree.leaves(opt_state, is_leaf=is_plateau) if is_plateau(s)]
    return states[0].scale if states else None


def is_plateau(state: Any) -> bool:
    """Whether this is the state of schedule "plateau"."""
    return isinstance(state, optax.contrib.ReduceLROnPlateauState)
