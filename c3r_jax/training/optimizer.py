"""Optimisers and schedules by name, all from Optax."""

from typing import Any

import jax
import optax
import optax.contrib
from ml_collections import ConfigDict

from c3r_jax.errors import ConfigError
from c3r_jax.training.layer_decay import scaled_backbones


def build_schedule(config: ConfigDict, steps: int) -> optax.Schedule:
    """Learning rate by step: linear warm-up, then ``config.schedule``.

    Args:
      config: the ``optimizer`` part of a configuration.
      steps: length of the run.

    Raises:
      ConfigError: on an unknown schedule or a warm-up longer than the run.
    """
    if not 0 <= config.warmup_steps < steps:
        raise ConfigError(
            f"config.optimizer.warmup_steps is {config.warmup_steps}: expected 0 to {steps - 1}, for a run of {steps}."
        )
    rest = steps - config.warmup_steps
    shapes = {
        "cosine": optax.cosine_decay_schedule(config.learning_rate, rest),
        "linear": optax.linear_schedule(config.learning_rate, 0.0, rest),
        "constant": optax.constant_schedule(config.learning_rate),
        "plateau": optax.constant_schedule(config.learning_rate),  # and lowered by what the training loss says
    }
    if config.schedule not in shapes:
        raise ConfigError(f"config.optimizer.schedule is {config.schedule!r}: expected one of {', '.join(shapes)}.")
    # The first step already moves: a warm-up from exactly 0 would waste it.
    warmup = optax.linear_schedule(
        config.learning_rate / (config.warmup_steps + 1), config.learning_rate, config.warmup_steps
    )
    return optax.join_schedules([warmup, shapes[config.schedule]], [config.warmup_steps])


def build_optimizer(config: ConfigDict, steps: int) -> optax.GradientTransformation:
    """Optimiser of ``config.optimizer``, with its schedule and global-norm clipping.

    Args:
      config: the ``optimizer`` part of a configuration.
      steps: length of the run.

    Raises:
      ConfigError: on an unknown name or a negative number.
    """
    for name in ("learning_rate", "weight_decay", "encoder_scale", "layer_decay", "clip_norm"):
        if not config[name] >= 0:
            raise ConfigError(f"config.optimizer.{name} is {config[name]}: expected a number >= 0.")
    schedule = build_schedule(config, steps)
    decayed = optax.add_decayed_weights(config.weight_decay)
    updates = {
        "adamw": lambda: optax.adamw(schedule, weight_decay=config.weight_decay),
        "adam": lambda: optax.chain(decayed, optax.adam(schedule)),
        "sgd": lambda: optax.chain(decayed, optax.sgd(schedule, momentum=0.9)),
        # Two vectors per matrix instead of two matrices; unlike optax.adafactor's, the decay follows the learning rate.
        "adafactor": lambda: optax.chain(
            optax.scale_by_factored_rms(),
            optax.clip_by_block_rms(1.0),
            decayed,
            optax.scale_by_learning_rate(schedule),
        ),
        "lion": lambda: optax.lion(schedule, weight_decay=config.weight_decay),
    }
    if config.name not in updates:
        raise ConfigError(f"config.optimizer.name is {config.name!r}: expected one of {', '.join(updates)}.")
    parts = [optax.clip_by_global_norm(config.clip_norm)] if config.clip_norm else []
    parts.append(updates[config.name]())
    if (config.encoder_scale, config.layer_decay) != (1, 1):
        parts.append(scaled_backbones(config.encoder_scale, config.layer_decay))
    if config.schedule == "plateau":
        parts.append(_plateau(config))
    return optax.chain(*parts) if len(parts) > 1 else parts[0]


def _plateau(config: ConfigDict) -> optax.GradientTransformation:
    """Scales the updates down whenever the training loss has stopped falling; it reads no validation data.

    The step stays one pure function of state and batch, so that it resumes exactly like every other.
    """
    if not 0 < config.plateau_factor < 1:
        raise ConfigError(f"config.optimizer.plateau_factor is {config.plateau_factor}: expected 0 < factor < 1.")
    for name in ("plateau_window", "plateau_patience"):
        if config[name] < 1:
            raise ConfigError(f"config.optimizer.{name} is {config[name]}: expected a whole number of at least 1.")
    return optax.contrib.reduce_on_plateau(
        factor=config.plateau_factor, patience=config.plateau_patience, accumulation_size=config.plateau_window
    )


def plateau_scale(opt_state: optax.OptState) -> Any:
    """What schedule "plateau" multiplies the learning rate by; None with other schedules."""
    states = [s for s in jax.tree.leaves(opt_state, is_leaf=is_plateau) if is_plateau(s)]
    return states[0].scale if states else None


def is_plateau(state: Any) -> bool:
    """Whether this is the state of schedule "plateau"."""
    return isinstance(state, optax.contrib.ReduceLROnPlateauState)
