"""Results in long form, one number per row, from runs of this package and from exports of PyTorch runs."""

import csv
import json
import math
import pathlib
import urllib.parse
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from c3r_jax.errors import DataError
from c3r_jax.report.aggregate import SUMMARY_COLUMNS, Run
from c3r_jax.report.document import flatten

KEYS = ("dataset", "method", "condition", "metric")
FIELDS = (*KEYS, "seed", "value")
# Leaves that do not change the method, or that are part of its name already ("c3r+dropout").
SAME = ("seed", "data.path", "eval.", "train.writers", "method", "modality_dropout.switch")
TENSORBOARD = ("Wall time", "Step", "Value")  # header of a scalar that TensorBoard exports


class MetricRow(NamedTuple):
    """One value of a metric.

    Attributes:
      dataset, method, condition, metric: what the value belongs to.
      seed: seed of the run.
      value: the value, in the metric's unit: shares from 0 to 1, errors in the unit of the labels.
    """

    dataset: str
    method: str
    condition: str
    metric: str
    seed: int
    value: float


def read_runs(directories: Sequence[pathlib.Path], *, route: str = "representation") -> list[MetricRow]:
    """Reads every metric of every condition of the runs in some directories, and the mean and worst over conditions.

    Runs of one method with other settings, such as ablations, are distinguished: the settings that differ from the
    first of them follow the method's name in brackets.

    Args:
      directories: directories of single runs or studies, with a ``results.json`` in them or in folders below.
      route: "representation" or "instrument".

    Raises:
      DataError: a directory has no results, or a file is damaged.
    """
    rows: list[MetricRow] = []
    first: dict[tuple[str, str], dict[str, Any]] = {}
    for directory in directories:
        files = _results_below(directory)
        if not files:
            raise DataError(f"{directory} has no results.json, itself or below: evaluate the run first (c3r eval).")
        for file in files:
            content = _json(file)
            for run in _runs_in(content):
                found = _rows_of(run, file, route)
                rows += [row._replace(method=method_label(run, first)) for row in found]
    return _without_repetition(rows)


def method_label(run: Run, first: dict[tuple[str, str], dict[str, Any]]) -> str:
    """A run's method, with the settings that differ from the first run of this data set and method.

    Args:
      run: results with "dataset", "method" and "config".
      first: settings of the first run by data set and method; those of a new method are added.

    Examples:
      >>> first, run = {}, {"dataset": "toy", "method": "c3r"}
      >>> method_label({**run, "config": {"seed": 0, "c3r": {"lambda_n": 3.0}}}, first)
      'c3r'
      >>> method_label({**run, "config": {"seed": 1, "c3r": {"lambda_n": 0.0}}}, first)
      'c3r [c3r.lambda_n=0.0]'
    """
    leaves = {leaf: value for leaf, value in flatten(run.get("config") or {}) if not leaf.startswith(SAME)}
    other = first.setdefault((str(run["dataset"]), str(run["method"])), leaves)
    differing = [f"{leaf}={leaves.get(leaf)}" for leaf in {**other, **leaves} if leaves.get(leaf) != other.get(leaf)]
    return f"{run['method']} [{', '.join(differing)}]" if differing else str(run["method"])


def _results_below(directory: pathlib.Path) -> list[pathlib.Path]:
    """The results.json of a directory, or else those below it; so other splits and protocols of a run are skipped."""
    results = directory / "results.json"
    if results.exists():
        return [results]
    folders = sorted(path for path in directory.iterdir() if path.is_dir()) if directory.is_dir() else []
    return [file for folder in folders for file in _results_below(folder)]


def _json(path: pathlib.Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}): expected a JSON file.") from error


def _runs_in(content: Any) -> Sequence[Any]:
    return content.get("runs", [content]) if isinstance(content, dict) else [content]


def _rows_of(run: Any, file: pathlib.Path, route: str) -> list[MetricRow]:
    try:
        return [
            MetricRow(str(run["dataset"]), str(run["method"]), str(c["name"]), name, int(run["seed"]), float(value))
            for c in [*run["conditions"], *_summaries(run, route)]
            for name, value in c["routes"][route].items()
            if value is not None
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{file} is not the results of a run ({type(error).__name__}: {error}): expected dataset, method, seed and "
            f"conditions with route {route!r}."
        ) from error


def _summaries(run: Run, route: str) -> list[dict[str, Any]]:
    """Mean and worst over the conditions, if the run has them, in the form of conditions."""
    metric, summary = str(run.get("metric")), (run.get("summary") or {}).get(route) or {}
    values = {column: summary.get(f"{column}_{metric}") for column in SUMMARY_COLUMNS}
    return [{"name": column, "routes": {route: {metric: value}}} for column, value in values.items()]


