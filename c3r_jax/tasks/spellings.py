"""Labels and ids that are perhaps one, written in several ways: 1 and 1.0, Cat and cat, with an invisible character."""

import re
import unicodedata
from collections.abc import Callable, Iterable

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)
_WHOLE = re.compile(r"[+-]?\d+(\.0*)?", re.ASCII)
_SIGN = re.compile(r"(?<![^\s_=:(,])-(?=\.?\d)")  # a hyphen where no word ends, before a number
_PARTS = re.compile(r"([+-]?)(\d*)\.?(\d*)(?:[eE]([+-]?\d+))?", re.ASCII)


def is_number(text: str) -> bool:
    """Whether a text is a decimal number as tables have it: ASCII digits, a decimal point, perhaps an exponent.

    Python's ``float`` takes more, such as "1_000" and digits of other scripts.

    Examples:
      >>> [is_number(text) for text in ("-1.5e3", ".5", "1_000", "1,5", "nan")]
      [True, True, False, False, False]
    """
    return _NUMBER.fullmatch(text) is not None


def plain_spelling(text: str) -> str:
    """What is left of a text without what people do not see or do not mean.

    Equal numbers are equal whatever their zeros. Of other texts case, forms of one Unicode letter, invisible
    characters, and kind and number of spaces, hyphens and underscores do not count; a minus sign before a number does.

    Examples:
      >>> plain_spelling("01.0") == plain_spelling("1"), plain_spelling("-1") == plain_spelling("1")
      (True, False)
      >>> plain_spelling("-1.50e3") == plain_spelling("-1500"), plain_spelling("9" * 30) == plain_spelling("1e30")
      (True, False)
      >>> plain_spelling("Apple_pie ") == plain_spelling("apple  pie")
      True
      >>> plain_spelling("shift -1") == plain_spelling("shift 1"), plain_spelling("a-1") == plain_spelling("a 1")
      (False, True)
    """
    kept = _visible(text)
    if is_number(kept):
        return _plain_number(kept)
    return _plain_words(kept)


def plain_ids(ids: Iterable[str]) -> dict[str, str]:
    """{id: its plain spelling}, for ids that belong together.

    Whole numbers are equal whatever their zeros, as 11 and 11.0 are. One with other digits after its point shows that
    all are names: version 1.1 is not 1.10. With an exponent it is a name itself, and says nothing of others: plate 1E5
    is not 100000.

    Examples:
      >>> plain_ids(["11", "11.0", "a"])["11"] == plain_ids(["11", "11.0"])["11.0"]
      True
      >>> len(set(plain_ids(["1.1", "1.10", "1.2", "11", "11.0"]).values()))
      5
      >>> found = plain_ids(["11", "11.0", "1e5", "100000"])
      >>> found["11"] == found["11.0"], found["1e5"] == found["100000"]
      (True, False)
    """
    visible = {name: _visible(name) for name in set(ids)}
    whole = not any(_has_fraction(kept) for kept in visible.values())
    return {  # no name has a line break, so that none is a number's spelling: 1e3 is that of 1000
        name: f"{_plain_number(kept)}\n" if whole and _WHOLE.fullmatch(kept) else _plain_words(kept)
        for name, kept in visible.items()
    }


def _has_fraction(kept: str) -> bool:
    parts = _PARTS.fullmatch(kept) if is_number(kept) else None
    return parts is not None and bool(parts[3].strip("0"))


def _visible(text: str) -> str:
    kept = "".join(c for c in unicodedata.normalize("NFKC", text) if unicodedata.category(c) not in ("Cf", "Cc"))
    return kept.strip()


def _plain_words(kept: str) -> str:
    kept = _SIGN.sub("\u2212", kept)  # which is no hyphen
    return " ".join(re.split(r"[\s_\-\u2010-\u2015]+", kept)).strip().casefold()


def _plain_number(text: str) -> str:
    """All digits that count and the power of ten after them; of any length, so that no long id is rounded."""
    parts = _PARTS.fullmatch(text)
    assert parts is not None
    sign, whole, fraction, power = parts.groups(default="0")
    digits = (whole + fraction).lstrip("0")
    kept = digits.rstrip("0")
    if not kept:
        return "0"
    return f"{sign.strip('+')}{kept}e{int(power) - len(fraction) + len(digits) - len(kept)}"


def spelled_in_several_ways(
    names: Iterable[str], plain: Callable[[str], str] = plain_spelling
) -> list[tuple[str, ...]]:
    """Groups of different names with one plain spelling, each sorted.

    Examples:
      >>> spelled_in_several_ways(["1", "2", "1.0", "Cat", "cat"])
      [('1', '1.0'), ('Cat', 'cat')]
    """
    groups: dict[str, set[str]] = {}
    for name in names:
        groups.setdefault(plain(name), set()).add(name)
    return sorted(tuple(sorted(group)) for group in groups.values() if len(group) > 1)
