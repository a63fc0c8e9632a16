"""Figures in long form, one number per row, from runs made here and from exports of PyTorch runs."""

import csv
import json
import math
import pathlib
import urllib.parse
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from c3r_jax.errors import DataError
from c3r_jax.report.facts import flatten
from c3r_jax.report.stats import SUMMARY_COLUMNS, Run

KEYS = ("dataset", "method", "condition", "metric")
FIELDS = (*KEYS, "seed", "value")
# Leaves that make no other method, or that its name tells already ("c3r+dropout").
SAME = ("seed", "data.path", "eval.", "train.writers", "method", "modality_dropout.switch")
TENSORBOARD = ("Wall time", "Step", "Value")  # the header of a scalar that TensorBoard exports


class Measured(NamedTuple):
    """One measured number.

    Attributes:
      dataset, method, condition, metric: what was measured.
      seed: of the run.
      value: in the metric's own unit: shares of 1, errors as the labels are.
    """

    dataset: str
    method: str
    condition: str
    metric: str
    seed: int
    value: float


def read_runs(directories: Sequence[pathlib.Path], *, route: str = "representation") -> list[Measured]:
    """Every metric of every condition of the runs in some directories, and the mean and worst over conditions.

    Runs of one method with other settings, such as ablations, are told apart: behind the method's name stands in
    brackets what differs from the first of them.

    Args:
      directories: of single runs or of studies; each has a ``results.json``, itself or in folders below.
      route: "representation" or "instrument".

    Raises:
      DataError: a directory has no results, or a file is damaged.
    """
    rows: list[Measured] = []
    first: dict[tuple[str, str], dict[str, Any]] = {}
    for directory in directories:
        files = _results_below(directory)
        if not files:
            raise DataError(f"{directory} has no results.json, itself or below: evaluate the run first (c3r eval).")
        for file in files:
            content = _json(file)
            for run in _runs_in(content):
                found = _rows_of(run, file, route)
                rows += [row._replace(method=told_apart(run, first)) for row in found]
    return _once(rows)


def told_apart(run: Run, first: dict[tuple[str, str], dict[str, Any]]) -> str:
    """A run's method, and what differs from the settings of the first run of this data set and method.

    Args:
      run: with "dataset", "method" and "config".
      first: the settings by data set and method; those of a method's first run are put in.

    Examples:
      >>> first, run = {}, {"dataset": "toy", "method": "c3r"}
      >>> told_apart({**run, "config": {"seed": 0, "c3r": {"lambda_n": 3.0}}}, first)
      'c3r'
      >>> told_apart({**run, "config": {"seed": 1, "c3r": {"lambda_n": 0.0}}}, first)
      'c3r [c3r.lambda_n=0.0]'
    """
    own = {leaf: value for leaf, value in flatten(run.get("config") or {}) if not leaf.startswith(SAME)}
    other = first.setdefault((str(run["dataset"]), str(run["method"])), own)
    differing = [f"{leaf}={own.get(leaf)}" for leaf in {**other, **own} if own.get(leaf) != other.get(leaf)]
    return f"{run['method']} [{', '.join(differing)}]" if differing else str(run["method"])


def _results_below(directory: pathlib.Path) -> list[pathlib.Path]:
    """The results of a directory, or of those below; not of other splits or protocols, which lie below a run's own."""
    own = directory / "results.json"
    if own.exists():
        return [own]
    below = sorted(path for path in directory.iterdir() if path.is_dir()) if directory.is_dir() else []
    return [file for path in below for file in _results_below(path)]


def _json(path: pathlib.Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}): expected a JSON file.") from error


def _runs_in(content: Any) -> Sequence[Any]:
    return content.get("runs", [content]) if isinstance(content, dict) else [content]


