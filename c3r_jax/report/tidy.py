"""Results in long form, one number per row, from runs of this package and from exports of PyTorch runs."""

import json
import math
import pathlib
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from absl import logging

from c3r_jax.errors import DataError
from c3r_jax.files.json_objects import each_key_once
from c3r_jax.files.natural import in_natural_order
from c3r_jax.metrics.routes import ROUTES
from c3r_jax.metrics.scores import score_of
from c3r_jax.report.aggregate import SUMMARY_COLUMNS, Run
from c3r_jax.report.document import flatten
from c3r_jax.report.exports import FIELDS, NUMBER, UNIT, UNITS, read_table, rows_of_table, split_source
from c3r_jax.tasks.spellings import spelled_in_several_ways

KEYS = FIELDS[:4]
# Leaves that change no score, are part of the method's name already ("c3r+dropout"), or are checked (EXAMPLES).
SAME = ("seed", "data.path", "eval.batch_size", "eval.split", "train.writers", "method", "modality_dropout.switch")
# What results say of the examples they are about; runs of one data set that differ in it were not given the same task.
EXAMPLES = ("split", "num_examples", "class_names", "task", "sha256")
_WHOLE = re.compile(r"[+-]?[0-9]{1,18}(\.0*)?")
ROUNDED = 1e-6  # by which a share may be above 1


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
      DataError: a directory has no results, a file is damaged, a run has no such route, or runs of one data set differ
        in split, number of examples or classes.
    """
    rows: list[MetricRow] = []
    first: dict[tuple[str, str], dict[str, Any]] = {}
    examples: dict[tuple[str, str], tuple[Any, str]] = {}
    for directory in directories:
        files = _results_below(directory)
        if not files:
            raise DataError(
                f"{directory} has no results.json of a run, itself or below: evaluate the run first (c3r eval). Of a "
                "study on vectors the table is in its results.md."
            )
        for file in files:
            content = _json(file)
            for run in _runs_in(content):
                if route == "instrument" and ((run.get("config") or {}).get("c3r") or {}).get("instrument") == "none":
                    raise DataError(
                        f"{file} is of a run whose config.c3r.instrument is 'none', which has no route "
                        "'instrument': leave it out, or compare by route 'representation'."
                    )
                found = _rows_of(run, file, route)
                _check_examples(run, f"{file} ({run['method']}, seed {run['seed']})", examples)
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


def _check_examples(run: Run, name: str, first: dict[tuple[str, str], tuple[Any, str]]) -> None:
    """Refuses a run that was evaluated on other examples than the first run of its data set.

    Args:
      run: results; what they do not say is not compared.
      name: of the run, for the message.
      first: (value, name of the run) by data set and key of :data:`EXAMPLES`; those that are new are added.

    Raises:
      DataError: the split, the number of examples or the classes differ.
    """
    dataset = str(run["dataset"])
    for key in EXAMPLES:
        if key not in run:
            continue
        value, other = first.setdefault((dataset, key), (run[key], name))
        if value != run[key]:
            values = " and ".join(textwrap.shorten(str(one), 120, placeholder=" ...") for one in (value, run[key]))
            raise DataError(
                f"{other} and {name} are both of data set {dataset!r}, but differ in {key} ({values}): "
                "compare them in two commands, or evaluate both on the same examples."
            )


def _results_below(directory: pathlib.Path) -> list[pathlib.Path]:
    """The results.json of a directory, or else those below it; so other splits and protocols of a run are skipped.

    A study's own file lists runs on vectors, which have no conditions; its experiments are runs below it.
    """
    results = directory / "results.json"
    if results.exists() and not _is_of_vectors(_json(results)):
        return [results]
    folders = [path for path in directory.iterdir() if path.is_dir()] if directory.is_dir() else []
    return [file for folder in in_natural_order(folders) for file in _results_below(folder)]


def _is_of_vectors(content: Any) -> bool:
    runs = content.get("runs") if isinstance(content, dict) else None
    return isinstance(runs, list) and all(isinstance(run, dict) and "world" in run for run in runs)


def _json(path: pathlib.Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=each_key_once)
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read ({error}): expected a JSON file.") from error


def _runs_in(content: Any) -> Sequence[Any]:
    runs = content.get("runs", [content]) if isinstance(content, dict) else [content]
    return runs if isinstance(runs, list) else [runs]


def _rows_of(run: Any, file: pathlib.Path, route: str) -> list[MetricRow]:
    try:
        seed, config = _whole(run["seed"]), run.get("config") or {}
        if not isinstance(config, Mapping):
            raise TypeError(f"config is {str(config)[:40]}, no object")
        run = run if "retrieval" not in run else {**run, "conditions": _of_pairs(run)}
        return [
            MetricRow(str(run["dataset"]), str(run["method"]), str(c["name"]), name, seed, _number(value))
            for c in [*run["conditions"], *_summaries(run, route)]
            for name, value in c["routes"][route].items()
            if value is not None
        ]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"{file} is not the results of a run ({type(error).__name__}: {error}): expected dataset, method, seed and "
            f"conditions with route {route!r}."
        ) from error


def _of_pairs(run: Run) -> list[dict[str, Any]]:
    """The scores of contrastive pretraining in the form of conditions: directions, then subsets of modalities.

    Examples:
      >>> rows = [{"condition": "clean", "modalities": "text only", "zero_shot": 0.4}]
      >>> for condition in _of_pairs({"retrieval": {"image to text": 0.5}, "conditions": rows}):
      ...     print(condition)
      {'name': 'image to text', 'routes': {'representation': {'retrieval': 0.5}}}
      {'name': 'clean, text only', 'routes': {'representation': {'zero_shot': 0.4}}}
    """
    scores = {name: {"retrieval": share} for name, share in run["retrieval"].items()} | {
        f"{row['condition']}, {row['modalities']}": {
            k: v for k, v in row.items() if k not in ("condition", "modalities")
        }
        for row in run["conditions"]
    }
    return [{"name": name, "routes": {ROUTES[0]: values}} for name, values in scores.items()]


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


def names_in_several_ways(keys: Iterable[tuple[str, str, str, str]]) -> list[str]:
    """A sentence for each data set, method, condition or metric that is perhaps written in several ways.

    Args:
      keys: dataset, method, condition and metric of all rows that are compared.

    Example:
      >>> names_in_several_ways([("emoji", "C3R", "clean", "accuracy"), ("emoji", "c3r", "clean", "accuracy")])
      ["The method 'C3R' and 'c3r' may be one, written in 2 ways: write it in one, or their rows never meet."]
    """
    columns = zip(KEYS, zip(*keys, strict=True), strict=False)  # of no rows there are no columns
    return [
        f"The {field} {' and '.join(map(repr, group))} may be one, written in {len(group)} ways: write it in one, or "
        "their rows never meet."
        for field, names in columns
        for group in spelled_in_several_ways(set(names))
    ]


def read_export(source: str) -> list[MetricRow]:
    """Reads results of other programs.

    The format is recognised by its content: results in this package's schema (JSON); a JSON list or CSV with the
    columns dataset, method, condition, metric, seed, value; a table of runs exported from Weights & Biases (CSV with a
    column Name), in which every other column of numbers is a metric; a chart exported from there (CSV with a step and
    columns "RUN - METRIC"), or a scalar exported from TensorBoard (CSV of Wall time, Step, Value), whose last values
    are used: of a step that a resumed run did again, the later one.

    Scores that are shares of 1 here may be in percent if all of a metric's values in the file are. Values that are no
    finite numbers, as crashed runs leave them, are left out with a warning.

    Args:
      source: a path. Fields that the file does not have follow after a question mark, as in
        ``acc.csv?dataset=mvsa&method=c3r+dropout&condition=clean&metric=accuracy&seed=0``; ``unit=percent`` or
        ``unit=share`` says how such scores are written.

    Returns:
      The rows.

    Raises:
      DataError: the file cannot be read, a field is missing, or shares and percent are mixed.
    """
    path, given = split_source(source)
    unit = given.pop(UNIT, None)
    if unit not in (None, *UNITS):
        raise DataError(f"{source!r} has the unit {unit!r}: expected {' or '.join(UNITS)}.")
    if path.suffix.lower() == ".json":
        content = _json(path)
        if isinstance(content, dict):
            rows = [row for run in _runs_in(content) for row in _rows_of(run, path, "representation")]
        elif isinstance(content, list) and content:
            rows = [_complete(row, given, path, number) for number, row in enumerate(content, 1)]
        else:
            held = "an empty list" if isinstance(content, list) else repr(content)[:40]
            raise DataError(f"{path} holds {held}: expected a list of rows with {', '.join(FIELDS)}, or results.")
    elif path.suffix.lower() == ".csv":
        header, table = read_table(path)
        rows = [_complete(row, given, path, number) for number, row in rows_of_table(header, table, given, path)]
    else:
        raise DataError(f"{path} is neither .json nor .csv: export the runs in one of these formats.")
    return _without_repetition(_as_shares(_finite(rows, path), unit, path))


def _finite(rows: Sequence[MetricRow], path: pathlib.Path) -> list[MetricRow]:
    """The rows with finite values; the others are named in a warning."""
    kept = [row for row in rows if math.isfinite(row.value)]
    if not kept:
        what = f"only values like {rows[0].value}" if rows else "no value"
        raise DataError(f"{path} has {what}: expected a finite number in some row.")
    left = [
        f"{row.method}, {row.condition}, {row.metric}, seed {row.seed}" for row in rows if not math.isfinite(row.value)
    ]
    if left:
        logging.warning("%s: %d values are no finite numbers and are left out: %s.", path, len(left), "; ".join(left))
    return kept


def _as_shares(rows: Sequence[MetricRow], unit: str | None, path: pathlib.Path) -> list[MetricRow]:
    """Scores that are shares, from 0 to 1, whether the file has them so or in percent."""
    units = {}
    for metric in dict.fromkeys(row.metric for row in rows if score_of(row.metric).percent):
        values = [row.value for row in rows if row.metric == metric]
        units[metric] = unit or _unit_of(values, metric, path)
        highest = (100 if units[metric] == "percent" else 1) * (1 + ROUNDED)
        outside = [value for value in values if not 0 <= value <= highest]
        if outside:
            raise DataError(
                f"{path} has {metric} {outside[0]:g}: expected a share from 0 to 1 or 0 to 100 percent; correct it, or "
                "give the other unit after '?' (unit=share, unit=percent)."
            )
    return [row._replace(value=row.value / 100) if units.get(row.metric) == "percent" else row for row in rows]


def _unit_of(values: Sequence[float], metric: str, path: pathlib.Path) -> str:
    above = [value for value in values if value > 1 + ROUNDED]
    below = [value for value in values if 0 < value <= 1 + ROUNDED]
    if above and below:
        raise DataError(
            f"{path} has {metric} {below[0]:g} and {above[0]:g}, as if shares and percent were mixed: write all in one "
            "way, or give it after '?' (unit=percent)."
        )
    return "percent" if above else "share"


def _whole(value: Any) -> int:
    """A whole number, also as 3.0 or "3.0".

    Raises:
      ValueError: it is none.
    """
    text = str(value).strip()
    if isinstance(value, bool) or not _WHOLE.fullmatch(text):
        raise ValueError(f"{value!r} is no whole number")
    return int(text.partition(".")[0])


def _number(value: Any) -> float:
    """A number as files have it: no truth values, no underscores.

    Raises:
      ValueError: it is none.
    """
    if isinstance(value, bool) or (isinstance(value, str) and not NUMBER.fullmatch(value.strip())):
        raise ValueError(f"could not convert {value!r} to a number")
    return float(value)


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
        keys = (str(complete[key]).strip() for key in KEYS)
        return MetricRow(*keys, seed=_whole(complete["seed"]), value=_number(complete["value"]))
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{path}, row {number}: {error}; expected a number as value and a whole number as seed."
        ) from error