def _without_repetition(rows: Iterable[MetricRow]) -> list[MetricRow]:
    """The rows without repetition, after checking that repeated rows have equal values."""
    unique: dict[tuple, MetricRow] = {}
    for row in rows:
        other = unique.setdefault(row[:-1], row)
        if other.value != row.value:
            raise DataError(
                f"{row.dataset}, {row.method}, {row.condition}, {row.metric} has seed {row.seed} twice ({other.value} "
                f"and {row.value}): give each run its own method or seed."
            )
    return list(unique.values())


def read_export(source: str) -> list[MetricRow]:
    """Reads results of other programs.

    The format is recognised by its content: results in this package's schema (JSON); a JSON list or CSV with the
    columns dataset, method, condition, metric, seed, value; a table exported from Weights & Biases (CSV with a column
    Name), in which every other column of numbers is a metric; a scalar exported from TensorBoard (CSV of Wall time,
    Step, Value), whose last value is used.

    Args:
      source: a path. Fields that the file does not have follow after a question mark, as in
        ``acc.csv?dataset=mvsa&method=plain&condition=clean&metric=accuracy&seed=0``.

    Returns:
      The rows.

    Raises:
      DataError: the file cannot be read, or a field is missing.
    """
    name, _, query = source.partition("?")
    given = dict(urllib.parse.parse_qsl(query))
    unknown = sorted(set(given) - set(FIELDS))
    if unknown:
        raise DataError(f"{source!r} has the field {unknown[0]!r}: expected some of {', '.join(FIELDS)} after the '?'.")
    path = pathlib.Path(name)
    if path.suffix.lower() == ".json":
        content = _json(path)
        if isinstance(content, dict):
            return _without_repetition(
                row for run in _runs_in(content) for row in _rows_of(run, path, "representation")
            )
        return _without_repetition(_complete(row, given, path, number) for number, row in enumerate(content, 1))
    if path.suffix.lower() != ".csv":
        raise DataError(f"{path} is neither .json nor .csv: export the runs in one of these formats.")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            header, table = tuple(reader.fieldnames or ()), list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read ({error}): expected a CSV file in UTF-8.") from error
    if not table:
        raise DataError(f"{path} has no rows: expected at least one below the header.")
    if header == TENSORBOARD:
        try:
            last = max(table, key=lambda row: float(row["Step"]))
        except (TypeError, ValueError) as error:
            raise DataError(f"{path} has a Step that is no number ({error}): export the scalar again.") from error
        return [_complete({"value": last["Value"]}, given, path, len(table))]
    if "Name" in header and "value" not in header:
        table = list(_unfolded(table))
    return _without_repetition(_complete(row, given, path, number) for number, row in enumerate(table, 2))


def _unfolded(table: Sequence[Mapping[str, str]]) -> Iterable[dict[str, str]]:
    """One row per metric from a table with one row per run; without a column "method", the run's name is the method."""
    for row in table:
        known = {key: row[key] for key in (*KEYS, "seed") if row.get(key)}
        for column, text in row.items():
            if column in (*FIELDS, "Name") or not text:
                continue
            try:
                float(text)
            except (TypeError, ValueError):
                continue  # notes, states, dates, or cells beyond the header
            yield {"method": row["Name"], "metric": column, **known, "value": text}


def _complete(row: Any, given: Mapping[str, str], path: pathlib.Path, number: int) -> MetricRow:
    if not isinstance(row, Mapping):
        raise DataError(f"{path}, row {number}, is {row!r}: expected an object with {', '.join(FIELDS)}.")
    complete = {"seed": "0", "condition": "clean", **given, **{k: v for k, v in row.items() if v not in (None, "")}}
    missing = [key for key in FIELDS if key not in complete]
    if missing:
        raise DataError(
            f"{path}, row {number}, has no {', '.join(missing)}: add a column, or give it for the whole file, as in "
            f"'{path.name}?{missing[0]}=...'."
        )
    try:
        value = float(complete["value"])
        metric_row = MetricRow(*(str(complete[key]) for key in KEYS), seed=int(complete["seed"]), value=value)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{path}, row {number}: {error}; expected a number as value and a whole number as seed."
        ) from error
    if not math.isfinite(value):
        raise DataError(f"{path}, row {number}, has value {complete['value']}: expected a finite number.")
    return metric_row
