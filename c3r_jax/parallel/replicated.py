"""Data parallelism by ``jax.pmap``: the whole state on every device, the batch split over them."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

AXIS = "batch"


class Replicated:
    """Runs a step on all devices of all processes; the mean over :data:`AXIS` makes it one step on the global batch.

    On the devices, every leaf has a leading axis over this process's devices.

    Args:
      devices: devices of all processes; None uses every device.

    Attributes:
      axis_name: the mapped axis, for sums over the global batch.
      num_devices: number of devices over which a batch is split.
    """

    axis_name: str | None = AXIS

    def __init__(self, devices: Sequence[Any] | None = None):
        self._devices = list(devices or jax.devices())
        self.num_devices = len(self._devices)
        local = [device for device in self._devices if device.process_index == jax.process_index()]
        self._count = len(local)
        mesh = jax.sharding.Mesh(np.array(local), (AXIS,))
        self._sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(AXIS))

    def init(self, function: Callable[[], Any]) -> Any:
        """The state that a pure function returns, one copy per device; the function may compile its own parts."""
        return self.put(jax.device_get(function()))

    def put(self, tree: Any) -> Any:
        """Puts one copy of every leaf on each device."""
        count = self._count
        return jax.tree.map(
            lambda x: jax.device_put(np.broadcast_to(np.asarray(x), (count, *np.shape(x))), self._sharding), tree
        )

    def host(self, tree: Any) -> Any:
        """Fetches the first device's copy of every leaf."""
        return jax.tree.map(lambda x: np.asarray(x.addressable_shards[0].data)[0], tree)

    def saved(self, tree: Any) -> Any:
        """The state as a checkpoint stores it: without the copies."""
        return self.host(tree)

    def template(self, function: Callable[[], Any]) -> Any:
        """Empty arrays for restoring a checkpoint, from the function that returns a new state."""
        return jax.tree.map(lambda x: np.empty(x.shape, x.dtype), jax.eval_shape(function))

    def abstract(self, function: Callable[[], Any], batch: Any) -> tuple[Any, Any]:
        """Shapes of a state and a global batch on the devices, enough to compile a step."""
        count = self._count

        def per_device(x: Any, *shape: int) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct((count, *shape), x.dtype, sharding=self._sharding)

        state = jax.tree.map(lambda x: per_device(x, *x.shape), jax.eval_shape(function))
        return state, jax.tree.map(lambda x: per_device(x, x.shape[0] // self.num_devices, *x.shape[1:]), batch)

    def split(self, batch: Any) -> Any:
        """Splits the rows of every leaf (this process's share of the batch) over its devices."""
        count = self._count
        return jax.tree.map(
            lambda x: jax.device_put(x.reshape(count, x.shape[0] // count, *x.shape[1:]), self._sharding), batch
        )

    def gather(self, tree: Any) -> Any:
        """Fetches per-row outputs of all processes, in the order of the global batch."""
        local = jax.tree.map(lambda x: np.asarray(x).reshape(-1, *x.shape[2:]), tree)
        return local if jax.process_count() == 1 else multihost_utils.process_allgather(local, tiled=True)

    def compile_step(self, step: Callable) -> Callable:
        """Maps ``step(state, batch) -> (state, metrics)``, reusing the memory of the old state."""
        return jax.pmap(step, axis_name=AXIS, devices=self._devices, donate_argnums=0)

    def compile_rows(self, function: Callable) -> Callable:
        """Maps ``function(params, batch) -> per-row outputs``."""
        return jax.pmap(function, axis_name=AXIS, devices=self._devices)
