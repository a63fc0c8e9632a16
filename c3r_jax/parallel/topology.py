"""Chips that are not there: devices to compile for, from a topology such as "v5p:4x4x4" or "h100:1x1x8"."""

import importlib.util
import math
import os
import re
from typing import Any, NamedTuple

import jax

from c3r_jax.errors import ConfigError
from c3r_jax.parallel.chips import CHIPS, Chip, description, find_chip

INSTALL = {
    "tpu": "pip install '.[aot]'",
    "cuda": "pip install '.[aot-cuda]'",
}
_MODULE = {"tpu": "libtpu", "cuda": "jax_cuda12_plugin"}
# The TPU compiler looks for a TPU machine unless one is named; none of this changes what it compiles.
_QUIET = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_MIN_LOG_LEVEL": "3",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}


class Topology(NamedTuple):
    """Chips to compile for.

    Attributes:
      name: as it was given.
      chip: their published figures.
      devices: the devices, to build a strategy from.
      parts: for each device the number of its slice (TPU) or host (GPU): the network lies between them.
    """

    name: str
    chip: Chip
    devices: tuple[Any, ...]
    parts: tuple[int, ...]

    def parts_of(self, devices: Any) -> tuple[int, ...]:
        """The parts of devices in the order of a mesh, which is that of a program's device numbers."""
        part = dict(zip((device.id for device in self.devices), self.parts, strict=True))
        return tuple(part[device.id] for device in devices)


def find_topology(name: str, slices: int = 1) -> Topology:
    """Devices of a topology. JAX must not have used a device yet, or only CPUs.

    Args:
      name: chip and sizes: "v5e:16x16" or "v5p:4x4x4" are a torus of TPU chips; "h100:1x4x8" is 1 group of 4 hosts with
        8 GPUs each.
      slices: number of such slices, joined by the data center's network.

    Raises:
      ConfigError: there is no such chip or topology, or the chip's compiler is not installed.
    """
    found = re.fullmatch(r"(\w+):(\d+(?:x\d+)*)", name)
    if not found:
        raise ConfigError(
            f"--topology is {name!r}: expected a chip of {', '.join(CHIPS)} and its sizes, such as v5e:2x2, v5p:4x4x4 "
            "or h100:1x1x8."
        )
    try:
        chip = find_chip(found[1])
    except ConfigError as error:
        raise ConfigError(f"--topology is {name!r}, and {error}") from None
    sizes = [int(size) for size in found[2].split("x")]
    if slices < 1 or math.prod(sizes) < 1:
        raise ConfigError(f"--topology is {name!r} with --slices={slices}: expected sizes and slices of 1 or more.")
    if importlib.util.find_spec(_MODULE[chip.platform]) is None:
        raise ConfigError(
            f"--topology={name} needs the compiler for {chip.title}, but there is no module {_MODULE[chip.platform]}: "
            f"run {INSTALL[chip.platform]} in the repository (Linux on x86-64), or leave --topology out to compile for "
            "the CPU instead."
        )
    return _tpu(name, chip, slices) if chip.platform == "tpu" else _cuda(name, chip, sizes, slices)


def _tpu(name: str, chip: Chip, slices: int) -> Topology:
    options: dict[str, Any] = {"num_slices": slices} if slices > 1 else {}
    if chip is CHIPS["v4"]:
        options["chip_config_name"] = "megacore"  # one device for the two cores of a chip, as on the later chips
    devices = _describe(name, "tpu", name, options)
    return Topology(name, chip, devices, tuple(getattr(device, "slice_index", None) or 0 for device in devices))


def _cuda(name: str, chip: Chip, sizes: list[int], slices: int) -> Topology:
    if len(sizes) != 3:
        raise ConfigError(
            f"--topology is {name!r}: expected three sizes for GPUs, groups of hosts x hosts x GPUs of a host, such as "
            f"{name.split(':')[0]}:1x1x8."
        )
    shape = "x".join(str(size) for size in (sizes[0] * slices, *sizes[1:]))
    options = {"target_config": description(chip), "topology": shape}
    devices = _describe(name, "cuda", name.split(":")[0], options)
    return Topology(name, chip, devices, tuple(i // sizes[2] for i in range(len(devices))))


def _describe(name: str, platform: str, topology_name: str, options: dict[str, Any]) -> tuple[Any, ...]:
    for variable, value in _QUIET.items():
        os.environ.setdefault(variable, value)
    jax.config.update("jax_platforms", "cpu")  # a real device is neither needed nor disturbed
    from jax.experimental import topologies

    try:
        return tuple(topologies.get_topology_desc(platform=platform, topology_name=topology_name, **options).devices)
    except Exception as error:  # the compilers raise errors of several kinds
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise ConfigError(
            f"--topology is {name!r}, which the chip's compiler refuses ({reason}): expected sizes of a real slice, "
            "such as v5e:2x2 or 16x16, v5p:2x2x1 or 4x4x4, v6e:16x16."
        ) from error
