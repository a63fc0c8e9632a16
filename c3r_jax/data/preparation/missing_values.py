"""Words in cells and lists that stand for a missing value: one rule for tables and for lists of JSON objects."""

import collections
import dataclasses
import functools
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from c3r_jax.errors import DataError

# Those of pandas, and its NaT: programs write them so. In another case they are words: Na is sodium, none an answer.
NA_VALUES = (
    *("", "NA", "N/A", "n/a", "<NA>", "#N/A", "#N/A N/A", "#NA", "NaN", "nan", "-NaN", "-nan", "NaT"),
    *("NULL", "null", "None", "1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN"),
)
Counts = dict[str, collections.Counter[str]]  # {column: {word: how often it stood for a missing value}}


@dataclasses.dataclass(frozen=True)
class MissingValues:
    """The rule; an empty text is always missing.

    Attributes:
      words: words that stand for a missing value, exactly as they are written.
      columns: {column: its words}, instead of ``words``.

    Examples:
      >>> rule = MissingValues()
      >>> [rule.says(text) for text in ("nan", " N/A ", "", "Na", None, float("nan"))]
      [True, True, True, False, True, True]
      >>> MissingValues(("-999",), {"grade": ()}).says("None", "grade")
      False
    """

    words: tuple[str, ...] = NA_VALUES
    columns: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)

    def says(self, value: object, column: str = "") -> bool:
        """Whether a value of a column is missing: a word of the rule, None, or the number NaN."""
        if value is None or (isinstance(value, float) and value != value):
            return True
        if not isinstance(value, str):
            return False
        word = value.strip()
        return not word or word in _stripped(self.columns.get(column, self.words))


@functools.lru_cache
def _stripped(words: tuple[str, ...]) -> frozenset[str]:
    return frozenset(word.strip() for word in words)


def described(counts: Mapping[str, Mapping[str, int]], where: str) -> list[str]:
    """A sentence about the words that were taken for missing values, [] if there were none.

    Args:
      counts: see :data:`Counts`.
      where: what changes the rule, for the sentence.
    """
    words = {column: {word: count for word, count in found.items() if word} for column, found in counts.items()}
    parts = [
        f"{column!r} ({', '.join(f'{word!r} {count:,} times' for word, count in sorted(found.items())[:5])})"
        for column, found in sorted(words.items())
        if found
    ]
    return [f"Words that stand for a missing value: {', '.join(parts)}. {where} changes the rule."] if parts else []


def count(counts: Counts, column: str, value: object) -> None:
    """Adds one missing value of a column: its word, "" for None, which says plainly that there is nothing."""
    word = value.strip() if isinstance(value, str) else "" if value is None else "NaN"
    counts.setdefault(column, collections.Counter())[word] += 1


def as_counts(counts: Mapping[str, Mapping[str, int]]) -> dict[str, dict[str, int]]:
    """Counts as the manifest has them, sorted."""
    return {column: dict(sorted(found.items())) for column, found in sorted(counts.items())}


def rule_of(found: Any, path: pathlib.Path) -> MissingValues:
    """The rule of ``na_values`` in a file: words for all columns, or {column: words}; None: the default.

    Raises:
      DataError: it is neither.
    """
    lists = found if isinstance(found, dict) else {"": NA_VALUES if found is None else found}
    for words in lists.values():
        if not isinstance(words, (list, tuple)) or not all(isinstance(word, str) for word in words):
            raise DataError(
                f"na_values in {path} is {found!r}, expected a list of words in quotes, or {{COLUMN = [WORD, ...]}}."
            )
    if isinstance(found, dict):
        return MissingValues(columns={column: words_of(words) for column, words in found.items()})
    return MissingValues(words_of(lists[""]))


def words_of(values: Iterable[str]) -> tuple[str, ...]:
    """Words without a repeat, in their order."""
    return tuple(dict.fromkeys(values))
