"""The description of a user's tables in ``table.toml``, and the rows of their CSV files."""

import dataclasses
import functools
import pathlib
import tomllib
from collections.abc import Mapping
from typing import Any

from c3r_jax.data.media.image import PLAIN, PictureRules
from c3r_jax.data.preparation.layouts.csv_tables import Row, read_table
from c3r_jax.data.preparation.layouts.table_joins import join_rows
from c3r_jax.data.preparation.missing_values import Counts, MissingValues, count, described, rule_of
from c3r_jax.data.source import RESERVED
from c3r_jax.errors import ConfigError, DataError
from c3r_jax.tasks.base import TaskSpec
from c3r_jax.tasks.classification import CLASSIFICATION
from c3r_jax.tasks.registry import LABELLED

SPEC = "table.toml"
SPLITS = ("train", "validation", "test")
KINDS = {"image": "image", "text": "text", "numbers": "features"}  # kind in table.toml: kind of the modality
TASKS = {name: task for name, task in LABELLED.items() if not task.dense}
_LEAVES = (
    *("rows", "join", "key", "max_unmatched", "label", "task", "split", "group", "environment", "seed", "na_values"),
    "modalities",
)


@dataclasses.dataclass(frozen=True)
class Modality:
    """The columns of a modality.

    Attributes:
      kind: a key of KINDS.
      columns: the column, or one or more columns of numbers.
      folder: folder of the image files, put before the name in a cell.
      rules: what the values of the image files mean.
    """

    kind: str
    columns: tuple[str, ...]
    folder: str = ""
    rules: PictureRules = PLAIN


@dataclasses.dataclass(frozen=True)
class Tables:
    """Rows by split, {column: {word: count}} of missing values, and sentences about how the files were read."""

    rows: dict[str, list[Row]]
    missing: Counts
    notes: list[str]


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
      max_unmatched: how many rows may have no partner in a joined table: an int is a number, a float a share.
      missing: which words stand for a missing value.
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
    max_unmatched: float = 0.5
    missing: MissingValues = MissingValues()

    @property
    def columns(self) -> set[str]:
        """All columns that are read."""
        named = {self.key, self.split, self.group, *self.environment, *self.label} - {""}
        return named.union(*(modality.columns for modality in self.modalities.values()))

    @functools.cached_property
    def only_names(self) -> frozenset[str]:
        """Columns of keys, splits, groups and environments alone, in which NA is a name: Namibia, North America."""
        values = {*self.label, *(column for one in self.modalities.values() for column in one.columns)}
        return frozenset({self.key, self.split, self.group, *self.environment} - values - set(self.missing.columns))