def _rows_of(run: Any, file: pathlib.Path, route: str) -> list[Measured]:
    try:
        return [
            Measured(str(run["dataset"]), str(run["method"]), str(c["name"]), name, int(run["seed"]), float(value))
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
    """The mean and the worst of the conditions, where the run tells them, as if they were conditions."""
    metric, given = str(run.get("metric")), (run.get("summary") or {}).get(route) or {}
    told = {column: given.get(f"{column}_{metric}") for column in SUMMARY_COLUMNS}
    return [{"name": column, "routes": {route: {metric: value}}} for column, value in told.items()]


def _once(rows: Iterable[Measured]) -> list[Measured]:
    """The rows, after checking that none measures what another one does."""
    found: dict[tuple, Measured] = {}
    for row in rows:
        other = found.setdefault(row[:-1], row)
        if other.value != row.value:
            raise DataError(
                f"{row.dataset}, {row.method}, {row.condition}, {row.metric} has seed {row.seed} twice ({other.value} "
                f"and {row.value}): give each run its own method or seed."
            )
    return list(found.values())


def read_export(source: str) -> list[Measured]:
    """Numbers of runs made elsewhere.

    Formats, told apart by their content: results of this package's schema (JSON); a JSON list or CSV with the columns
    dataset, method, condition, metric, seed, value; a table exported from Weights & Biases (CSV with a column Name),
    where each other column of numbers is a metric; a scalar exported from TensorBoard (CSV of Wall time, Step, Value),
    whose last value counts.

    Args:
      source: a path, with what the file does not tell after a question mark, as in
        ``acc.csv?dataset=mvsa&method=plain&condition=clean&metric=accuracy&seed=0``.

    Returns:
      The rows.

    Raises:
      DataError: the file cannot be read, or something it should tell is missing.
    """
    name, _, query = source.partition("?")
    given = dict(urllib.parse.parse_qsl(query))
    unknown = sorted(set(given) - set(FIELDS))
    if unknown:
        raise DataError(f"{source!r} tells {unknown[0]!r}: expected some of {', '.join(FIELDS)} after the '?'.")
    path = pathlib.Path(name)
    if path.suffix.lower() == ".json":
        content = _json(path)
        if isinstance(content, dict):
            return _once(row for run in _runs_in(content) for row in _rows_of(run, path, "representation"))
        return _once(_complete(row, given, path, number) for number, row in enumerate(content, 1))
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
    return _once(_complete(row, given, path, number) for number, row in enumerate(table, 2))


def _unfolded(table: Sequence[Mapping[str, str]]) -> Iterable[dict[str, str]]:
    """One row per metric from a table with a row per run; the run's name is its method unless a column tells it."""
    for row in table:
        told = {key: row[key] for key in (*KEYS, "seed") if row.get(key)}
        for column, text in row.items():
            if column in (*FIELDS, "Name") or not text:
                continue
            try:
                float(text)
            except (TypeError, ValueError):
                continue  # notes, states, dates; cells beyond the header
            yield {"method": row["Name"], "metric": column, **told, "value": text}


def _complete(row: Any, given: Mapping[str, str], path: pathlib.Path, number: int) -> Measured:
    if not isinstance(row, Mapping):
        raise DataError(f"{path}, row {number}, is {row!r}: expected an object with {', '.join(FIELDS)}.")
    whole = {"seed": "0", "condition": "clean", **given, **{k: v for k, v in row.items() if v not in (None, "")}}
    missing = [key for key in FIELDS if key not in whole]
    if missing:
        raise DataError(
            f"{path}, row {number}, does not tell {', '.join(missing)}: add a column, or say it for the whole file as "
            f"in '{path.name}?{missing[0]}=...'."
        )
    try:
        value = float(whole["value"])
        measured = Measured(*(str(whole[key]) for key in KEYS), seed=int(whole["seed"]), value=value)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{path}, row {number}: {error}; expected a number as value and a whole one as seed."
        ) from error
    if not math.isfinite(value):
        raise DataError(f"{path}, row {number}, has value {whole['value']}: expected a finite number.")
    return measured
