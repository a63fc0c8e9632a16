"""A table as data and as Markdown, and how its numbers, scores and routes are written."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from c3r_jax.metrics.intervals import Stat
from c3r_jax.metrics.scores import score_of

MISSING = "n/a"
ROUTE_NAMES = {"representation": "representation (z)", "instrument": "instrument (z_c)"}


@dataclass(frozen=True)
class Table:
    """A table of text; the first column is left-aligned, the others right-aligned.

    Attributes:
      header: column names.
      rows: cells, as many as the header has.
      bold: (row, column) positions to emphasise.
      notes: sentences below the table.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    bold: frozenset[tuple[int, int]] = frozenset()
    notes: tuple[str, ...] = field(default=())

    def to_markdown(self) -> str:
        r"""The table in Markdown, with its notes below.

        Examples:
          >>> print(Table(("method", "clean"), (("a|b", "81.0"),), frozenset({(0, 1)})).to_markdown())
          | method | clean |
          |---|---:|
          | a\|b | **81.0** |
        """
        lines = [_markdown_row(map(escape_markdown, self.header)), "|---|" + "---:|" * (len(self.header) - 1)]
        for i, row in enumerate(self.rows):
            cells = (
                f"**{escape_markdown(c)}**" if (i, j) in self.bold else escape_markdown(c) for j, c in enumerate(row)
            )
            lines.append(_markdown_row(cells))
        return "\n".join([*lines, *(f"\n{escape_markdown(note)}" for note in self.notes)])


def number(value: Any, *, digits: int = 3) -> str:
    """A number with fixed digits; a missing or non-finite number is "n/a".

    Examples:
      >>> number(0.12345), number(float("nan")), number(None), number(-0.0001)
      ('0.123', 'n/a', 'n/a', '0.000')
    """
    if value is None or not math.isfinite(float(value)):
        return MISSING
    shown = f"{float(value):.{digits}f}"
    return shown if float(shown) else shown.lstrip("-")


def span(low: str, high: str, *, joined: str = "to") -> str:
    """Two numbers as they are shown, as a span; a single one where they are equal as shown.

    Args:
      low: the first number, as it is shown.
      high: the second.
      joined: the word between them.

    Examples:
      >>> span("0.14", "0.22"), span("0.70", "0.82", joined="and"), span("0.01", "0.01")
      ('0.14 to 0.22', '0.70 and 0.82', 'about 0.01')
    """
    return f"about {low}" if low == high else f"{low} {joined} {high}"


def metric_name(metric: str) -> str:
    """A metric's name with its unit.

    Examples:
      >>> metric_name("macro_f1"), metric_name("mae")
      ('macro-F1, %', 'MAE')
    """
    score = score_of(metric)
    return f"{score.name}, %" if score.percent else score.name


def metric_value(value: Any, metric: str) -> str:
    """A metric for display: shares in percent with one digit, others with three digits."""
    if value is None or not math.isfinite(float(value)):
        return MISSING
    return number(100 * float(value), digits=1) if score_of(metric).percent else number(value)


def metric_stat(stat: Stat | None, metric: str) -> str:
    """Mean and, with at least two seeds, standard deviation: "81.3 ± 0.6"."""
    if stat is None:
        return MISSING
    return metric_value(stat.mean, metric) + (f" ± {metric_value(stat.sd, metric)}" if stat.n > 1 else "")


def escape_markdown(text: str) -> str:
    """Text that Markdown shows literally, also inside a table."""
    text = text.replace("\\", "\\\\").replace("\n", " ")
    for character in "|*`<[":
        text = text.replace(character, f"\\{character}")
    return text


def _markdown_row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"
