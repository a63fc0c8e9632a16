"""What a theme tries and what came of it."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any


@dataclasses.dataclass(frozen=True)
class Budget:
    """How much is tried.

    Attributes:
      kills: SIGKILLs. terms: SIGTERMs.
      injections: numbers that are not finite.
      fuzz: inputs of each kind. configs: configurations.
      starts: processes that start from nothing.
      soak: seconds of training without a pause.
    """

    kills: int
    terms: int
    injections: int
    fuzz: int
    configs: int
    starts: int
    soak: float


BUDGETS = {
    "short": Budget(kills=8, terms=2, injections=10, fuzz=100, configs=30, starts=3, soak=30),
    "long": Budget(kills=30, terms=6, injections=40, fuzz=1200, configs=300, starts=10, soak=1800),
}


@dataclasses.dataclass
class Line:
    """One claim.

    Attributes:
      name: of the claim.
      cases: how often it was tried.
      failures: in words; none: it held every time.
      figures: what was measured.
      seconds: it took.
    """

    name: str
    cases: int = 0
    failures: list[str] = dataclasses.field(default_factory=list)
    figures: dict[str, Any] = dataclasses.field(default_factory=dict)
    seconds: float = 0.0

    def check(self, held: bool, failure: str) -> bool:
        """Counts a case."""
        self.cases += 1
        if not held:
            self.failures.append(failure)
        return held


def tried(name: str, work: Callable[[Line], None]) -> Line:
    """A line that ``work`` fills in; an exception is a failure too."""
    line, began = Line(name), time.monotonic()
    try:
        work(line)
    except Exception as error:
        line.failures.append(f"{type(error).__name__}: {error}")
    line.seconds = round(time.monotonic() - began, 1)
    return line


def table(themes: dict[str, list[Line]]) -> str:
    """All lines as a Markdown table."""
    rows = ["| theme | claim | tried | failed | figures |", "|---|---|---:|---:|---|"]
    for theme, lines in themes.items():
        for line in lines:
            figures = ", ".join(f"{name} {value}" for name, value in line.figures.items())
            rows.append(f"| {theme} | {line.name} | {line.cases:,} | {len(line.failures):,} | {figures} |")
    return "\n".join(rows)
