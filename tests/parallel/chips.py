"""TPU chips that need not exist: what JAX reads of them to lay out a mesh."""

import itertools
from types import SimpleNamespace


def chips(kind, sides, host=(2, 2, 1), slices=1):
    """All chips of a machine, slice by slice and process by process, as `jax.experimental.topologies` gives them.

    Args:
      kind: JAX's name of the chip.
      sides: chips along each axis of the torus.
      host: chips of one process along each axis.
      slices: number of machines.
    """
    hosts = [side // own for side, own in zip(sides, host, strict=True)]
    found = []
    for part in range(slices):
        for place in itertools.product(*map(range, hosts[::-1])):
            process = sum(x * step for x, step in zip(place, (hosts[1] * hosts[0], hosts[0], 1), strict=True))
            for inner in itertools.product(*map(range, host[::-1])):
                z, y, x = (p * h + i for p, h, i in zip(place, host[::-1], inner, strict=True))
                found.append(
                    SimpleNamespace(
                        id=(part + 1) * 100_000 * (slices > 1) + x + sides[0] * (y + sides[1] * z),
                        platform="tpu",
                        device_kind=kind,
                        coords=[x, y, z],
                        core_on_chip=0,
                        process_index=process + part * hosts[0] * hosts[1] * hosts[2],
                        slice_index=part if slices > 1 else None,
                    )
                )
    return found
