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
      devices: the devices.
      num_devices: number of devices over which a batch is split.
      rows: None, since each device's program has its own rows.
    """

    axis_name: str | None = AXIS
    rows: None = None

    def __init__(self, devices: Sequence[Any] | None = None):
        self.devices = tuple(devices or jax.devices())
        self.num_devices = len(self.devices)
        local = [device for device in self.devices if device.process_index == jax.process_index()]
        self._count = len(local)
        self._sharding = _over(local)

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
        """Shapes of a state and a global batch on the devices of all processes, enough to compile a step."""
        everywhere = _over(self.devices)

        def per_device(x: Any, *shape: int) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct((self.num_devices, *shape), x.dtype, sharding=everywhere)

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
        local = self.own(tree)
        return local if jax.process_count() == 1 else multihost_utils.process_allgather(local, tiled=True)

    def own(self, tree: Any) -> Any:
        """Fetches this process's share of per-row outputs, in the order of the rows that :meth:`split` was given."""
        return jax.tree.map(lambda x: np.asarray(x).reshape(-1, *x.shape[2:]), tree)

    def compile_step(self, step: Callable) -> Callable:
        """Maps ``step(state, batch) -> (state, metrics)``, reusing the memory of the old state."""
        return jax.pmap(step, axis_name=AXIS, devices=self.devices, donate_argnums=0)

    def compile_summary(self, function: Callable) -> Callable:
        """Maps ``function(state) -> scalars``."""
        return jax.pmap(function, axis_name=AXIS, devices=self.devices)

    def compile_rows(self, function: Callable) -> Callable:
        """Maps ``function(params, batch) -> per-row outputs``."""
        return jax.pmap(function, axis_name=AXIS, devices=self.devices)


def _over(devices: Sequence[Any]) -> jax.sharding.NamedSharding:
    """The sharding of a leading axis over devices."""
    return jax.sharding.NamedSharding(jax.sharding.Mesh(np.array(devices), (AXIS,)), jax.sharding.PartitionSpec(AXIS))
