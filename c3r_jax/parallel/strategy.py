"""How a run uses its devices is a configuration value: ``config.parallel.strategy``."""

import jax
from ml_collections import ConfigDict

from c3r_jax.errors import ConfigError
from c3r_jax.parallel.replicated import Replicated
from c3r_jax.parallel.sharded import Sharded

Strategy = Replicated | Sharded
STRATEGIES = ("pmap", "mesh")


def build_strategy(config: ConfigDict) -> Strategy:
    """Builds the strategy of ``config.parallel`` over all devices of all processes.

    Args:
      config: the ``parallel`` part of a configuration.

    Raises:
      ConfigError: on an unknown name, or axes that do not divide the devices.
    """
    if config.strategy not in STRATEGIES:
        raise ConfigError(f"config.parallel.strategy is {config.strategy!r}: expected one of {', '.join(STRATEGIES)}.")
    for name in ("fsdp", "tensor"):
        if config[name] < 1:
            raise ConfigError(f"config.parallel.{name} is {config[name]}: expected a whole number of at least 1.")
    if config.min_size < 0:
        raise ConfigError(f"config.parallel.min_size is {config.min_size}: expected a number of elements >= 0.")
    shared = config.fsdp * config.tensor
    if config.strategy == "pmap":
        if shared > 1:
            raise ConfigError(
                f"config.parallel has strategy 'pmap' with fsdp {config.fsdp} and tensor {config.tensor}: pmap copies "
                "the whole state to every device; use config.parallel.strategy='mesh'."
            )
        return Replicated()
    if jax.device_count() % shared:
        raise ConfigError(
            f"config.parallel.fsdp x tensor is {config.fsdp} x {config.tensor}, which does not divide the "
            f"{jax.device_count()} devices: choose factors of {jax.device_count()}."
        )
    if jax.local_device_count() % config.tensor:
        raise ConfigError(
            f"config.parallel.tensor is {config.tensor}, but a process has {jax.local_device_count()} devices: rows "
            "are split by process, so choose a factor of that."
        )
    return Sharded(config.fsdp, config.tensor, config.min_size)


def check_batch(strategy: Strategy, batch_size: int, name: str, chunks: int = 1) -> None:
    """Refuses a global batch size that devices and chunks cannot share equally.

    Args:
      strategy: of the run.
      batch_size: examples of the global batch.
      name: of the configuration leaf.
      chunks: parts in which a device takes its share.

    Raises:
      ConfigError: naming the configuration leaf.
    """
    parts = strategy.num_devices * chunks
    if batch_size < 1 or batch_size % parts:
        per = f" x {chunks} chunks of accumulation" if chunks > 1 else ""
        raise ConfigError(
            f"{name} is {batch_size}: expected a positive multiple of {parts} "
            f"({strategy.num_devices} devices that share a batch{per})."
        )
