"""What devices send each other in a compiled program: every collective, its bytes, and which devices take part."""

import functools
import re
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from c3r_jax.parallel.hlo import Execution, shapes, size_in_bytes

BETWEEN = " between slices"  # end of the kind of a collective of several slices of TPUs
KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
_LISTS = re.compile(r"replica_groups=\{(\{[\d,{} ]*\})\}")
_COUNTED = re.compile(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")
_MESH = re.compile(r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\(\[([\d,]+)\](?:T\(([\d,]+)\))?\))? \{([^}]*)\}")
_PAIRS = re.compile(r"source_target_pairs=\{(\{[\d,{} ]*\})\}")
_CHAIN = re.compile(r'chain_id="?(\w+)')
_WHO = re.compile(
    r"replica_groups=(?:mesh\[[^\]]*\](?:, device_ids=\(.*?\))? \{[^}]*\}|\{\{.*?\}\}|\[[^ ]*)"
    r"|source_target_pairs=\{\{.*?\}\}"
)
_BETWEEN = re.compile(r'_xla_megascale_transfer_type="(\w+)"')
_START = "AsyncCollectiveStart"


class Transfer(NamedTuple):
    """One collective.

    Attributes:
      kind: one of :data:`KINDS`, perhaps with :data:`BETWEEN`.
      bytes: size of its result on one device; between slices, of what a device gives to its slice's hosts.
      times: how often it runs in one call of the program.
      groups: for each group the numbers of its devices, or pairs from whom to whom; None if all are one group.
    """

    kind: str
    bytes: int
    times: int
    groups: tuple[tuple[int, ...], ...] | None

    def members(self, num_devices: int) -> int:
        """Devices of a group."""
        return num_devices if self.groups is None else len(self.groups[0])

    def sent(self, num_devices: int) -> float:
        """Bytes that one device sends each time, by an algorithm that sends the least: a ring, or straight.

        With n devices: a sum of B bytes sends 2 B (n - 1) / n, a gathered result of B bytes B (n - 1) / n, a scattered
        sum with B bytes for each B (n - 1), an exchange B (n - 1) / n and a permutation B.

        Examples:
          >>> Transfer("all-reduce", 800, 1, None).sent(4), Transfer("reduce-scatter", 800, 1, None).sent(4)
          (1200.0, 2400.0)
        """
        n = self.members(num_devices)
        share = {"all-reduce": 2 * (n - 1) / n, "reduce-scatter": float(n - 1), "collective-permute": 1.0}
        return self.bytes * share.get(self.kind, (n - 1) / n)


def transfers(executions: Iterable[Execution]) -> list[Transfer]:
    """The collectives of a program, each once.

    An asynchronous collective stands in the text as a start and a done. On TPUs it may stand in every fusion that it
    overlaps with, also in those of a loop that runs meanwhile. All of them name the same chain; the one with the start
    counts. A channel is no name of a collective: under ``pmap`` all sums of a program share one.

    The program for several slices of TPUs is that of one slice, which sends to its hosts what has to reach the others.

    Args:
      executions: the program's instructions, of :func:`c3r_jax.parallel.hlo.executions`.
    """
    runs = list(executions)
    starting = {run.computation for run in runs if run.fused and _START in run.instruction.rest}
    found = []
    for run in runs:
        instruction = run.instruction
        kind = instruction.kind.removesuffix("-start")
        across = _BETWEEN.search(instruction.rest) if kind == "send" else None
        if across:
            name = across[1].lower().replace("_", "-") + BETWEEN
            found.append(Transfer(name, size_in_bytes(*shapes(instruction.shape)[0]), run.times, None))
            continue
        later = run.fused and run.computation not in starting and _CHAIN.search(instruction.rest)
        if kind not in KINDS or later:
            continue
        arrays = [size_in_bytes(*shape) for shape in shapes(instruction.shape)]
        size = sum(arrays)
        if instruction.kind != kind and kind != "all-reduce" and len(arrays) > 1:
            # Except for sums, a start returns operands, results and perhaps more: as many results as operands.
            count = max(1, len(instruction.operands))
            size = sum(arrays[count : 2 * count])
        who = _WHO.search(instruction.rest)
        found.append(Transfer(kind, size, run.times, groups(who[0]) if who else None))
    return found


@functools.lru_cache(maxsize=256)  # most collectives of a program have one of a few groups, of up to thousands
def groups(text: str) -> tuple[tuple[int, ...], ...] | None:
    """Which devices a collective connects, from its attributes; None if all.

    Examples:
      >>> groups("replica_groups={{0,1},{2,3}}"), groups("replica_groups=[2,2]<=[2,2]T(1,0)")
      (((0, 1), (2, 3)), ((0, 2), (1, 3)))
      >>> groups("replica_groups=mesh['a'=2,'b'=2] {'a'}")
      ((0, 2), (1, 3))
    """
    rows = _rows(text)
    return None if rows is None else tuple(tuple(int(n) for n in row) for row in rows)


def _rows(rest: str) -> np.ndarray | None:
    listed = _LISTS.search(rest) or _PAIRS.search(rest)
    if listed:
        rows = [[int(n) for n in row.split(",") if n.strip()] for row in re.findall(r"\{([^{}]*)\}", listed[1])]
        return np.array(rows) if rows and rows[0] and len({len(row) for row in rows}) == 1 else None
    counted = _COUNTED.search(rest)
    if counted:
        sizes = _numbers(counted[1])
        return _devices(counted[2], counted[3]).reshape(sizes)
    mesh = _MESH.search(rest)
    if mesh:
        axes = [axis.split("=") for axis in mesh[1].split(",")]
        names, sizes = [name for name, _ in axes], [int(size) for _, size in axes]
        ids = _devices(mesh[2] or str(int(np.prod(sizes))), mesh[3]).reshape(sizes)
        chosen, ids = _chosen(re.findall(r"('[^']+')(?::\((\d+)\)(\d+))?", mesh[4]), names, ids)
        others = [axis for axis in range(ids.ndim) if axis not in chosen]
        count = int(np.prod([ids.shape[axis] for axis in chosen]))
        return ids.transpose([*others, *chosen]).reshape(-1, count)
    return None


def _chosen(wanted: list[tuple[str, str, str]], names: list[str], ids: np.ndarray) -> tuple[list[int], np.ndarray]:
    """Axes of the mesh that are named, after splitting those of which a part is named: 'a':(2)4 is 4 after 2."""
    for name, before, part in wanted:
        if part:
            axis = names.index(name)
            sizes = [int(before), int(part), ids.shape[axis] // (int(before) * int(part))]
            ids = ids.reshape(*ids.shape[:axis], *sizes, *ids.shape[axis + 1 :])
            names = [*names[:axis], "", f"{name}:{before}", "", *names[axis + 1 :]]
    return [names.index(f"{name}:{before}" if part else name) for name, before, part in wanted], ids


def _devices(sizes: str, order: str | None) -> np.ndarray:
    ids = np.arange(int(np.prod(_numbers(sizes)))).reshape(_numbers(sizes))
    return ids.transpose(_numbers(order)) if order else ids


def _numbers(text: str) -> list[int]:
    return [int(n) for n in text.split(",")]
