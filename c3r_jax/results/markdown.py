r"""Tables of documentation, written from records.

A page holds blocks between ``<!-- table: {...} -->`` and ``<!-- end -->``. The object says what the block shows:

``record``: its name. ``rows`` and ``columns``: {label: place}, where a place names any of "table", "row" and "column"
of the record, and "column" may be a list, of which the mean is shown; a cell's place is that of its row and its column
together. ``over``: a place whose value of the same seed is subtracted; a row may have one of its own. ``show``: "mean",
"sd" (mean ± sd), "difference" (mean, in brackets the difference) or "interval" (the difference and its 95 % t
interval). ``scale`` (100, for percent) and ``digits`` (1). ``head``: title of the first column.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from c3r_jax.errors import DataError
from c3r_jax.metrics.intervals import describe, t_interval
from c3r_jax.results.record import Record, Tables

BLOCK = re.compile(r"(<!-- table: (?P<spec>\{.*?\}) -->\n)(?P<body>.*?)(?=<!-- end -->)", re.DOTALL)
FIELDS = {"record", "rows", "columns", "over", "show", "scale", "digits", "head"}
SHOWN = ("mean", "sd", "difference", "interval")


def fill(text: str, read: Callable[[str], Record]) -> str:
    """The page with every block written from its record.

    Args:
      text: Markdown.
      read: record's name -> :class:`Record`.

    Raises:
      DataError: on a block that names an unknown field or a place that its record lacks.
    """

    def written(match: re.Match[str]) -> str:
        try:
            spec = json.loads(match["spec"])
        except ValueError as error:
            raise DataError(f"a block of a page is no JSON ({error}): {match['spec'][:80]}") from error
        return match[1] + "\n" + table(spec, read(spec["record"])) + "\n\n"

    return BLOCK.sub(written, text)


def table(spec: Mapping[str, Any], record: Record) -> str:
    """The Markdown of one block.

    Examples:
      >>> tables = {"emoji": {"plain": {"accuracy": [0.5, 0.7]}, "c3r": {"accuracy": [0.6, 0.9]}}}
      >>> record = Record("t", (), 2, tables, {}, "", {}, {}, {}, 0.0, 0, "2026-01-01")
      >>> spec = {"rows": {"plain": {"row": "plain"}, "C3R": {"row": "c3r"}}, "columns": {"accuracy": {"table": "emoji",
      ...     "column": "accuracy"}}, "over": {"row": "plain"}, "show": "difference"}
      >>> print(table(spec, record))
      | | accuracy |
      |---|---:|
      | plain | 60.0 |
      | C3R | 75.0 (+15.0) |
    """
    unknown = sorted(spec.keys() - FIELDS)
    if unknown or spec.get("show", "mean") not in SHOWN:
        raise DataError(
            f"a table of {record.name} has {', '.join(unknown) or spec['show']}, but the fields "
            f"{', '.join(sorted(FIELDS))} were expected, and one of {', '.join(SHOWN)} for show."
        )
    lines = [
        f"| {spec.get('head', '')} | {' | '.join(spec['columns'])} |".replace("|  |", "| |"),
        f"|---|{'---:|' * len(spec['columns'])}",
    ]
    for label, row in spec["rows"].items():
        place = {level: key for level, key in row.items() if level != "over"}
        over = row.get("over", spec.get("over", {}))
        cells = [_cell(spec, record, {**column, **place}, over) for column in spec["columns"].values()]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def values_at(tables: Tables, place: Mapping[str, Any], name: str) -> list[float | None]:
    """The values of a cell by seed; of several columns their mean, None where one of them has none.

    Raises:
      DataError: the record has no such cell.
    """
    if isinstance(place.get("column"), list):
        columns = [values_at(tables, {**place, "column": column}, name) for column in place["column"]]
        return [None if None in seed else math.fsum(seed) / len(seed) for seed in zip(*columns, strict=True)]
    found: Any = tables
    for level in ("table", "row", "column"):
        key = place.get(level, "")
        if key not in found:
            raise DataError(
                f"results/{name}.json has no {level} {key!r}: expected one of {', '.join(map(repr, found))}."
            )
        found = found[key]
    return found


def _cell(spec: Mapping[str, Any], record: Record, place: Mapping[str, Any], subtracted: Mapping[str, Any]) -> str:
    scale, digits, show = spec.get("scale", 100), spec.get("digits", 1), spec.get("show", "mean")
    values = values_at(record.tables, place, record.name)
    known = [scale * value for value in values if value is not None]
    if not known:
        return "–"
    stat = describe(known)
    text = f"{stat.mean:.{digits}f}"
    if show == "sd" and not math.isnan(stat.sd):
        return f"{text} ± {stat.sd:.{digits}f}"
    over = {**place, **subtracted}
    if show in ("mean", "sd") or over == dict(place):
        return text
    others = values_at(record.tables, over, record.name)
    pairs = zip(values, others, strict=True)
    difference = t_interval([scale * (a - b) for a, b in pairs if a is not None and b is not None])
    if show == "difference" or math.isnan(difference.lower):
        return f"{text} ({difference.mean:+.{digits}f})"
    return f"{text} ({difference.mean:+.{digits}f}, {difference.lower:+.{digits}f} to {difference.upper:+.{digits}f})"
