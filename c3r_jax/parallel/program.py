"""The cost of a compiled step: operations, memory and communication between devices."""

import re
from typing import Any, NamedTuple

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
_INSTRUCTION = re.compile(rf"= (?P<shapes>.*?) (?P<kind>{'|'.join(KINDS)})(?P<phase>-start|-done)?\(")
_SHAPE = re.compile(r"\b(?P<dtype>[a-z]+[0-9]*[a-z0-9]*)\[(?P<sizes>[0-9,]*)\]")
_BYTES = {"pred": 1, "bf16": 2}


class Collectives(NamedTuple):
    """Collectives of one kind.

    Attributes:
      count: number of instructions; one may carry many arrays.
      bytes: size of their results on one device.
    """

    count: int
    bytes: int


def collectives(program: str) -> dict[str, Collectives]:
    """Counts the collectives of a compiled program by kind.

    Args:
      program: HLO text from ``compiled.as_text()``.

    Returns:
      {kind: :class:`Collectives`} for the kinds that occur.

    Examples:
      >>> line = "  %sum.1 = (f32[16,4]{1,0}, f32[]) all-reduce(%a, %b), replica_groups={{0,1}}"
      >>> collectives(line)
      {'all-reduce': Collectives(count=1, bytes=260)}
    """
    totals: dict[str, Collectives] = {}
    for match in _INSTRUCTION.finditer(program):
        if match["phase"] == "-done":  # its start has been counted
            continue
        shapes = [_size(shape["dtype"], shape["sizes"]) for shape in _SHAPE.finditer(match["shapes"])]
        size = sum(shapes)
        if match["phase"] == "-start" and match["kind"] != "all-reduce" and len(shapes) > 1:
            size = shapes[1]  # except for sums, the start returns its operand, its result and perhaps more
        before = totals.get(match["kind"], Collectives(0, 0))
        totals[match["kind"]] = Collectives(before.count + 1, before.bytes + size)
    return dict(sorted(totals.items()))


def _size(dtype: str, sizes: str) -> int:
    count = 1
    for size in filter(None, sizes.split(",")):
        count *= int(size)
    bits = re.search(r"\d+", dtype)
    return count * _BYTES.get(dtype, int(bits[0]) // 8 if bits else 4)


class Program(NamedTuple):
    """One device's share of a compiled program.

    Attributes:
      flops: floating-point operations.
      argument_bytes: size of state and batch.
      temporary_bytes: peak size of activations and other temporaries during the call.
      collectives: {kind: :class:`Collectives`}.
    """

    flops: float
    argument_bytes: int
    temporary_bytes: int
    collectives: dict[str, Collectives]

    @property
    def peak_bytes(self) -> int:
        """State, batch and temporaries together."""
        return self.argument_bytes + self.temporary_bytes

    @property
    def sent(self) -> Collectives:
        """All collectives together."""
        kinds = self.collectives.values()
        return Collectives(sum(kind.count for kind in kinds), sum(kind.bytes for kind in kinds))


def inspect(compiled: Any) -> Program:
    """Reads a compiled program (``jitted.lower(...).compile()``).

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> f = jax.jit(lambda x: x @ x).lower(jnp.ones((8, 8))).compile()
      >>> inspect(f).flops, inspect(f).argument_bytes, inspect(f).collectives
      (1024.0, 256, {})
    """
    cost, memory = compiled.cost_analysis(), compiled.memory_analysis()
    return Program(
        float((cost or {}).get("flops", float("nan"))),
        memory.argument_size_in_bytes,
        memory.temp_size_in_bytes,
        collectives(compiled.as_text()),
    )
