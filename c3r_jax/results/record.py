"""A recorded table of results: every cell's value by seed, and on what it was measured."""

import dataclasses
import datetime
import importlib.metadata
import json
import math
import os
import pathlib
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from c3r_jax.errors import DataError

Tables = dict[str, dict[str, dict[str, list[float | None]]]]  # {table: {row: {column: value of each seed}}}
BYTES_OF_MAXRSS = 1 if sys.platform == "darwin" else 1024
PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "scikit-learn")


@dataclasses.dataclass(frozen=True)
class Record:
    """What ``results/NAME.json`` holds.

    Attributes:
      name: of the table, and of its file.
      command: arguments after ``python``, from the root of the repository.
      seeds: number of seeds.
      tables: see :data:`Tables`; what one seed cannot measure is None.
      settings: what the command says of its configuration.
      commit: of the repository; with "+" where files differed from it.
      versions: of Python and the libraries.
      machine: processor, cores, accelerator and operating system.
      data: {file or set: SHA-256} of what was read.
      seconds: of the whole command; None where it was not measured.
      peak_bytes: the most memory that it held, likewise.
      date: day on which it was measured.
      parameters: {table or method: trained numbers of its network}; of methods that share a network the plain one's.
    """

    name: str
    command: tuple[str, ...]
    seeds: int
    tables: Tables
    settings: Mapping[str, Any]
    commit: str
    versions: Mapping[str, str]
    machine: Mapping[str, Any]
    data: Mapping[str, str]
    seconds: float | None
    peak_bytes: int | None
    date: str
    parameters: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        for path, values in cells(self.tables):
            if any(value is not None and not math.isfinite(value) for value in values):
                raise DataError(f"{self.name} has {values} in {path}, but finite numbers were expected.")


def cells(tables: Tables) -> list[tuple[tuple[str, str, str], list[float | None]]]:
    """All cells in order: ((table, row, column), values by seed).

    Examples:
      >>> cells({"emoji": {"plain": {"accuracy": [0.5, 0.6]}}})
      [(('emoji', 'plain', 'accuracy'), [0.5, 0.6])]
    """
    return [
        ((table, row, column), values)
        for table, rows in tables.items()
        for row, columns in rows.items()
        for column, values in columns.items()
    ]


def read_record(path: str | os.PathLike[str]) -> Record:
    """Reads a record.

    Raises:
      DataError: the file is missing, or no record.
    """
    try:
        found = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
        found["command"] = tuple(found["command"])
        return Record(**found)
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist: record the table first, with c3r reproduce NAME --record.") from error
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(f"{path} is no record of results ({error}): restore it from the repository.") from error


def write_record(record: Record, path: str | os.PathLike[str]) -> None:
    """Writes a record, one line a cell, so that a change of the file shows which cells changed."""
    fields = dataclasses.asdict(record)
    tables = fields.pop("tables")
    head = json.dumps({**fields, "tables": None}, indent=1)
    lines = [
        f"  {json.dumps(table)}: {{\n"
        + ",\n".join(
            f"   {json.dumps(row)}: {{\n"
            + ",\n".join(f"    {json.dumps(column)}: {json.dumps(values)}" for column, values in columns.items())
            + "\n   }"
            for row, columns in rows.items()
        )
        + "\n  }"
        for table, rows in tables.items()
    ]
    text = head.replace('"tables": null', '"tables": {\n' + ",\n".join(lines) + "\n }")
    path = pathlib.Path(path)
    part = path.with_suffix(".part")
    part.write_text(text + "\n", encoding="utf-8")
    os.replace(part, path)


class Meter:
    """Wall time and memory of a command: begins when it is made.

    Examples:
      >>> sorted(Meter().read())
      ['peak_bytes', 'seconds']
    """

    def __init__(self) -> None:
        self._began = time.monotonic()

    def read(self) -> dict[str, float]:
        """{"seconds" since the beginning, "peak_bytes": the most memory that this process has held}."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return {"seconds": time.monotonic() - self._began, "peak_bytes": peak * BYTES_OF_MAXRSS}


def cost_line(record: Record) -> str:
    """What a record's command took, in one line; what was not measured is left out.

    Examples:
      >>> more = {"parameters": {"a": 3000, "b": 12_500}}
      >>> cost_line(Record("t", (), 5, {}, {}, "", {}, {}, {}, 75.0, 3 * 2**29, "2026-01-01", **more))
      '5 seeds, 3,000 to 12,500 parameters, 1.2 minutes, 1.5 GiB'
    """
    found = [f"{record.seeds} seed" + "s" * (record.seeds != 1)]
    if record.parameters:
        sizes = sorted(set(record.parameters.values()))
        found.append(" to ".join(f"{size:,}" for size in (sizes[0], sizes[-1])[: len(sizes)]) + " parameters")
    if record.seconds is not None:
        found.append(f"{record.seconds / 60:.1f} minutes")
    if record.peak_bytes is not None:
        found.append(f"{record.peak_bytes / 2**30:.1f} GiB")
    return ", ".join(found)


def commit_of(root: pathlib.Path) -> str:
    """The commit of a checkout, "+" behind it if tracked files differ; "" outside a repository."""

    def git(*arguments: str) -> str:
        found = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False)
        return found.stdout.strip() if found.returncode == 0 else ""

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ":(exclude)results", ":(exclude)docs")
        return git("rev-parse", "--short=12", "HEAD") + ("+" if changed else "")
    except OSError:  # no git
        return ""


def versions() -> dict[str, str]:
    """Versions of Python and the libraries on which numbers depend."""
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in PACKAGES}}


def machine() -> dict[str, Any]:
    """The processor, its cores, the operating system."""
    return {"processor": _processor(), "cores": os.cpu_count(), "system": f"{platform.system()} {platform.machine()}"}


def _processor() -> str:
    info = pathlib.Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def today() -> str:
    """The date, as YYYY-MM-DD."""
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def tables_of(found: Mapping[str, Any], shape: Sequence[str]) -> Tables:
    """Tables from a benchmark's JSON, whose levels are named by ``shape``.

    Args:
      found: nested objects; the innermost values are numbers or lists of numbers by seed.
      shape: for each level "table", "row", "column" or, for one that is no level of a table, a key to go into, such as
        ".seeds" (the value itself) or "cases" (before anything else).

    Examples:
      >>> figures = {"cases": {"emoji": {"plain": {"accuracy": {"mean": 0.55, "seeds": [0.5, 0.6]}}}}}
      >>> tables_of(figures, ("cases", "table", "row", "column", ".seeds"))
      {'emoji': {'plain': {'accuracy': [0.5, 0.6]}}}
      >>> tables_of({"plain": {"same": {"accuracy": [0.5]}}}, ("row", "column", "column"))
      {'': {'plain': {'same, accuracy': [0.5]}}}
    """
    tables: Tables = {}

    def walk(value: Any, levels: Sequence[str], place: dict[str, str]) -> None:
        if not levels:
            values = [float(v) if v is not None else None for v in (value if isinstance(value, list) else [value])]
            row = tables.setdefault(place.get("table", ""), {}).setdefault(place.get("row", ""), {})
            row[place.get("column", "")] = values
            return
        level, *rest = levels
        if level not in ("table", "row", "column"):
            return walk(value[level.removeprefix(".")], rest, place)
        for name, inner in value.items():
            joined = ", ".join(filter(None, (place.get(level), name)))
            walk(inner, rest, {**place, level: joined})

    walk(found, shape, {})
    return tables
