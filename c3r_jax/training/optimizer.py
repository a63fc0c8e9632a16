"""Optimisers and schedules by name, all from Optax."""

import optax
from ml_collections import ConfigDict

from c3r_jax.errors import ConfigError


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
    if config.schedule == "cosine":
        after = optax.cosine_decay_schedule(config.learning_rate, rest)
    elif config.schedule == "constant":
        after = optax.constant_schedule(config.learning_rate)
    else:
        raise ConfigError(f"config.optimizer.schedule is {config.schedule!r}: expected 'cosine' or 'constant'.")
    # The first step already moves: a warm-up from exactly 0 would waste it.
    warmup = optax.linear_schedule(
        config.learning_rate / (config.warmup_steps + 1), config.learning_rate, config.warmup_steps
    )
    return optax.join_schedules([warmup, after], [config.warmup_steps])


def build_optimizer(config: ConfigDict, steps: int) -> optax.GradientTransformation:
    """Optimiser of ``config.optimizer``, with its schedule and global-norm clipping.

    Args:
      config: the ``optimizer`` part of a configuration.
      steps: length of the run.

    Raises:
      ConfigError: on an unknown name or a negative number.
    """
    for name in ("learning_rate", "weight_decay", "clip_norm"):
        if not config[name] >= 0:
            raise ConfigError(f"config.optimizer.{name} is {config[name]}: expected a number >= 0.")
    schedule = build_schedule(config, steps)
    if config.name == "adamw":
        update = optax.adamw(schedule, weight_decay=config.weight_decay)
    elif config.name == "adam":
        update = optax.chain(optax.add_decayed_weights(config.weight_decay), optax.adam(schedule))
    elif config.name == "sgd":
        update = optax.chain(optax.add_decayed_weights(config.weight_decay), optax.sgd(schedule, momentum=0.9))
    else:
        raise ConfigError(f"config.optimizer.name is {config.name!r}: expected 'adamw', 'adam' or 'sgd'.")
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), update) if config.clip_norm else update
