"""Results measured here, measured in PyTorch, and published: one table per data set, each source in its own column."""

import csv
import io
import json
import math
import pathlib
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any, NamedTuple

from scipy import stats

from c3r_jax.errors import DataError
from c3r_jax.metrics.intervals import Stat, describe, t_interval
from c3r_jax.metrics.scores import score_of
from c3r_jax.report.cells import Table, metric_stat, metric_value, number
from c3r_jax.report.html import html_page, html_table
from c3r_jax.report.tidy import KEYS, MetricRow

PUBLISHED = pathlib.Path(__file__).with_name("published.json")
HEADER = (
    "method",
    "condition",
    "metric",
    "here",
    "seeds",
    "PyTorch",
    "seeds",
    "here - PyTorch [95 %]",
    "published, not measured here",
    "source",
)
NOTE = (
    "Mean ± standard deviation over seeds. The interval is a paired t interval where both sides have the same two or "
    "more seeds, else Welch's. Empty: not available. Published figures are quoted from their source; splits, backbones "
    "and tuning differ from ours, so no difference to them is computed. "
    "In brackets: settings in which runs differ from the first given run of that method."
)


class Published(NamedTuple):
    """A published figure, quoted from its source.

    Attributes:
      key: dataset, method, condition, metric.
      value: the figure; None if only a range is known.
      sd: its standard deviation, if published.
      low, high: the range.
      source: where it was published.
    """

    key: tuple[str, str, str, str]
    value: float | None
    sd: float | None
    low: float | None
    high: float | None
    source: str


class Row(NamedTuple):
    """One line of a comparison.

    Attributes:
      key: dataset, method, condition, metric.
      ours, torch: mean, sd and n over seeds; None without runs.
      difference: mean, lower and upper bound of ours - PyTorch; None if one is missing, NaN bounds for single seeds.
      published: quoted figures, each on a separate line.
    """

    key: tuple[str, str, str, str]
    ours: Stat | None
    torch: Stat | None
    difference: tuple[float, float, float] | None
    published: tuple[Published, ...]