def read_spec(source: pathlib.Path) -> Spec:
    """Reads ``table.toml`` in a source directory.

    Raises:
      DataError: the file is missing, is no TOML, or has a value that cannot be used.
    """
    path = source / SPEC
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8-sig"))
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
        modalities=_modalities(found["modalities"], path),
        max_unmatched=found.get("max_unmatched", 0.5),
        missing=rule_of(found.get("na_values"), path),
    )
    most = spec.max_unmatched
    if type(most) not in (int, float) or not 0 <= most or (type(most) is float and most > 1):
        raise DataError(
            f"max_unmatched in {path} is {most!r}, expected a whole number of rows or a share of 0.0 to 1.0."
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


def _modalities(found: Any, path: pathlib.Path) -> dict[str, Modality]:
    if not isinstance(found, dict):
        raise DataError(
            f"modalities in {path} is {found!r}, expected a line for each modality below [modalities], such as name = "
            "{text = COLUMN}."
        )
    return {name: _modality(name, one, path) for name, one in sorted(found.items())}


def _modality(name: str, found: Any, path: pathlib.Path) -> Modality:
    kinds = [kind for kind in KINDS if isinstance(found, dict) and kind in found]
    if not name.isidentifier() or name in (*RESERVED, "key"):
        raise DataError(
            f"{path} names a modality {name!r}, expected a word that is none of {', '.join(RESERVED)}, key."
        )
    if len(kinds) != 1 or set(found) - {kinds[0], "folder", "range", "upright"}:
        raise DataError(
            f"Modality {name!r} in {path} is {found!r}, expected one of {{image = COLUMN, folder = FOLDER}}, "
            "{text = COLUMN} and {numbers = [COLUMN, ...]}."
        )
    columns = _names(found[kinds[0]], f"modality {name!r}", path)
    if kinds[0] != "numbers" and len(columns) != 1:
        raise DataError(
            f"Modality {name!r} in {path} names {len(columns)} columns, expected one column of {kinds[0]}s."
        )
    if kinds[0] != "image" and {"range", "upright"} & set(found):
        raise DataError(f"Modality {name!r} in {path} has range or upright, which images alone have: take it out.")
    return Modality(kinds[0], columns, _text(found, "folder", path), _rules(name, found, path))


def _rules(name: str, found: dict[str, Any], path: pathlib.Path) -> PictureRules:
    upright, span = found.get("upright", True), found.get("range")
    numbers = isinstance(span, list) and len(span) == 2 and all(type(end) in (int, float) for end in span)
    if type(upright) is not bool or not (span is None or numbers):
        raise DataError(
            f"Modality {name!r} in {path} has upright = {upright!r} and range = {span!r}, expected true or false and "
            "two numbers, such as [0, 10000]."
        )
    try:
        return PictureRules(upright, None if span is None else (span[0], span[1]))
    except ConfigError as error:
        raise DataError(f"Modality {name!r} in {path}: {error}") from error


def read_rows(spec: Spec, source: pathlib.Path) -> Tables:
    """Reads all tables and joins them.

    Returns:
      {split: rows}, or {"": all rows} if one file has all splits. A row with more or fewer cells than columns is
      damaged, and so is a row whose key an earlier line has.

    Raises:
      DataError: a file is missing or no table, a column is missing or in two tables, or keys do not match.
    """
    tables = {split: read_table(source, file, spec.columns) for split, file in spec.rows.items()}
    joined = {file: read_table(source, file, spec.columns) for file in spec.join}
    known = [(file, table.names) for file, table in joined.items()]
    for split, table in tables.items():
        _check_columns(spec, [(spec.rows[split], table.names), *known])
    have = {name for table in (*tables.values(), *joined.values()) for name in table.names}
    if strange := sorted(set(spec.missing.columns) - have):
        raise DataError(
            f"na_values in {SPEC} names the column {strange[0]!r}, which no table has; the columns are "
            f"{', '.join(sorted(have))}."
        )
    counts: Counts = {}
    rows = {split: [_without_words(spec, row, counts) for row in table.rows] for split, table in tables.items()}
    others = {file: [_without_words(spec, row, counts) for row in table.rows] for file, table in joined.items()}
    rows, notes = join_rows(_without_repeats(spec, rows), others, spec.key, spec.max_unmatched)
    read = [note for table in (*tables.values(), *joined.values()) for note in table.notes]
    return Tables(rows, counts, [*read, *notes, *described(counts, f"na_values in {SPEC}")])


def _without_words(spec: Spec, row: Row, counts: Counts) -> Row:
    """A row whose cells are empty where a word says that the value is missing; counts the words, and empty cells."""
    found = {name: row.cells[name] for name in spec.columns & set(row.cells)}
    said = {
        name: not text if name in spec.only_names else spec.missing.says(text, name) for name, text in found.items()
    }
    missing = {name: text for name, text in found.items() if said[name]}
    for name, word in missing.items():
        count(counts, name, word)
    empty = dict.fromkeys(missing, "")
    return dataclasses.replace(
        row, cells={**row.cells, **empty}, missing={n: word for n, word in missing.items() if word}
    )


def _without_repeats(spec: Spec, rows: Mapping[str, list[Row]]) -> dict[str, list[Row]]:
    """The rows; one whose key an earlier line has, in any split, is damaged: the first line counts."""
    first: dict[str, str] = {}

    def checked(row: Row) -> Row:
        key = row.cells.get(spec.key) or row.place
        place = first.setdefault(key, row.place)
        if place == row.place or row.damage is not None:
            return row
        return dataclasses.replace(row, damage=f"its {spec.key} {key!r} was there before, in {place}")

    return {split: [checked(row) for row in of_split] for split, of_split in rows.items()}


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
