"""Data parallelism by ``jax.pmap``: the state on every local device, the batch split over them."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from c3r_jax.errors import ConfigError

AXIS = "batch"


class Replicated:
    """Runs a step on the local devices; the mean over :data:`AXIS` makes it one step on the global batch.

    Args:
      devices: local devices; None: all of them.
    """

    def __init__(self, devices: Sequence[Any] | None = None):
        self.devices = list(devices or jax.local_devices())
        mesh = jax.sharding.Mesh(np.array(self.devices), (AXIS,))
        self._sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(AXIS))

    def check_batch(self, batch_size: int, name: str) -> None:
        """Refuses a batch size that the devices cannot share equally.

        Raises:
          ConfigError: naming the configuration leaf.
        """
        if batch_size < 1 or batch_size % len(self.devices):
            raise ConfigError(
                f"{name} is {batch_size}: expected a positive multiple of the {len(self.devices)} local devices."
            )

    def replicate(self, tree: Any) -> Any:
        """Puts one copy of every leaf on each device (leading axis: devices)."""
        count = len(self.devices)
        return jax.tree.map(
            lambda x: jax.device_put(np.broadcast_to(np.asarray(x), (count, *np.shape(x))), self._sharding), tree
        )

    def unreplicate(self, tree: Any) -> Any:
        """Fetches the first device's copy of every leaf to the host."""
        return jax.tree.map(lambda x: np.asarray(x.addressable_shards[0].data)[0], tree)

    def split(self, batch: Any) -> Any:
        """Splits the rows of every leaf over the devices."""
        count = len(self.devices)
        return jax.tree.map(
            lambda x: jax.device_put(x.reshape(count, x.shape[0] // count, *x.shape[1:]), self._sharding), batch
        )

    def gather(self, tree: Any) -> Any:
        """Fetches per-row outputs to the host, rows in their order in the batch."""
        return jax.tree.map(lambda x: np.asarray(x).reshape(-1, *x.shape[2:]), tree)

    def compile_step(self, step: Callable) -> Callable:
        """Maps ``step(state, batch) -> (state, metrics)``, giving the state's memory back to its successor."""
        return jax.pmap(step, axis_name=AXIS, devices=self.devices, donate_argnums=0)

    def compile_rows(self, function: Callable) -> Callable:
        """Maps ``function(variables, batch) -> per-row outputs``."""
        return jax.pmap(function, axis_name=AXIS, devices=self.devices)
