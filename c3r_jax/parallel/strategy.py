"""The choice of how a run uses its devices: ``config.parallel.strategy``."""

import jax

from c3r_jax.errors import ConfigError
from c3r_jax.parallel.replicated import Replicated
from c3r_jax.parallel.sharded import Sharded
from c3r_jax.settings.parallel import ParallelSettings

Strategy = Replicated | Sharded
STRATEGIES = ("pmap", "mesh")


def build_strategy(settings: ParallelSettings) -> Strategy:
    """Builds the strategy that is set, over all devices of all processes.

    Args:
      settings: the strategy and its axes.

    Raises:
      ConfigError: the name is unknown, or the axes do not divide the devices.
    """
    if settings.strategy not in STRATEGIES:
        raise ConfigError(
            f"config.parallel.strategy is {settings.strategy!r}: expected one of {', '.join(STRATEGIES)}."
        )
    shared = settings.fsdp * settings.tensor
    if settings.strategy == "pmap":
        if shared > 1:
            raise ConfigError(
                f"config.parallel has strategy 'pmap' with fsdp {settings.fsdp} and tensor {settings.tensor}: pmap "
                "copies the whole state to every device; use config.parallel.strategy='mesh'."
            )
        return Replicated()
    if jax.device_count() % shared:
        raise ConfigError(
            f"config.parallel.fsdp x tensor is {settings.fsdp} x {settings.tensor}, which does not divide the "
            f"{jax.device_count()} devices: choose factors of {jax.device_count()}."
        )
    if jax.local_device_count() % settings.tensor:
        raise ConfigError(
            f"config.parallel.tensor is {settings.tensor}, but a process has {jax.local_device_count()} devices: rows "
            "are split by process, so choose a factor of that."
        )
    return Sharded(settings.fsdp, settings.tensor, settings.min_size)


def check_batch(strategy: Strategy, batch_size: int, name: str, chunks: int = 1) -> None:
    """Refuses a global batch size that devices and chunks cannot share equally.

    Args:
      strategy: the run's strategy.
      batch_size: number of examples in the global batch.
      name: name of the configuration leaf, for messages.
      chunks: number of parts in which a device processes its share.

    Raises:
      ConfigError: the batch size cannot be shared equally; the message names the leaf.
    """
    parts = strategy.num_devices * chunks
    if batch_size < 1 or batch_size % parts:
        per = f" x {chunks} chunks of accumulation" if chunks > 1 else ""
        raise ConfigError(
            f"{name} is {batch_size}: expected a positive multiple of {parts} "
            f"({strategy.num_devices} devices that share a batch{per})."
        )
