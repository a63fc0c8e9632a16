"""The cost of a compiled step: operations, cycles, memory and communication between devices."""

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from c3r_jax.parallel.hlo import executions, parse
from c3r_jax.parallel.operations import operations
from c3r_jax.parallel.transfers import Transfer, transfers

_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')


class Collectives(NamedTuple):
    """Collectives of one kind.

    Attributes:
      count: how many run in one call of the program; one may carry many arrays.
      bytes: size of their results on one device.
    """

    count: int
    bytes: int


def by_kind(found: Iterable[Transfer]) -> dict[str, Collectives]:
    """Sums collectives by kind, those in loops as often as they run."""
    totals: dict[str, Collectives] = {}
    for transfer in found:
        before = totals.get(transfer.kind, Collectives(0, 0))
        count, size = before.count + transfer.times, before.bytes + transfer.times * transfer.bytes
        totals[transfer.kind] = Collectives(count, size)
    return dict(sorted(totals.items()))


def collectives(program: str) -> dict[str, Collectives]:
    """Counts the collectives of a compiled program by kind: each once, and as often as the loops around it run.

    Args:
      program: HLO text from ``compiled.as_text()``.

    Returns:
      {kind: :class:`Collectives`} for the kinds that occur.

    Examples:
      >>> line = "  %sum.1 = (f32[16,4]{1,0}, f32[]) all-reduce(%a, %b), replica_groups={{0,1}}"
      >>> collectives(line)
      {'all-reduce': Collectives(count=1, bytes=260)}
    """
    return by_kind(transfers(executions(parse(program))))


class Program(NamedTuple):
    """One device's share of a compiled program.

    Attributes:
      flops: floating-point operations of its matrix products and convolutions, those in loops as often as they run.
      argument_bytes: size of state and batch.
      temporary_bytes: peak size of activations and other temporaries during the call.
      collectives: {kind: :class:`Collectives`}.
      output_bytes: size of results that do not take the place of an argument.
      code_bytes: size of the program itself.
      cycles: clock cycles that the compiler estimates, without waiting for other devices; None if it does not say.
      transfers: every collective.
      fusions: how many fusions run.
      unknown_loops: loops whose number of trips is unknown, so that their bodies are counted once.
    """

    flops: float
    argument_bytes: int
    temporary_bytes: int
    collectives: dict[str, Collectives]
    output_bytes: int = 0
    code_bytes: int = 0
    cycles: int | None = None
    transfers: tuple[Transfer, ...] = ()
    fusions: int = 0
    unknown_loops: int = 0

    @property
    def peak_bytes(self) -> int:
        """State, batch, new results and temporaries together."""
        return self.argument_bytes + self.temporary_bytes + self.output_bytes

    @property
    def sent(self) -> Collectives:
        """All collectives together."""
        kinds = self.collectives.values()
        return Collectives(sum(kind.count for kind in kinds), sum(kind.bytes for kind in kinds))


class Counts(NamedTuple):
    """What is counted in a program's text; see :class:`Program`."""

    flops: int
    cycles: int | None
    transfers: tuple[Transfer, ...]
    fusions: int
    unknown_loops: int


def count(text: str) -> Counts:
    """Counts operations, cycles and collectives in HLO text, bodies of loops as often as they run.

    Examples:
      >>> count('  %f = f32[4] fusion(%x), backend_config={"estimated_cycles":"90"}').cycles
      90
    """
    module, unknown = parse(text), set()
    runs = list(executions(module, unknown))
    cycles, fusions, flops = None, 0, 0
    for run in runs:
        flops += run.times * operations(module, run)
        if not run.fused:
            fusions += run.times * (run.instruction.kind == "fusion")
            estimate = _CYCLES.search(run.instruction.rest)
            if estimate:
                cycles = (cycles or 0) + run.times * int(estimate[1])
    return Counts(flops, cycles, tuple(transfers(runs)), fusions, len(unknown))


def inspect(compiled: Any) -> Program:
    """Reads a compiled program (``jitted.lower(...).compile()``).

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> f = jax.jit(lambda x: x @ x).lower(jnp.ones((8, 8))).compile()
      >>> inspect(f).flops, inspect(f).argument_bytes, inspect(f).collectives
      (1024.0, 256, {})
    """
    memory, counts = compiled.memory_analysis(), count(compiled.as_text())
    return Program(
        float(counts.flops),
        memory.argument_size_in_bytes,
        memory.temp_size_in_bytes,
        by_kind(counts.transfers),
        max(0, memory.output_size_in_bytes - memory.alias_size_in_bytes),
        memory.generated_code_size_in_bytes,
        counts.cycles,
        counts.transfers,
        counts.fusions,
        counts.unknown_loops,
    )
