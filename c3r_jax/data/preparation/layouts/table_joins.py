"""Rows joined with those of other tables by a key; rows without a partner are counted, and refused if many."""

import collections
from collections.abc import Iterable, Mapping

from c3r_jax.data.preparation.layouts.csv_tables import Row
from c3r_jax.errors import DataError
from c3r_jax.tasks.spellings import plain_ids

Rows = Mapping[str, list[Row]]  # {split: rows}


def join_rows(
    rows: Rows, others: Mapping[str, list[Row]], key: str, max_unmatched: float
) -> tuple[dict[str, list[Row]], list[str]]:
    """Joins rows with those of other tables; cells stay empty where a table has no such row.

    Args:
      rows: {split: rows}.
      others: {file: its rows}.
      key: column that identifies an example in every table.
      max_unmatched: an int: largest number of rows without a partner in a table; a float: largest share of them.

    Returns:
      The joined rows, and a sentence for each table in which rows found no partner, or which has further rows.

    Raises:
      DataError: two rows of a table have one key, no key matches, too many rows find no partner, or half of those
        without one would find it if keys were written in one way, and ``max_unmatched`` does not count them.
    """
    every = [row for of_split in rows.values() for row in of_split]
    partners = {file: _by_key(found, key) for file, found in others.items()}
    notes = [note for file, found in partners.items() for note in _checked(every, file, found, key, max_unmatched)]
    return {split: [_join(row, partners, key) for row in of_split] for split, of_split in rows.items()}, notes


def _checked(every: list[Row], file: str, found: dict[str, Row], key: str, max_unmatched: float) -> list[str]:
    """Sentences about rows without a partner, of both tables."""
    keys = {row.cells.get(key, "") for row in every}
    alone = [row for row in every if row.cells.get(key, "") not in found]
    plain = plain_ids(keys | set(found))
    unused = {plain[name]: name for name in found if name not in keys}
    pairs = [(row, unused[name]) for row in alone if (name := plain[row.cells.get(key, "")]) in unused]
    if pairs:  # a table in which both are keeps them apart: 7 and 007
        apart = _several(plain[name] for name in keys) | _several(plain[name] for name in found)
        pairs = [(row, other) for row, other in pairs if plain[other] not in apart]
    if 2 * len(pairs) >= max(1, len(alone)) and not (isinstance(max_unmatched, int) and len(alone) <= max_unmatched):
        row, other = pairs[0]
        raise DataError(
            f"{len(pairs):,} rows find no partner in {file} only because {key!r} is written in another way there, such "
            f"as {row.cells.get(key, '')!r} ({row.place}) and {other!r} ({found[other].place}): write it in one way in "
            f"both; or, if they are different, set max_unmatched = {len(alone)} (a number of rows) in table.toml."
        )
    if len(alone) == len(every):
        names = ", ".join(dict.fromkeys(row.place.rpartition(", line ")[0] for row in every))
        raise DataError(f"No {key!r} of {file} is in {names}: compare the columns.")
    allowed = max_unmatched if isinstance(max_unmatched, int) else max_unmatched * len(every)
    if len(alone) > allowed:
        first = ", ".join(repr(row.cells.get(key, "")) for row in alone[:3])
        raise DataError(
            f"{len(alone):,} of {len(every):,} rows find no partner in {file} by {key!r}, such as {first}, more than "
            f"max_unmatched = {max_unmatched} allows: compare the columns, or set max_unmatched in table.toml (a whole "
            "number of rows, or a share such as 0.9)."
        )
    notes = []
    if pairs:
        row, other = pairs[0]
        notes.append(
            f"{len(pairs):,} rows without a partner in {file} have a {key!r} that is written in another way there, "
            f"such as {row.cells.get(key, '')!r} and {other!r}: they were taken for different."
        )
    if alone:
        first = ", ".join(repr(row.cells.get(key, "")) for row in alone[:3])
        notes.append(
            f"{len(alone):,} of {len(every):,} rows find no partner in {file} by {key!r}, such as {first}: what it "
            "holds is missing in them."
        )
    if unused:
        notes.append(
            f"{len(unused):,} of {len(found):,} rows of {file} belong to no row, such as {min(unused.values())!r}."
        )
    return notes


def _several(spellings: Iterable[str]) -> set[str]:
    """Plain spellings that several names of one table have."""
    return {plain for plain, number in collections.Counter(spellings).items() if number > 1}


def _by_key(rows: list[Row], key: str) -> dict[str, Row]:
    """Rows by key, without those that have none."""
    found: dict[str, Row] = {}
    for row in rows:
        name = row.cells.get(key, "")
        if name and name in found:
            raise DataError(
                f"{row.place} has the {key} {name!r} of {found[name].place} again, expected one row for each."
            )
        if name:
            found[name] = row
    return found


def _join(row: Row, partners: dict[str, dict[str, Row]], key: str) -> Row:
    """A row joined with the cells of the other tables, which stay empty if a table has no such row."""
    for found in partners.values():
        partner = found.get(row.cells.get(key, ""))
        if partner is not None:
            damage = row.damage or (partner.damage and f"{partner.place}: {partner.damage}")
            row = Row(row.place, {**partner.cells, **row.cells}, damage, {**partner.missing, **row.missing})
    return row
