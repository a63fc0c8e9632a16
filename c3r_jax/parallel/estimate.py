"""How long a compiled step would take, on paper."""

from collections.abc import Sequence
from typing import NamedTuple

from c3r_jax.parallel.chips import Chip
from c3r_jax.parallel.program import Program
from c3r_jax.parallel.transfers import BETWEEN, Transfer

UTILISATION = 0.4  # share of the peak that well-tuned large models reach; an assumption, not a measurement


class Times(NamedTuple):
    """Estimates in seconds; none of them is measured.

    Attributes:
      compute: computation and access to memory.
      links: collectives among the chips of a slice or host, at the full speed of all links.
      network: collectives between slices or hosts, at the full speed of the network.
    """

    compute: float
    links: float
    network: float

    @property
    def shortest(self) -> float:
        """All communication behind the computation, and the network's behind the links'."""
        return max(self.compute, self.links, self.network)

    @property
    def longest(self) -> float:
        """Nothing at the same time."""
        return self.compute + self.links + self.network


def times(program: Program, chip: Chip, parts: Sequence[int]) -> Times:
    """Estimates for a program: cycles of the compiler where it has some, else :data:`UTILISATION` of the peak.

    Args:
      program: the compiled step.
      chip: the chip's figures.
      parts: for each device, in the program's order, the number of its slice or host.
    """
    if program.cycles is not None and chip.clock is not None:
        compute = program.cycles / chip.clock
    else:
        compute = max(program.flops / (UTILISATION * chip.flops), program.peak_bytes / chip.bandwidth)
    inside, across = 0.0, 0.0
    if any(transfer.kind.endswith(BETWEEN) for transfer in program.transfers):
        parts = sorted(parts)  # the program is that of one slice, and its devices are numbered in it
    for transfer in program.transfers:
        near, far = sent(transfer, parts)
        inside, across = inside + transfer.times * near, across + transfer.times * far
    return Times(compute, inside / chip.links, across / chip.network)


def sent(transfer: Transfer, parts: Sequence[int]) -> tuple[float, float]:
    """Bytes that one device sends each time, to devices of its own part and of others.

    A collective of n devices in s parts is done in two steps, as the compilers do it: k = n / s devices of a part share
    the work, and each of them exchanges its share with the other parts. A sum of B bytes then sends 2 B (k - 1) / k
    inside and 2 (B / k) (s - 1) / s across; see :meth:`Transfer.sent` for the others.

    Examples:
      >>> sent(Transfer("all-reduce", 800, 1, None), [0, 0, 1, 1])
      (800.0, 400.0)
      >>> sent(Transfer("all-gather", 800, 1, ((0, 2), (1, 3))), [0, 0, 1, 1])
      (0.0, 400.0)
    """
    if transfer.kind.endswith(BETWEEN):
        return 0.0, _between(transfer, len(set(parts)))
    if transfer.kind == "collective-permute" and transfer.groups is not None:
        far = any(parts[source] != parts[target] for source, target in transfer.groups)
        return (0.0, float(transfer.bytes)) if far else (float(transfer.bytes), 0.0)
    group = transfer.groups[0] if transfer.groups else range(len(parts))
    n, s = len(group), len({parts[device] for device in group})
    if s == 1:
        return transfer.sent(len(parts)), 0.0
    k, size = n / s, float(transfer.bytes)
    if transfer.kind == "all-reduce":
        return 2 * size * (k - 1) / k, 2 * size / k * (s - 1) / s
    if transfer.kind == "reduce-scatter":
        return size * s * (k - 1), size * (s - 1)
    if transfer.kind == "all-to-all":
        return size * (k - 1) / n, size * (s - 1) / s
    return size * (k - 1) / k, size / k * (s - 1) / s


def _between(transfer: Transfer, slices: int) -> float:
    """Bytes that leave a device's slice: for a sum 2 (s - 1) / s of its bytes."""
    kind, s = transfer.kind.removesuffix(BETWEEN), slices
    share = {"all-reduce": 2 * (s - 1) / s, "reduce-scatter": (s - 1) / s, "all-to-all": (s - 1) / s}
    return transfer.bytes * share.get(kind, float(s - 1))
