"""Devices by their place in a mesh, on any machine: neighbours on the network of the chips stay neighbours.

A TPU's chips form a torus, and slices of it are joined by a slower network. Processes read their own rows of a batch,
so the devices that share rows (the axis "tensor") must belong to one process.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jax.experimental import mesh_utils

from c3r_jax.errors import ConfigError


@dataclass(frozen=True)
class _Group:
    """Neighbouring devices of one process, as one device of a coarser torus; JAX reads these attributes and no others.

    Attributes:
      devices: the devices that share rows.
      id: of the first of them, as are the following.
      platform: such as "tpu".
      device_kind: such as "TPU v5".
      process_index: of their process.
      slice_index: which slice of several.
      coords: place in the torus of groups.
      core_on_chip: which core of the chip.
    """

    devices: tuple[Any, ...]
    id: int
    platform: str
    device_kind: str
    process_index: int
    slice_index: int
    coords: tuple[int, ...]
    core_on_chip: int


def lay_out(devices: Sequence[Any], fsdp: int, tensor: int) -> np.ndarray:
    """The devices of a mesh of data x fsdp x tensor.

    An axis of the mesh may be a part of an axis of the torus. Slices share the axis "data", and also "fsdp" where they
    must.

    Args:
      devices: devices of all processes.
      fsdp: number of devices that share a parameter.
      tensor: number of devices that share a block's matrices; they belong to one process.

    Returns:
      (data, fsdp, tensor) devices.

    Raises:
      ConfigError: the axes do not divide the devices, or those of a process.

    Examples:
      >>> import jax
      >>> lay_out(jax.devices()[:1], 1, 1).shape
      (1, 1, 1)
    """
    count, local = len(devices), min(map(len, _by(devices, "process_index").values()))
    if count % (fsdp * tensor):
        raise ConfigError(
            f"config.parallel.fsdp x tensor is {fsdp} x {tensor}, which does not divide the {count} devices: choose "
            f"factors of {count}."
        )
    if local % tensor:
        raise ConfigError(
            f"config.parallel.tensor is {tensor}, but a process has {local} devices: rows are split by process, so "
            "choose a factor of that."
        )
    groups: Any = _groups(devices, tensor)
    data = count // (fsdp * tensor)
    slices = len(_by(groups, "slice_index"))
    outer = math.gcd(data, slices)
    if slices == 1:
        placed: Any = mesh_utils.create_device_mesh((data, fsdp), groups, allow_split_physical_axes=True)
    else:
        placed = mesh_utils.create_hybrid_device_mesh(
            (data // outer, fsdp * outer // slices), (outer, slices // outer), groups, allow_split_physical_axes=True
        )
    mesh = np.empty((data, fsdp, tensor), object)
    for place in np.ndindex(data, fsdp):
        mesh[place] = placed[place].devices
    return mesh


def _by(devices: Sequence[Any], attribute: str) -> dict[int, list[Any]]:
    """Devices by an attribute that some platforms lack or leave empty."""
    found = defaultdict(list)
    for device in devices:
        found[getattr(device, attribute, None) or 0].append(device)
    return dict(found)


def _groups(devices: Sequence[Any], size: int) -> list[_Group]:
    """Neighbours of each process, ``size`` at a time, in the order of the devices."""
    parts = []
    for own in _by(devices, "process_index").values():
        # Along the first axis of the torus first, so that four of a host's 2 x 2 chips are the whole square.
        near = sorted(own, key=lambda device: (*_coords(device)[::-1], getattr(device, "core_on_chip", 0)))
        parts += [near[begin : begin + size] for begin in range(0, len(near), size)]
    if parts and hasattr(devices[0], "coords"):
        axes = [sorted(set(values)) for values in zip(*(_coords(part[0]) for part in parts), strict=True)]
    else:
        axes = []
    return [
        _Group(
            tuple(part),
            part[0].id,
            part[0].platform,
            part[0].device_kind,
            part[0].process_index,
            getattr(part[0], "slice_index", None) or 0,
            tuple(axis.index(value) for axis, value in zip(axes, _coords(part[0]), strict=True)),
            getattr(part[0], "core_on_chip", 0),
        )
        for part in parts
    ]


def _coords(device: Any) -> tuple[int, ...]:
    return tuple(getattr(device, "coords", ()))
