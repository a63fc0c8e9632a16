"""Tables that other programs export: Weights & Biases, TensorBoard and tidy files, as rows with named fields."""

import csv
import pathlib
import re
import urllib.parse
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from absl import logging

from c3r_jax.errors import DataError

FIELDS = ("dataset", "method", "condition", "metric", "seed", "value")
UNIT, UNITS = "unit", ("share", "percent")  # of scores that are shares of 1 here
TENSORBOARD = ("wall time", "step", "value")  # header of a scalar that TensorBoard exports
_STEPS = re.compile(r"(?i)^(_?step|(trainer/)?global_step|_?runtime|_?timestamp|epoch|(relative|wall) time.*)$")
_BETWEEN_RUN_AND_METRIC = " - "
_OF_GROUPS = ("__MIN", "__MAX")  # columns of a chart beside a run's own
_NO_METRIC = re.compile(r"^(_.*|Runtime|Created|Updated|End Time|Unnamed: \d+|.*__(MIN|MAX))$")  # of a table of runs
_SEED = re.compile(r"(?i)(?:^|[-_ .])s(?:eed)?[-_= ]?(\d+)$")
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|(?i:[+-]?(nan|inf|infinity))")
_DECIMAL_COMMA = re.compile(r"[+-]?[0-9]+,[0-9]+")

Row = Mapping[Any, Any]


def split_source(source: str) -> tuple[pathlib.Path, dict[str, str]]:
    """A path and the fields that follow it after a question mark; a plus sign there is a plus sign.

    Raises:
      DataError: a field is unknown, empty or given twice.

    Examples:
      >>> split_source("acc.csv?method=c3r+dropout&condition=missing%2030 %")[1]
      {'method': 'c3r+dropout', 'condition': 'missing 30 %'}
    """
    places = [i for i, letter in enumerate(source) if letter == "?"]
    if not places or pathlib.Path(source).is_file():
        return pathlib.Path(source), {}
    place = next((i for i in places if pathlib.Path(source[:i]).is_file()), places[0])
    given: dict[str, str] = {}
    for part in filter(None, source[place + 1 :].split("&")):
        # Not parse_qsl: there "+" is a space, and an empty field is dropped.
        name, _, value = (urllib.parse.unquote(piece) for piece in part.partition("="))
        if name not in (*FIELDS, UNIT):
            raise DataError(
                f"{source!r} has the field {name!r}: expected some of {', '.join((*FIELDS, UNIT))} after the '?'."
            )
        if name in given or not value.strip():
            what = f"the field {name!r} twice" if name in given else f"an empty {name}"
            raise DataError(f"{source!r} has {what}: expected one value of each field; write & in a value as %26.")
        given[name] = value.strip()
    return pathlib.Path(source[:place]), given