def read_published(path: pathlib.Path = PUBLISHED) -> list[Published]:
    """Reads published figures: {"rows": [{dataset, method, condition, metric, value [sd] or low and high, source}]}.

    Raises:
      DataError: the file or a row cannot be used.

    Examples:
      >>> any("C3R" in row.key[1] for row in read_published())  # none could be found
      False
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))["rows"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} cannot be read ({type(error).__name__}: {error}): expected published figures."
        ) from error
    if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
        raise DataError(f"{path} has rows {str(content)[:40]}: expected a list of objects, one published figure each.")
    rows = []
    for line, row in enumerate(content, 1):
        lacking = [key for key in (*KEYS, "source") if not row.get(key)]
        if lacking or ("value" not in row and not {"low", "high"} <= row.keys()):
            raise DataError(
                f"{path}, row {line}, lacks {', '.join(lacking) or 'value, or low and high'}: a published figure needs "
                f"{', '.join(KEYS)}, a number and its source."
            )
        large = [
            row[name] for name in ("value", "sd", "low", "high") if name in row and not _fits(row[name], row["metric"])
        ]
        if large:
            raise DataError(
                f"{path}, row {line}, has {row['metric']} {large[0]!r}: expected a number, and of such a score a share "
                "from 0 to 1 (0.73, not 73)."
            )
        known: list[Any] = [row.get(name) for name in ("value", "sd", "low", "high")]
        dataset, method, condition, metric = (str(row[key]) for key in KEYS)
        rows.append(Published((dataset, method, condition, metric), *known, source=str(row["source"])))
    return rows


def _fits(value: Any, metric: str) -> bool:
    """Whether a value is a number, and a share where the metric is one."""
    plain = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return plain and (0 <= value <= 1 or not score_of(metric).percent)


def compare_results(ours: Sequence[MetricRow], torch: Sequence[MetricRow], published: Sequence[Published]) -> list[Row]:
    """Joins the results of all three sources, for the data sets with runs (for all published ones if there are none).

    Args:
      ours: results of this package.
      torch: results of PyTorch runs.
      published: quoted figures.

    Returns:
      Rows by data set, then condition, metric, method, each in order of first appearance.
    """
    sides = [_by_key(ours), _by_key(torch)]
    datasets = {key[0] for side in sides for key in side}
    quoted: dict[tuple[str, str, str, str], list[Published]] = {}
    for row in published:
        if not datasets or row.key[0] in datasets:
            quoted.setdefault(row.key, []).append(row)
    keys = list(dict.fromkeys([*sides[0], *sides[1], *quoted]))
    order = [{name: i for i, name in enumerate(dict.fromkeys(key[part] for key in keys))} for part in range(4)]
    rows = []
    for key in sorted(keys, key=lambda key: [order[part][key[part]] for part in (0, 2, 3, 1)]):
        mine, theirs = (side.get(key, {}) for side in sides)
        rows.append(
            Row(
                key,
                describe(list(mine.values())) if mine else None,
                describe(list(theirs.values())) if theirs else None,
                _difference(mine, theirs),
                tuple(quoted.get(key, ())),
            )
        )
    return rows


def _by_key(rows: Iterable[MetricRow]) -> dict[tuple[str, str, str, str], dict[int, float]]:
    found: dict[tuple[str, str, str, str], dict[int, float]] = {}
    for row in rows:
        found.setdefault((row.dataset, row.method, row.condition, row.metric), {})[row.seed] = row.value
    return found


def _difference(ours: dict[int, float], theirs: dict[int, float]) -> tuple[float, float, float] | None:
    if not ours or not theirs:
        return None
    if ours.keys() == theirs.keys():
        paired = t_interval([ours[seed] - theirs[seed] for seed in sorted(ours)])
        return paired.mean, paired.lower, paired.upper
    our_values, their_values = list(ours.values()), list(theirs.values())
    mean = describe(our_values).mean - describe(their_values).mean
    if min(len(our_values), len(their_values)) < 2:
        return mean, math.nan, math.nan
    interval = stats.ttest_ind(our_values, their_values, equal_var=False).confidence_interval(0.95)
    return mean, float(interval.low), float(interval.high)


def comparison_tables(rows: Sequence[Row]) -> dict[str, Table]:
    """One table per data set, with all cells as text; shares in percent."""
    by_dataset: dict[str, list[tuple[str, ...]]] = {}
    for row in rows:
        dataset, method, condition, metric = row.key
        name = f"{metric}, %" if score_of(metric).percent else metric
        sides = tuple(part for stat in (row.ours, row.torch) for part in _stat(stat, metric))
        results = (method, condition, name, *sides, _interval(row.difference, metric))
        lines = by_dataset.setdefault(dataset, [])
        quoted = [(_quoted(p, metric), p.source) for p in row.published] or [("", "")]
        lines.append((*results, *quoted[0]))
        lines += [(method, condition, name, *[""] * 5, *more) for more in quoted[1:]]
    return {dataset: Table(HEADER, tuple(lines), notes=(NOTE,)) for dataset, lines in by_dataset.items()}


def _stat(stat: Stat | None, metric: str) -> tuple[str, str]:
    return ("", "") if stat is None else (metric_stat(stat, metric), str(stat.n))


def _interval(difference: tuple[float, float, float] | None, metric: str) -> str:
    if difference is None:
        return ""
    mean, lower, upper = (metric_value(value, metric) for value in difference)
    return mean if math.isnan(difference[1]) else f"{mean} [{lower}, {upper}]"


def _quoted(row: Published, metric: str) -> str:
    """A published figure with at most the usual digits: two for percent, four for an error."""

    def digits(value: float | None) -> str:
        shown = number(value, digits=4)
        return number(100 * float(value), digits=2) if value is not None and score_of(metric).percent else shown

    if row.value is None:
        return f"{digits(row.low)} to {digits(row.high)}"
    return digits(row.value) + (f" ± {digits(row.sd)}" if row.sd is not None else "")


def to_csv(tables: dict[str, Table]) -> str:
    """All tables as one CSV text, with the data set in the first column."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = [f"{side} {name}" if name == "seeds" else name for name, side in zip(HEADER, _sides(), strict=True)]
    writer.writerow(["dataset", *names])
    for dataset, table in tables.items():
        writer.writerows([dataset, *row] for row in table.rows)
    return out.getvalue()


