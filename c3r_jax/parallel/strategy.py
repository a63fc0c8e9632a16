"""The choice of how a run uses its devices: ``config.parallel.strategy``."""

from collections.abc import Sequence
from typing import Any

import jax

from c3r_jax.errors import ConfigError
from c3r_jax.parallel.layout import lay_out
from c3r_jax.parallel.replicated import Replicated
from c3r_jax.parallel.sharded import Sharded
from c3r_jax.settings.parallel import ParallelSettings

Strategy = Replicated | Sharded
STRATEGIES = ("pmap", "mesh")


def build_strategy(settings: ParallelSettings, devices: Sequence[Any] | None = None) -> Strategy:
    """Builds the strategy that is set.

    Args:
      settings: the strategy and its axes.
      devices: devices of all processes, which may be those of a machine that is only described; None uses every device.

    Raises:
      ConfigError: the name is unknown, or the axes do not divide the devices.
    """
    if settings.strategy not in STRATEGIES:
        raise ConfigError(
            f"config.parallel.strategy is {settings.strategy!r}: expected one of {', '.join(STRATEGIES)}."
        )
    if settings.strategy == "mesh":
        return Sharded(settings.fsdp, settings.tensor, settings.min_size, devices)
    if settings.fsdp * settings.tensor > 1:
        raise ConfigError(
            f"config.parallel has strategy 'pmap' with fsdp {settings.fsdp} and tensor {settings.tensor}: pmap "
            "copies the whole state to every device; use config.parallel.strategy='mesh'."
        )
    return Replicated(devices)


def axes_for(settings: ParallelSettings, devices: Sequence[Any] | None = None) -> tuple[int, int]:
    """The axes fsdp and tensor as they are set; where these devices cannot form them, all devices as fsdp.

    Args:
      settings: the axes, perhaps of another machine.
      devices: devices of all processes; None uses every device.

    Examples:
      >>> axes_for(ParallelSettings(strategy="mesh", fsdp=5, tensor=7), jax.devices()[:1])
      (1, 1)
    """
    devices = list(devices or jax.devices())
    try:
        lay_out(devices, settings.fsdp, settings.tensor)
    except ConfigError:
        return len(devices), 1
    return settings.fsdp, settings.tensor


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
