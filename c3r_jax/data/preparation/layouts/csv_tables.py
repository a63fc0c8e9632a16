"""CSV files as people have them: separators, encodings, quotes; what could mean two things is refused."""

import codecs
import csv
import dataclasses
import io
import itertools
import pathlib
import re
import unicodedata
from collections.abc import Callable, Collection, Iterator, Mapping

from c3r_jax.errors import DataError
from c3r_jax.files.pointers import lfs_hint
from c3r_jax.tasks.spellings import is_number

SEPARATORS = ",;\t|"
MAX_CELL = 1 << 26  # characters; longer texts are refused one by one, with their row
_PACKED = {b"\x1f\x8b": "packed by gzip", b"PK\x03\x04": "a zip archive or an Excel file", b"PAR1": "a Parquet file"}
_LOOK = 50  # records from which the separator is chosen
_SEP = re.compile(r"\"?sep=(.)\"?[,;\t|]*\s*", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
      place: file and first line, for messages.
      cells: {column: text without surrounding spaces}, "" where a value is missing.
      damage: why the row cannot be used; None if no reason is known.
      missing: {column: the word in it that stands for a missing value}.
    """

    place: str
    cells: Mapping[str, str]
    damage: str | None = None
    missing: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class CsvTable:
    """Columns and rows of a CSV file, and what a person should know about how it was read."""

    names: list[str]
    rows: list[Row]
    notes: list[str]


def read_table(source: pathlib.Path, file: str, wanted: Collection[str] = ()) -> CsvTable:
    """Reads a CSV file.

    UTF-8, or UTF-16 with its mark. The separator is what a line ``sep=;`` says; else that of comma, semicolon, tab and
    bar with which the first line has most of the wanted columns and the next lines as many cells. A column without a
    name (the row numbers that pandas writes, separators at the end of lines) is left out. Quotes in quoted cells are
    doubled, or all escaped by a backslash.

    Args:
      source: directory of the file.
      file: its name.
      wanted: columns that some table should have.

    Raises:
      DataError: it is missing or no table, or a quote that is not closed takes in further rows.
    """
    path = source / file
    text = _decoded(path)
    mark = _SEP.fullmatch(text.partition("\n")[0].rstrip("\r"))
    skipped = 0 if mark is None else 1
    body = text if mark is None else text.partition("\n")[2]
    separator = _separator(body, wanted) if mark is None else mark[1]
    notes: list[str] = []
    try:
        records = list(_records(body, separator, skipped))
    except _Unreadable as error:
        records = _escaped(body, separator, skipped)
        if records is None:
            raise DataError(
                f"{path} cannot be read as a table: {error}; correct its quotes, or save it as CSV again."
            ) from error
        notes.append(f"Quotes in {file} are escaped by a backslash, and were read so.")
    if not records or not any(records[0][1]):
        raise DataError(f"The first line of {path} is [], expected a different name for each column.")
    names = ["".join(c for c in name if unicodedata.category(c) != "Cf").strip() for name in records[0][1]]
    lines = [(number, [cell.strip() for cell in cells]) for number, cells in records[1:]]
    lines = [(number, cells) for number, cells in lines if any(cells)]
    names, lines = _one_name_per_cell(path, names, lines)
    _refuse_swallowed_rows(path, names, lines, separator)
    return _named(file, path, names, lines, notes)


class _Unreadable(Exception):
    """The text breaks the rules of quotes."""


def _decoded(path: pathlib.Path) -> str:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path} is missing: table.toml names it.") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): correct its name or its permissions.") from error
    if hint := lfs_hint(content):
        raise DataError(f"{path} {hint}.")
    packed = next((name for start, name in _PACKED.items() if content.startswith(start)), None)
    if packed is not None:
        raise DataError(f"{path} is {packed}, expected a CSV file: unpack it, or save it as CSV in UTF-8.")
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = content.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not in UTF-8 ({error.reason} at byte {error.start}): save it as UTF-8, for example as "
            '"CSV UTF-8" in Excel.'
        ) from error
    if "\0" in text:
        raise DataError(f"{path} has NUL characters, as UTF-16 without a mark has: save it as UTF-8.")
    return text


def _records(text: str, separator: str, skipped: int = 0, escape: str | None = None) -> Iterator[tuple[int, list[str]]]:
    """The number of the first line and the cells of each record."""
    before = csv.field_size_limit(MAX_CELL)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True, escapechar=escape)
    first = 1
    try:
        for cells in reader:
            yield first + skipped, cells
            first = reader.line_num + 1
    except csv.Error as error:
        open_quote = "end of data" in str(error) and "a quote that opens there is never closed"
        raise _Unreadable(f"line {first + skipped}: {open_quote or error}") from error
    finally:
        csv.field_size_limit(before)


def _separator(text: str, wanted: Collection[str]) -> str:
    """The separator that makes most sense of the first records."""

    def sense(separator: str) -> tuple[int, float, int]:
        records: list[list[str]] = []
        try:
            records.extend(cells for _, cells in itertools.islice(_records(text, separator), _LOOK))
        except _Unreadable:
            pass  # said later, of the separator that is chosen
        names = [name.strip() for name in records[0]] if records else []
        rows = [cells for cells in records[1:] if any(cells)]
        as_many = sum(len(cells) == len(names) for cells in rows) / max(1, len(rows))
        return len(set(wanted) & set(names)), as_many * (len(names) > 1), len(names)

    return max(SEPARATORS, key=sense)


def _escaped(text: str, separator: str, skipped: int) -> list[tuple[int, list[str]]] | None:
    """The records if backslashes escape quotes and nothing else, and all have the same number of cells; else None."""
    if '\\"' not in text or re.search(r'\\[^"\\]', text):
        return None
    try:
        records = list(_records(text, separator, skipped, escape="\\"))
    except _Unreadable:
        return None
    return records if len({len(cells) for _, cells in records if any(cells)}) == 1 else None


_Lines = list[tuple[int, list[str]]]


def _one_name_per_cell(path: pathlib.Path, names: list[str], lines: _Lines) -> tuple[list[str], _Lines]:
    """Names and cells; a last cell in every line but the first is dropped if it is always empty.

    Raises:
      DataError: every line has one cell more than the first, as if the first column had no name.
    """
    if len(lines) < 2 or any(len(cells) != len(names) + 1 for _, cells in lines):
        return names, lines
    if not any(cells[-1] for _, cells in lines):
        return names, [(number, cells[:-1]) for number, cells in lines]
    raise DataError(
        f"Every line of {path} has {len(names) + 1} cells and the first has {len(names)} names: name the column of row "
        "numbers in the first line, too, or write the table without them."
    )


def _named(file: str, path: pathlib.Path, names: list[str], lines: _Lines, notes: list[str]) -> CsvTable:
    """The table without its columns that have no name."""
    kept = [place for place, name in enumerate(names) if name]
    found = [names[place] for place in kept]
    if len(set(found)) < len(found) or not found:
        raise DataError(f"The first line of {path} is {names}, expected a different name for each column.")
    nameless = [place for place, name in enumerate(names) if not name]
    if any(len(cells) > place and cells[place] for _, cells in lines for place in nameless):
        notes.append(f"Column {nameless[0] + 1} of {file} has no name, as row numbers of pandas have none: left out.")
    rows = []
    for number, cells in lines:
        damage = None
        if len(cells) != len(names):
            damage = f"it has {len(cells)} cells, expected {len(names)}, one for each column"
        texts = {names[place]: cells[place] for place in kept if place < len(cells)}
        rows.append(Row(f"{file}, line {number}", texts, damage))
    return CsvTable(found, rows, notes)


def _refuse_swallowed_rows(path: pathlib.Path, names: list[str], lines: _Lines, separator: str) -> None:
    """Refuses a cell of several lines that is really the rest of one row and the beginning of another.

    Such a cell arises where a quote opens and the next quote, perhaps an inch sign, is in a later row: the cells after
    it, and the label among them, are then those of the later row. It shows because the first line of the cell ends in
    what looks like the columns after it, and a later line begins with what looks like those before it. No column is
    after the last one: there every later line must be a row of its own, see :func:`_whole_row`.
    """
    whole = [cells for _, cells in lines if len(cells) == len(names)]
    plain = [cells for cells in whole if not any("\n" in cell or "\r" in cell for cell in cells)]
    looks = [_look([cells[place] for cells in plain]) for place in range(len(names))]
    seen = [_seen([cells[place] for cells in plain]) for place in range(len(names))]
    for number, cells in lines if any(looks) else []:
        for place, cell in enumerate(cells):
            parts = cell.splitlines()
            if len(cells) != len(names) or len(parts) < 2 or separator not in cell:
                continue
            after = looks[place + 1 :]
            if not after and not all(_whole_row(part, separator, looks, seen) for part in parts[1:]):
                continue
            ends = parts[0].split(separator)
            ends_row = len(ends) > len(after) and _fits(ends[len(ends) - len(after) :], after)
            begins = (part.split(separator) for part in parts[1:])
            if ends_row and any(len(some) > place and _fits(some[:place], looks[:place]) for some in begins):
                raise DataError(
                    f"{path}, line {number}: a quote opens in column {names[place]!r} and takes in line {number + 1}, "
                    "which looks like a row of its own: close the quote on its line, or, if it is one text, write it "
                    "without line breaks."
                )


def _look(values: list[str]) -> Callable[[str], bool] | None:
    """Whether a cell looks as those of a column do: a number, one of few values, of few patterns (ids, files, dates).

    None if nothing is known: the column is free text.
    """
    filled = [value for value in values if value]
    different, patterns = frozenset(values), frozenset(map(_pattern, filled))
    if len(filled) < 2:
        return None
    if all(map(is_number, filled)):
        return lambda cell: not cell or is_number(cell)
    if len(different) <= len(values) // 4:
        return different.__contains__
    words = any(" " in pattern and "a" in pattern for pattern in patterns)
    if not words and len(patterns) <= max(3, len(filled) // 8):
        return lambda cell: not cell or _pattern(cell) in patterns
    return None


_THOUSANDS = re.compile(r"\d{1,3},\d{3}(?!\d)", re.ASCII)


def _seen(values: list[str]) -> frozenset[str]:
    """The values of a column in which they repeat, such as labels; none of one in which most are different."""
    different = frozenset(values)
    return different if len(different) <= len(values) // 2 else frozenset()


def _whole_row(
    line: str, separator: str, looks: list[Callable[[str], bool] | None], seen: list[frozenset[str]]
) -> bool:
    """Whether a line of a text in the last column is surely a row: a text, too, may begin with "2,000 people".

    It has a cell for each column, none of them empty, before the last one values that were there before where values
    repeat, and no space after a separator, as a sentence has.
    """
    cells = line.split(separator)
    if len(cells) != len(looks) or not all(cells) or any(cell != cell.lstrip() for cell in cells[1:]):
        return False
    if _THOUSANDS.match(separator.join(cells[-2:])):
        return False
    before = list(zip(cells, looks, seen, strict=True))[:-1]
    known = [found or look for _, look, found in before]
    return any(known) and all(
        cell in found if found else look is None or look(cell.strip('"')) for cell, look, found in before
    )


def _pattern(text: str) -> str:
    """A text with every number as 0 and every word as a."""
    return re.sub(r"[^\W\d_]+", "a", re.sub(r"\d+", "0", text))


def _fits(cells: list[str], looks: list[Callable[[str], bool] | None]) -> bool:
    """Whether each cell looks as its column does; a column of free text takes anything."""
    return all(look is None or look(cell.strip().strip('"')) for cell, look in zip(cells, looks, strict=True))
