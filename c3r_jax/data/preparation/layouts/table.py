"""A user's data: CSV files with one row per example, and folders of images that they name."""

import dataclasses
import math
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from c3r_jax.data.media.image import PLAIN
from c3r_jax.data.preparation.layout import DamagedItem, Item, Layout, Record
from c3r_jax.data.preparation.layouts.csv_tables import Row
from c3r_jax.data.preparation.layouts.table_files import (
    KINDS,
    SPEC,
    SPLITS,
    Modality,
    Spec,
    Tables,
    read_rows,
    read_spec,
)
from c3r_jax.data.preparation.layouts.table_groups import groups_in_several_ways, shared_groups
from c3r_jax.data.preparation.layouts.table_splits import split_rows
from c3r_jax.data.preparation.missing_values import MissingValues, as_counts
from c3r_jax.data.preparation.source_files import read_file
from c3r_jax.errors import DataError
from c3r_jax.tasks.rounding import lost_in_float32
from c3r_jax.tasks.spellings import is_number, plain_spelling


class Table(Layout):
    """Tables described by a ``table.toml`` beside them: columns of labels, image files, texts and numbers.

    Splits are given by a column or by one file per split. Otherwise rows are split 60/20/20 by a seed, class by class;
    rows with the same value in the group column, or with the same image file, stay in one split. If splits are given
    without validation rows, a tenth of the training rows is held out in the same way.
    """

    name = "table"
    title = "a table with its description"
    homepage = ""
    license = "as you have them"
    kinds: Mapping[str, str] = {}
    published_sizes: Mapping[str, int] = {}
    splits: Mapping[str, str] = {split: split for split in SPLITS}

    def __init__(self, spec: Spec | None = None):
        self._spec = spec
        self._tables: Tables | None = None
        self._rows: dict[str, list[Row]] = {}
        self._missed: list[str] = []
        if spec is not None:
            self.task, self.environments = spec.task, spec.environment
            self.kinds = {name: KINDS[modality.kind] for name, modality in spec.modalities.items()}
            numbers = {name: modality for name, modality in spec.modalities.items() if modality.kind == "numbers"}
            self.columns = {name: modality.columns for name, modality in numbers.items()}
            rules = {name: modality.rules for name, modality in spec.modalities.items()}
            self.pictures = {name: found for name, found in rules.items() if found != PLAIN}
            self.shapes = {name: (len(modality.columns),) for name, modality in numbers.items()}

    def for_source(self, source: pathlib.Path) -> "Table":
        """See :class:`Layout`: this layout with the description in ``table.toml``."""
        return Table(read_spec(source))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_rows": {}, "_tables": None}  # workers get items instead

    def rows(self, source: pathlib.Path) -> dict[str, list[Row]]:
        """The rows of each split, read and split once."""
        if not self._rows:
            self._tables = read_rows(self.spec, source)
            self._rows, self._missed = split_rows(self.spec, self._tables.rows)
        return self._rows

    def with_missing(self, missing: MissingValues) -> "Table":
        """See :class:`Layout`."""
        return Table(dataclasses.replace(self.spec, missing=missing))

    def missing_values(self, source: pathlib.Path) -> dict[str, dict[str, int]]:
        """See :class:`Layout`: of the columns that are read."""
        self.rows(source)
        return as_counts({} if self._tables is None else self._tables.missing)

    def notes(self, source: pathlib.Path, items: Mapping[str, list[Item]]) -> list[str]:
        """See :class:`Layout`: how files were read, rows without a partner, words for missing values, the splits."""
        rows = self.rows(source)
        read = [] if self._tables is None else self._tables.notes
        return [*read, *groups_in_several_ways(self.spec, rows), *self._missed]

    @property
    def spec(self) -> Spec:
        """The content of ``table.toml``.

        Raises:
          DataError: the layout was not made for a source.
        """
        if self._spec is None:
            raise DataError("This table layout has no description yet: call for_source(source) first.")
        return self._spec

    @property
    def origin(self) -> str:
        """See :class:`Layout`."""
        return f"docs/own_data.md describes {SPEC} and the tables."

    def problems(self, source: pathlib.Path) -> list[str]:
        """See :class:`Layout`: tables that match, existing folders, and splits that are not empty."""
        folders = {source / modality.folder for modality in self.spec.modalities.values() if modality.folder}
        found = [f"{folder} is missing: {SPEC} names it as a folder of images." for folder in sorted(folders)]
        found = [problem for problem, folder in zip(found, sorted(folders), strict=True) if not folder.is_dir()]
        try:
            rows = self.rows(source)
            found += [f"There are no {split} rows: {why}" for split, why in _empty(self.spec, rows).items()]
            found += shared_groups(self.spec, rows)
            found += _lost(self.spec, rows)
        except DataError as error:
            found.append(str(error))
        return found

    def class_names(self, source: pathlib.Path) -> tuple[str, ...]:
        """See :class:`Layout`: the sorted labels of the training rows, or the columns if there is one per class."""
        if not self.task.has_classes:
            return ()
        if self.task.label_per_class:
            return self.spec.label
        rows, column = self.rows(source)["train"], self.spec.label[0]
        names = tuple(sorted({label for row in rows if (label := row.cells.get(column))}))
        if len(names) == 1:
            raise DataError(
                f"{column!r} is {names[0]!r} in every training row, but two classes or more were expected: name "
                "another column as label, or give rows of other classes."
            )
        return names

    def list_files(self, source: pathlib.Path) -> list[pathlib.Path]:
        """See :class:`Layout`: the description and the tables."""
        return [source / name for name in (SPEC, *self.spec.rows.values(), *self.spec.join)]

    def items(self, source: pathlib.Path) -> dict[str, list[Item]]:
        """See :class:`Layout`: one item per row; rows with an unknown split are damaged training rows."""
        ids = {name: number for number, name in enumerate(self.class_names(source))}
        rows = self.rows(source)
        return {split: [self._item(row, ids) for row in of_split] for split, of_split in rows.items() if of_split}

    def _item(self, row: Row, ids: dict[str, int]) -> Item:
        key = row.cells.get(self.spec.key) or row.place
        try:
            if row.damage is not None:
                raise DamagedItem(row.damage)
            values = {name: _value(name, modality, row) for name, modality in self.spec.modalities.items()}
            places = tuple(row.cells.get(column, "") for column in self.spec.environment)
            return Item(key, self._label(row, ids), values, environments=places)
        except DamagedItem as error:
            return Item(key, None, damage=f"{row.place}: {error}")

    def _label(self, row: Row, ids: dict[str, int]) -> Any:
        texts = [row.cells.get(name, "") for name in self.spec.label]
        if not all(texts):
            name = self.spec.label[texts.index("")]
            if name in row.missing:
                raise DamagedItem(
                    f"its {name!r} is {row.missing[name]!r}, which stands for a missing value, expected a label: fill "
                    f"it in, leave the row out, or set na_values in {SPEC} if it is a label"
                )
            raise DamagedItem(f"its {name!r} is empty, expected a label")
        if not self.task.has_classes:
            return _number(self.spec.label[0], texts[0])
        if self.task.label_per_class:
            wrong = [(name, text) for name, text in zip(self.spec.label, texts, strict=True) if text not in ("0", "1")]
            if wrong:
                raise DamagedItem(f"its {wrong[0][0]!r} is {wrong[0][1]!r}, expected 0 or 1")
            return tuple(map(int, texts))
        if texts[0] not in ids:
            like = next((name for name in ids if plain_spelling(name) == plain_spelling(texts[0])), None)
            hint = "" if like is None else f", which write it {like!r}"
            raise DamagedItem(f"its label {texts[0]!r} is no label of the training rows{hint}")
        return ids[texts[0]]

    def reader(self, source: pathlib.Path) -> Callable[[Item], Record]:
        """See :class:`Layout`: only images are read here, as the items have all other values."""
        modalities = self.spec.modalities

        def read(item: Item) -> Record:
            record = dict(item.place)
            for name, value in item.place.items():
                if value is not None and modalities[name].kind == "image":
                    record[name] = read_file(source, value)
                elif value is not None and modalities[name].kind == "numbers":
                    record[name] = np.array(value, np.float32)
            return record

        return read