def _sides() -> list[str]:
    """The column that each "seeds" column belongs to, as there are two of them; else ""."""
    return ["" if name != "seeds" else HEADER[i - 1] for i, name in enumerate(HEADER)]


_LATEX = str.maketrans(
    {
        **{character: f"\\{character}" for character in "&%$#_{}"},
        "±": "$\\pm$",
        "~": "\\textasciitilde{}",
        "^": "\\textasciicircum{}",
        "\\": "\\textbackslash{}",
        "<": "$<$",
        ">": "$>$",
    }
)


def to_latex(tables: dict[str, Table]) -> str:
    r"""The tables for a paper that uses booktabs.

    Examples:
      >>> print(to_latex({"a_b": Table(("x", "y"), (("1 ± 2", "50 %"),))}))
      % a_b
      \begin{tabular}{lr}
      \toprule
      x & y \\
      \midrule
      1 $\pm$ 2 & 50 \% \\
      \bottomrule
      \end{tabular}
    """
    parts = []
    for dataset, table in tables.items():
        lines = [f"% {dataset}", f"\\begin{{tabular}}{{l{'r' * (len(table.header) - 1)}}}", "\\toprule"]
        lines += [_latex_row(table.header), "\\midrule", *map(_latex_row, table.rows), "\\bottomrule", "\\end{tabular}"]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(cell.translate(_LATEX) for cell in cells) + " \\\\"


def write_comparison(rows: Sequence[Row], out: pathlib.Path, command: str) -> dict[str, pathlib.Path]:
    """Writes comparison.md, .csv, .tex, .html and .json.

    Args:
      rows: result of :func:`compare_results`.
      out: directory, created if it does not exist.
      command: the command line, for the record.

    Returns:
      {format: path}.
    """
    tables = comparison_tables(rows)
    out.mkdir(parents=True, exist_ok=True)
    markdown = "\n\n".join(f"## {dataset}\n\n{table.to_markdown()}" for dataset, table in tables.items())
    sections = "".join(
        f"<section><h2>{escape(name)}</h2>{html_table(table, f'Comparison on {name}')}</section>"
        for name, table in tables.items()
    )
    title = "Here, in PyTorch, published"
    contents = {
        "md": f"# {title}\n\n    {command}\n\n{markdown}\n",
        "csv": to_csv(tables),
        "tex": to_latex(tables) + "\n",
        "html": html_page(title, f"<pre>{escape(command)}</pre>{sections}"),
        "json": json.dumps({"schema": 1, "command": command, "rows": [_plain(row) for row in rows]}, indent=1) + "\n",
    }
    written = {}
    for ending, content in contents.items():
        written[ending] = out / f"comparison.{ending}"
        written[ending].write_text(content, encoding="utf-8")
    return written


def _plain(row: Row) -> dict[str, Any]:
    """A row for JSON; NaN becomes null."""
    difference = row.difference and [None if math.isnan(value) else value for value in row.difference]
    sides = {
        name: stat and {"mean": stat.mean, "sd": None if math.isnan(stat.sd) else stat.sd, "n": stat.n}
        for name, stat in (("ours", row.ours), ("torch", row.torch))
    }
    quoted = [{k: v for k, v in p._asdict().items() if k != "key" and v is not None} for p in row.published]
    return {**dict(zip(KEYS, row.key, strict=True)), **sides, "difference": difference, "published": quoted}