def read_table(path: pathlib.Path) -> tuple[tuple[str, ...], list[dict[Any, Any]]]:
    """The header and rows of a CSV file with commas, semicolons (and decimal commas) or tabs, without a nameless index.

    Raises:
      DataError: the file cannot be read, has no rows, or a row has more cells than the header.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            file.seek(0)
            comma = next((mark for mark in ";\t" if mark in first and "," not in first), ",")
            reader = csv.DictReader(file, delimiter=comma, skipinitialspace=True)
            names = [name.strip() for name in reader.fieldnames or ()]
            reader.fieldnames = names
            table: list[dict[Any, Any]] = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read ({error}): expected a CSV file in UTF-8.") from error
    if not table:
        raise DataError(f"{path} has no rows: expected at least one below the header.")
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice:
        raise DataError(f"{path} has the column {twice[0]!r} twice: keep one of them.")
    for number, row in enumerate(table, 2):
        beyond = [cell for cell in row.pop(None, ()) if cell.strip()]
        if beyond:
            raise DataError(
                f"{path}, row {number}, has {beyond[0]!r} beyond the header's {len(names)} columns: quote it."
            )
        row.pop("", None)
        for name, cell in row.items():
            text = (cell or "").strip()
            row[name] = text.replace(",", ".") if comma == ";" and _DECIMAL_COMMA.fullmatch(text) else text
    return tuple(name for name in names if name), table


def rows_of_table(
    header: Sequence[str], table: Sequence[Row], given: Mapping[str, str], path: pathlib.Path
) -> list[tuple[int, dict[Any, Any]]]:
    """The rows of a table by the fields of :data:`FIELDS` that it has, each with its row number in the file.

    Raises:
      DataError: a step is no number, or it is not clear which runs of a chart are which.
    """
    lower = tuple(name.lower() for name in header)
    if lower == TENSORBOARD:
        return [(len(table) + 1, {"value": _last(table, header[1], header[2], header[0], path)})]
    if "Name" in header and "value" not in header:
        _warn_of_unfinished(table, path)
        return list(_unfolded(table, given, path))
    curves = [name for name in header if _BETWEEN_RUN_AND_METRIC in name and not name.endswith(_OF_GROUPS)]
    if header and _STEPS.match(header[0]) and curves and "value" not in lower:
        return list(_of_chart(header[0], curves, table, given, path))
    names = {name: name.lower() for name in header if name.lower() in FIELDS and lower.count(name.lower()) == 1}
    return [(i, {names.get(name, name): cell for name, cell in row.items()}) for i, row in enumerate(table, 2)]


def _last(table: Sequence[Row], step: str, value: str, time: str, path: pathlib.Path) -> str:
    """The value at the last step; of a step that a resumed run did again, the one written last."""
    try:
        places = [(float(row[step]), float(row[time] or 0), i) for i, row in enumerate(table)]
    except (TypeError, ValueError) as error:
        raise DataError(f"{path} has a Step that is no number ({error}): export the scalar again.") from error
    last, newest = max(places), max(places, key=lambda place: place[1:])
    if newest[0] < last[0]:
        logging.warning(
            "%s ends at step %g, but has step %g of an earlier attempt, which is used: delete its rows if the run was "
            "resumed.",
            path,
            newest[0],
            last[0],
        )
    return str(table[last[2]][value])


def _unfolded(
    table: Sequence[Row], given: Mapping[str, str], path: pathlib.Path
) -> Iterable[tuple[int, dict[str, Any]]]:
    """One row per metric from a table with one row per run; without a column "method", the run's name is the method.

    Raises:
      DataError: a metric is given after "?", but the table has others only, so that it is not clear which is meant.
    """
    columns = [name for name in table[0] if name not in (*FIELDS, "Name") and not _NO_METRIC.match(name)]
    columns = [name for name in columns if any(_is_number(row[name]) for row in table)]
    wanted = given.get("metric")
    if wanted in columns:
        columns = [wanted]
    elif wanted is not None and len(columns) > 1:
        raise DataError(f"{path} has no {wanted!r}, but {', '.join(columns[:8])}: give one of these as metric.")
    for number, row in enumerate(table, 2):
        method = row.get("method") or given.get("method") or row["Name"]
        known = {key: row[key] for key in FIELDS[:-1] if row.get(key)}
        for column in columns:
            if _is_number(row[column]):  # and no note, state or date
                yield number, {"metric": wanted or column, **known, "method": method, "value": row[column]}


def _is_number(text: Any) -> bool:
    return isinstance(text, str) and NUMBER.fullmatch(text) is not None


def _warn_of_unfinished(table: Sequence[Row], path: pathlib.Path) -> None:
    names = [f"{row['Name']} ({row['State']})" for row in table if row.get("State") in ("crashed", "failed", "killed")]
    if names:
        logging.warning(
            "%s has %d runs that did not finish (%s): their numbers count; delete their rows if they should not.",
            path,
            len(names),
            ", ".join(names[:5]),
        )


def _of_chart(
    step: str, curves: Sequence[str], table: Sequence[Row], given: Mapping[str, str], path: pathlib.Path
) -> Iterable[tuple[int, dict[str, Any]]]:
    """The last value of each curve of a chart, whose columns are called "RUN - METRIC"."""
    pairs = [curve.rpartition(_BETWEEN_RUN_AND_METRIC)[::2] for curve in curves]
    seeds = [_SEED.search(run) for run, _ in pairs]
    alone = len({run for run, _ in pairs}) == 1
    if "method" in given and not alone and not all(seeds):
        raise DataError(
            f"{path} has {len(pairs)} curves, but one method is given after '?': end the runs' names with their seeds "
            "(-s0, _seed1), or leave out method, and each run's name is its method."
        )
    for curve, (run, metric), seed in zip(curves, pairs, seeds, strict=True):
        try:
            # The steps of a chart are in order, and each curve has its own.
            row = max((row for row in table if row[curve]), key=lambda row: float(row[step]), default=None)
        except (TypeError, ValueError) as error:
            raise DataError(f"{path} has a {step} that is no number ({error}): export the chart again.") from error
        if row is None:
            continue
        known = {"method": run, "metric": metric, "value": row[curve]}
        if "method" in given and "seed" not in given and seed is not None:
            known["seed"] = seed[1]
        yield table.index(row) + 2, {**known, **{key: given[key] for key in ("method", "metric") if key in given}}