def _value(name: str, modality: Modality, row: Row) -> Any:
    """A modality's value in a row: an image file's name, a text or a tuple of numbers; None: empty cells."""
    texts = [row.cells.get(column, "") for column in modality.columns]
    if not any(texts):
        return None
    if modality.kind == "numbers":
        if not all(texts):
            raise DamagedItem(
                f"its {modality.columns[texts.index('')]!r} is empty, but not all of {name!r} is: fill it in, or leave "
                "all columns of it empty"
            )
        return tuple(_number(column, text) for column, text in zip(modality.columns, texts, strict=True))
    if modality.kind == "text":
        return texts[0]
    file = texts[0].replace("\\", "/")  # as Windows writes paths; no system has names with both
    return f"{modality.folder.rstrip('/')}/{file}" if modality.folder else file


def _number(column: str, text: str) -> float:
    number = float(text) if is_number(text) else math.nan
    if not math.isfinite(number):
        raise DamagedItem(f"its {column!r} is {text!r}, expected a finite number with a decimal point")
    return number


def _empty(spec: Spec, rows: Mapping[str, list[Row]]) -> dict[str, str]:
    """Splits without a row, each with advice; test rows may be absent if splits are given."""
    given = bool(spec.split) or "" not in spec.rows
    why = (
        f"give some in the column {spec.split!r} or a file of their own."
        if given
        else "the rows are too few, or too many belong to one group, for three splits."
    )
    needed = ("train", "validation") if given else SPLITS
    return {split: why for split in needed if not rows.get(split)}


def _lost(spec: Spec, rows: Mapping[str, list[Row]]) -> list[str]:
    """A sentence for each column of numbers that float32 does not keep apart."""
    found = []
    for name, modality in spec.modalities.items():
        for column in modality.columns if modality.kind == "numbers" else ():
            cells = (row.cells.get(column, "") for of_split in rows.values() for row in of_split)
            if lost := lost_in_float32(np.array([float(cell) for cell in cells if is_number(cell)])):
                found.append(f"Column {column!r} of modality {name!r} {lost}.")
    return found
