"""The description of a user's tables in ``table.toml``, and the rows of their CSV files."""

import csv
import dataclasses
import pathlib
import tomllib
from collections.abc import Mapping
from typing import Any

from c3r_jax.data.source import RESERVED
from c3r_jax.errors import DataError
from c3r_jax.tasks.base import TaskSpec
from c3r_jax.tasks.classification import CLASSIFICATION
from c3r_jax.tasks.registry import LABELLED

SPEC = "table.toml"
SPLITS = ("train", "validation", "test")
KINDS = {"image": "image", "text": "text", "numbers": "features"}  # kind in table.toml: kind of the modality
TASKS = {name: task for name, task in LABELLED.items() if not task.dense}
_LEAVES = ("rows", "join", "key", "label", "task", "split", "group", "environment", "seed", "modalities")


@dataclasses.dataclass(frozen=True)
class Modality:
    """The columns of a modality.

    Attributes:
      kind: a key of KINDS.
      columns: the column, or one or more columns of numbers.
      folder: folder of the image files, put before the name in a cell.
    """

    kind: str
    columns: tuple[str, ...]
    folder: str = ""


@dataclasses.dataclass(frozen=True)
class Spec:
    """The content of ``table.toml``.

    Attributes:
      rows: {split: file} of the tables with one row per example; {"": file} if one file has all splits.
      join: further tables, joined to the rows by the key.
      key: column that identifies an example, in every table; "" identifies it by its line.
      label: the columns to predict: one, or one per class where the task has a label for each.
      task: one of TASKS.
      split: column with one of SPLITS; "" assigns rows to splits at random.
      group: column of a group that stays in one random split; "" assigns every row separately.
      environment: columns that say which environment a row is from; the first is the one that runs use unless they
        name another. They may be those of other leaves, such as the group's.
      seed: seed of the random splits.
      modalities: by name, sorted.
    """

    rows: Mapping[str, str]
    join: tuple[str, ...]
    key: str
    label: tuple[str, ...]
    task: TaskSpec
    split: str
    group: str
    environment: tuple[str, ...]
    seed: int
    modalities: Mapping[str, Modality]

    @property
    def columns(self) -> set[str]:
        """All columns that are read."""
        named = {self.key, self.split, self.group, *self.environment, *self.label} - {""}
        return named.union(*(modality.columns for modality in self.modalities.values()))


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
      place: file and line, for messages.
      cells: {column: text without surrounding spaces}.
      damage: why the row cannot be used; None if no reason is known.
    """

    place: str
    cells: Mapping[str, str]
    damage: str | None = None


def read_spec(source: pathlib.Path) -> Spec:
    """Reads ``table.toml`` in a source directory.

    Raises:
      DataError: the file is missing, is no TOML, or has a value that cannot be used.
    """
    path = source / SPEC
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path} is missing: write it as docs/own_data.md shows; it names columns and files.") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as TOML ({error}): correct the line.") from error
    unknown = sorted(set(found) - set(_LEAVES))
    if unknown:
        raise DataError(f"{path} has {unknown[0]!r}, expected some of {', '.join(_LEAVES)}: correct the name.")
    absent = [name for name in ("rows", "label", "modalities") if not found.get(name)]
    if absent:
        raise DataError(
            f"{path} has no {absent[0]!r}, expected rows, label and modalities: docs/own_data.md shows them."
        )
    return _checked(found, path)


def _checked(found: dict[str, Any], path: pathlib.Path) -> Spec:
    rows = found["rows"]
    rows = {"": rows} if isinstance(rows, str) else rows
    if not isinstance(rows, dict) or not all(isinstance(file, str) for file in rows.values()):
        raise DataError(f"rows in {path} is {rows!r}, expected a file or {{train = FILE, test = FILE}}: write it so.")
    if set(rows) != {""} and not {"train"} <= set(rows) <= set(SPLITS):
        raise DataError(f"rows in {path} has {sorted(rows)}, expected train and any of validation and test.")
    spec = Spec(
        rows=rows,
        join=_names(found.get("join", []), "join", path),
        key=_text(found, "key", path),
        label=_names(found["label"], "label", path),
        task=_task(found.get("task", CLASSIFICATION.name), path),
        split=_text(found, "split", path),
        group=_text(found, "group", path),
        environment=_names(found.get("environment", []), "environment", path),
        seed=found.get("seed", 0),
        modalities={name: _modality(name, one, path) for name, one in sorted(dict(found["modalities"]).items())},
    )
    if type(spec.seed) is not int:
        raise DataError(f"seed in {path} is {spec.seed!r}, expected a whole number.")
    if not spec.task.label_per_class and len(spec.label) != 1:
        several = ", ".join(repr(name) for name, task in TASKS.items() if task.label_per_class)
        raise DataError(f"label in {path} names {len(spec.label)} columns, expected 1 unless task is {several}.")
    if spec.join and not spec.key:
        raise DataError(f"{path} joins tables, so it needs key: the column by which their rows belong together.")
    if spec.split and set(rows) != {""}:
        raise DataError(f"{path} has a split column and a file per split: take one of them out.")
    leaking = {name for name, one in spec.modalities.items() if set(one.columns) & set(spec.label)}
    if leaking:
        raise DataError(f"Modality {min(leaking)!r} in {path} reads the label's column: take it out.")
    return spec


def _task(name: Any, path: pathlib.Path) -> TaskSpec:
    if not isinstance(name, str) or name not in TASKS:
        raise DataError(f"task in {path} is {name!r}, expected one of {', '.join(TASKS)}.")
    return TASKS[name]


def _text(found: dict[str, Any], name: str, path: pathlib.Path) -> str:
    value = found.get(name, "")
    if not isinstance(value, str):
        raise DataError(f"{name} in {path} is {value!r}, expected the name of a column in quotes.")
    return value


def _names(value: Any, name: str, path: pathlib.Path) -> tuple[str, ...]:
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(item, str) and item for item in names):
        raise DataError(f"{name} in {path} is {value!r}, expected a name in quotes or a list of them.")
    if len(set(names)) < len(names):
        raise DataError(f"{name} in {path} has a name twice: {names!r}. Take one out.")
    return tuple(names)


def _modality(name: str, found: Any, path: pathlib.Path) -> Modality:
    kinds = [kind for kind in KINDS if isinstance(found, dict) and kind in found]
    if not name.isidentifier() or name in (*RESERVED, "key"):
        raise DataError(
            f"{path} names a modality {name!r}, expected a word that is none of {', '.join(RESERVED)}, key."
        )
    if len(kinds) != 1 or set(found) - {kinds[0], "folder"}:
        raise DataError(
            f"Modality {name!r} in {path} is {found!r}, expected one of {{image = COLUMN, folder = FOLDER}}, "
            "{text = COLUMN} and {numbers = [COLUMN, ...]}."
        )
    columns = _names(found[kinds[0]], f"modality {name!r}", path)
    if kinds[0] != "numbers" and len(columns) != 1:
        raise DataError(
            f"Modality {name!r} in {path} names {len(columns)} columns, expected one column of {kinds[0]}s."
        )
    return Modality(kinds[0], columns, _text(found, "folder", path))


def read_rows(spec: Spec, source: pathlib.Path) -> dict[str, list[Row]]:
    """Reads all tables and joins them.

    Returns:
      {split: rows}, or {"": all rows} if one file has all splits. A row with more or fewer cells than columns is
      damaged.

    Raises:
      DataError: a file is missing or no table, a column is missing or in two tables, or keys do not match.
    """
    tables = {split: _table(source, file) for split, file in spec.rows.items()}
    joined = {file: _table(source, file) for file in spec.join}
    known = [(file, names) for file, (names, _) in joined.items()]
    for split, (names, _) in tables.items():
        _check_columns(spec, [(spec.rows[split], names), *known])
    partners = {file: _by_key(file, rows, spec.key) for file, (_, rows) in joined.items()}
    for file, found in partners.items():
        if not any(row.cells.get(spec.key) in found for _, rows in tables.values() for row in rows):
            raise DataError(f"No {spec.key!r} of {file} is in {', '.join(spec.rows.values())}: compare the columns.")
    return {split: [_join(row, partners, spec.key) for row in rows] for split, (_, rows) in tables.items()}


def _check_columns(spec: Spec, tables: list[tuple[str, list[str]]]) -> None:
    """Checks that every column is in one table, and the key in all."""
    places = {name: [file for file, names in tables if name in names] for name in spec.columns}
    for name, files in sorted(places.items()):
        if name == spec.key:
            absent = [file for file, _ in tables if file not in files]
            if absent:
                raise DataError(f"{absent[0]} has no column {name!r}, expected the key in every table.")
        elif len(files) != 1:
            there = " and ".join(files) if files else "none of the tables"
            have = ", ".join(sorted({name for _, names in tables for name in names}))
            raise DataError(f"Column {name!r} is in {there}, expected it in one; the columns are {have}.")


def _table(source: pathlib.Path, file: str) -> tuple[list[str], list[Row]]:
    """Columns and rows of a CSV file; the separator is the most frequent of comma, ; and tab in the first line."""
    path = source / file
    rows: list[Row] = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            first = lines.readline()
            lines.seek(0)
            reader = csv.reader(lines, delimiter=max(",;\t", key=first.count), strict=True)
            names = [name.strip() for name in next(reader, [])]
            for cells in reader:
                if not any(cell.strip() for cell in cells):
                    continue
                place, damage = f"{file}, line {reader.line_num}", None
                if len(cells) != len(names):
                    damage = f"it has {len(cells)} cells, expected {len(names)}, one for each column"
                texts = (cell.strip() for cell in cells)
                rows.append(Row(place, dict(zip(names, texts, strict=False)), damage))
    except FileNotFoundError:
        raise DataError(f"{path} is missing: {SPEC} names it.") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not in UTF-8 ({error.reason} at byte {error.start}): save it as UTF-8.") from error
    except (OSError, csv.Error) as error:
        raise DataError(
            f"{path} cannot be read as a table ({error}): correct its quotes, or save it as CSV again."
        ) from error
    if "" in names or len(set(names)) < len(names) or not names:
        raise DataError(f"The first line of {path} is {names}, expected a different name for each column.")
    return names, rows


def _by_key(file: str, rows: list[Row], key: str) -> dict[str, Row]:
    found: dict[str, Row] = {}
    for row in rows:
        name = row.cells.get(key, "")
        if name in found:
            raise DataError(
                f"{row.place} has the {key} {name!r} of {found[name].place} again, expected one row for each."
            )
        found[name] = row
    return found


def _join(row: Row, partners: dict[str, dict[str, Row]], key: str) -> Row:
    """A row joined with the cells of the other tables, which stay empty if a table has no such row."""
    for found in partners.values():
        partner = found.get(row.cells.get(key, ""))
        if partner is not None:
            damage = row.damage or (partner.damage and f"{partner.place}: {partner.damage}")
            row = Row(row.place, {**partner.cells, **row.cells}, damage)
    return row
