"""A table that was made again, cell by cell against its record."""

import math
from typing import NamedTuple

from c3r_jax.metrics.intervals import describe
from c3r_jax.results.record import Tables, cells

EQUAL, ROUNDING, WITHIN, OUTSIDE, MISSING = "equal", "rounding", "within the spread", "differs", "missing"


class Cell(NamedTuple):
    """One cell against its record.

    Attributes:
      table, row, column: its place.
      recorded, found: means over the seeds that both have.
      verdict: "equal" (to the last digit), "rounding" (within the tolerance: another processor sums in another order),
        "within the spread" (the means differ by at most two standard errors of their difference over the recorded
        seeds), "differs", or "missing" (the cell or the seeds were not made).
    """

    table: str
    row: str
    column: str
    recorded: float
    found: float
    verdict: str


def compare(recorded: Tables, found: Tables, *, tolerance: float = 0.0) -> list[Cell]:
    """Compares every recorded cell, seed by seed for the seeds that both have.

    Args:
      recorded: the record's tables.
      found: the same tables made again, perhaps of fewer seeds.
      tolerance: largest absolute difference of one seed's value that another processor's rounding explains.

    Examples:
      >>> old = {"": {"plain": {"accuracy": [0.50, 0.60, 0.55]}}}
      >>> for value in (0.5, 0.56, 0.9):
      ...     print(compare(old, {"": {"plain": {"accuracy": [value]}}})[0].verdict)
      equal
      within the spread
      differs
    """
    made = dict(cells(found))
    return [Cell(*place, *_judge(values, made.get(place, []), tolerance)) for place, values in cells(recorded)]


def _judge(recorded: list[float | None], found: list[float | None], tolerance: float) -> tuple[float, float, str]:
    pairs = [(a, b) for a, b in zip(recorded, found, strict=False) if a is not None and b is not None]
    lost = any(a is not None and b is None for a, b in zip(recorded, found, strict=False))
    known = [value for value in recorded if value is not None]
    if not pairs or lost:
        nothing = not known and bool(found) and not lost  # a value that no seed has, now as then
        return math.nan, math.nan, EQUAL if nothing else MISSING
    old, new = (math.fsum(values) / len(pairs) for values in zip(*pairs, strict=True))
    largest = max(abs(a - b) for a, b in pairs)
    if largest == 0:
        return old, new, EQUAL
    if largest <= tolerance:
        return old, new, ROUNDING
    sd = describe(known).sd
    allowed = 2 * sd * math.sqrt(2 / len(pairs)) if len(known) > 1 else 0.0
    return old, new, WITHIN if abs(old - new) <= allowed else OUTSIDE


def verdicts(found: list[Cell]) -> dict[str, int]:
    """How many cells have each verdict, the verdicts that occur.

    Examples:
      >>> verdicts([Cell("", "plain", "accuracy", 0.5, 0.5, "equal")])
      {'equal': 1}
    """
    counts = {name: sum(cell.verdict == name for cell in found) for name in (EQUAL, ROUNDING, WITHIN, OUTSIDE, MISSING)}
    return {name: count for name, count in counts.items() if count}
