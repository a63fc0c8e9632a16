"""A compiled program as text: its instructions, and how often each of them runs."""

import re
from collections.abc import Iterator
from typing import NamedTuple

_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+)")
_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?([\w.\-]+) = (.*?) ([a-z][\w\-]*)\((.*)$")
_NAME = re.compile(r"[\w.\-]+$")  # of an operand; optimised programs put % before it
_SHAPE = re.compile(r"\b([a-z]+[0-9]*[a-z0-9]*)\[([0-9,]*)\]")
_BRANCHES = re.compile(r"(?:true_computation|false_computation)=%?([\w.\-]+)|branch_computations=\{([^}]*)\}")
_BYTES = {"pred": 1, "token": 0}
_COPIES = ("copy", "bitcast", "convert", "copy-done", "copy-start")  # instructions that pass a whole number on


class Instruction(NamedTuple):
    """One line of a program.

    Attributes:
      name: its name, unique in its computation.
      shape: its result's shape, or those of a tuple, as text.
      kind: the operation, such as "fusion".
      operands: names of its operands.
      rest: the line after the opening parenthesis: operands and attributes.
    """

    name: str
    shape: str
    kind: str
    operands: tuple[str, ...]
    rest: str

    def attribute(self, name: str) -> str | None:
        """The computation or word that an attribute names; None if there is no such attribute.

        Examples:
          >>> Instruction("w", "s32[]", "while", ("t",), "%t), condition=%c, body=%b.1").attribute("body")
          'b.1'
        """
        found = re.search(rf"\b{name}=%?([\w.\-]+)", self.rest)
        return found[1] if found else None


class Module(NamedTuple):
    """A program.

    Attributes:
      computations: {name: {name of an instruction: instruction}}, the last instruction being the result.
      entry: name of the computation that is called.
    """

    computations: dict[str, dict[str, Instruction]]
    entry: str


class Execution(NamedTuple):
    """An instruction, where it stands and how often it runs.

    Attributes:
      instruction: the instruction.
      computation: name of its computation.
      caller: name of the computation that runs the fusion it is part of; its own computation otherwise.
      times: how often it runs in one call of the program.
      fused: whether it is part of a fusion.
    """

    instruction: Instruction
    computation: str
    caller: str
    times: int
    fused: bool


def parse(text: str) -> Module:
    r"""Reads HLO text as ``compiled.as_text()`` returns it; lines outside of any computation are the entry's.

    Examples:
      >>> module = parse("ENTRY %main (x: f32[2]) -> f32[2] {\n  %x = f32[2] parameter(0)\n}")
      >>> module.entry, module.computations["main"]["x"].kind
      ('main', 'parameter')
    """
    computations: dict[str, dict[str, Instruction]] = {"": {}}
    current, entry = "", ""
    for line in text.splitlines():
        if line.startswith("}"):
            current = ""
        elif line[:1] not in ("", " ") and line.endswith("{") and not line.startswith("HloModule"):
            header = _HEADER.match(line)
            if header:
                current = header[2]
                computations[current] = {}
                entry = current if header[1] else entry
        else:
            found = _INSTRUCTION.match(line)
            if found:
                name, shape, kind, rest = found.groups()
                computations[current][name] = Instruction(name, shape, kind, _operands(rest), rest)
    return Module(computations, entry)


def _operands(rest: str) -> tuple[str, ...]:
    """The names before the closing parenthesis: each is the last word of its part."""
    depth, begin, parts = 1, 0, []
    for position, letter in enumerate(rest):
        depth += (letter in "({[") - (letter in ")}]")
        if depth == 0 or (depth == 1 and letter == ","):
            parts.append(rest[begin:position])
            begin = position + 1
        if depth == 0:
            break
    names = (_NAME.search(part.rstrip()) for part in parts)
    return tuple(name[0] for name in names if name)


def shapes(text: str) -> list[tuple[str, tuple[int, ...]]]:
    """The (dtype, sizes) of all arrays in a shape.

    Examples:
      >>> shapes("(f32[16,4]{1,0}, pred[])")
      [('f32', (16, 4)), ('pred', ())]
    """
    return [(dtype, tuple(int(n) for n in sizes.split(",") if n)) for dtype, sizes in _SHAPE.findall(text)]


def size_in_bytes(dtype: str, sizes: tuple[int, ...]) -> int:
    """Bytes of an array; an array of 4-bit numbers has half a byte for each.

    Examples:
      >>> size_in_bytes("bf16", (8, 2)), size_in_bytes("pred", (3,)), size_in_bytes("s4", (6,))
      (32, 3, 3)
    """
    count = 1
    for size in sizes:
        count *= size
    bits = re.search(r"\d+", dtype)
    return count * _BYTES[dtype] if dtype in _BYTES else (count * (int(bits[0]) if bits else 32) + 7) // 8


def executions(module: Module, unknown: set[str] | None = None) -> Iterator[Execution]:
    """Every instruction that runs, with the bodies of loops, branches, calls and fusions.

    A loop's body runs as often as the loop's trip count says, or the comparison of its counter with a constant. All
    branches of a condition are listed, so their sum is an upper bound.

    Args:
      module: the program.
      unknown: gets the names of loops whose number of trips is not in the program; their bodies count once.
    """
    unknown = set() if unknown is None else unknown

    def walk(name: str, caller: str, times: int, fused: bool) -> Iterator[Execution]:
        for instruction in module.computations[name].values():
            yield Execution(instruction, name, caller, times, fused)
            kind, called = instruction.kind, _called(instruction)
            trips = times
            if kind == "while":
                known = trip_count(module, name, instruction)
                if known is None:
                    unknown.add(instruction.name)
                trips = times * (1 if known is None else known)
            for inner in called:
                if inner and inner in module.computations:
                    inside = fused or kind == "fusion"
                    yield from walk(inner, caller if inside else inner, trips, inside)

    yield from walk(module.entry, module.entry, 1, False)


def _called(instruction: Instruction) -> list[str]:
    """Computations that an instruction runs once (a loop: once a trip), but for those that combine two numbers."""
    kind = instruction.kind
    if kind == "while":
        return [instruction.attribute("body") or ""]
    if kind == "conditional":
        found = _BRANCHES.findall(instruction.rest)
        return [name.strip().lstrip("%") for one, many in found for name in (one or many).split(",")]
    if kind in ("fusion", "async-start"):
        return [instruction.attribute("calls") or ""]
    return [instruction.attribute("to_apply") or ""] if kind == "call" else []


def trip_count(module: Module, computation: str, loop: Instruction) -> int | None:
    """How often a loop runs; None if the text does not say so.

    Args:
      module: the program.
      computation: where the loop stands.
      loop: the loop.
    """
    known = re.search(r'known_trip_count":?\s*\{"?n"?:"?(\d+)', loop.rest)
    if known:
        return int(known[1])
    condition = module.computations.get(loop.attribute("condition") or "", {})
    body = module.computations.get(loop.attribute("body") or "", {})
    if not condition or not body:
        return None
    compare, result = list(condition.values())[-1], list(body.values())[-1]
    outside = module.computations[computation]
    start = outside.get(loop.operands[0]) if loop.operands else None
    if compare.kind != "compare" or start is None or start.kind != "tuple" or result.kind != "tuple":
        return None
    counter, index = _element(condition, compare.operands[0])
    limit, place = _element(condition, compare.operands[1])
    if limit is None and place is not None:
        limit, _ = _element(outside, start.operands[place])
    if counter is not None or index is None or limit is None:
        return None
    first, _ = _element(outside, start.operands[index])
    step = _step(body, result.operands[index], index)
    wanted = compare.attribute("direction")
    if first is None or not step or wanted not in ("LT", "LE", "GT", "GE", "NE"):
        return None
    distance = limit - first + {"LE": 1, "GE": -1}.get(wanted, 0)
    return max(0, -(-distance // step))


def _element(computation: dict[str, Instruction], name: str) -> tuple[int | None, int | None]:
    """The constant that a name stands for, or which element of the computation's argument it is."""
    found = computation.get(name)
    while found is not None and found.kind in _COPIES and found.operands:
        found = computation.get(found.operands[0])
    if found is None:
        return None, None
    if found.kind == "constant":
        number = re.match(r"(-?\d+)\)", found.rest)
        return (int(number[1]) if number else None), None
    if found.kind == "get-tuple-element":
        index = re.search(r"index=(\d+)", found.rest)
        source = computation.get(found.operands[0])
        if index and source is not None and source.kind == "parameter":
            return None, int(index[1])
    return None, None


def _step(body: dict[str, Instruction], name: str, index: int) -> int | None:
    """What a loop's body adds to its counter."""
    found = body.get(name)
    while found is not None and found.kind in _COPIES:
        found = body.get(found.operands[0])
    if found is None or found.kind != "add":
        return None
    values = [_element(body, operand) for operand in found.operands]
    steps = [constant for constant, _ in values if constant is not None]
    return steps[0] if len(steps) == 1 and (None, index) in values else None
