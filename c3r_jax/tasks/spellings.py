"""Labels and ids that are perhaps one, written in several ways: 1 and 1.0, Cat and cat, with an invisible character."""

import re
import unicodedata
from collections.abc import Iterable

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)
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
    characters, and kind and number of spaces, hyphens and underscores do not count.

    Examples:
      >>> plain_spelling("01.0") == plain_spelling("1"), plain_spelling("-1") == plain_spelling("1")
      (True, False)
      >>> plain_spelling("-1.50e3") == plain_spelling("-1500"), plain_spelling("9" * 30) == plain_spelling("1e30")
      (True, False)
      >>> plain_spelling("Apple_pie ") == plain_spelling("apple  pie")
      True
    """
    kept = "".join(c for c in unicodedata.normalize("NFKC", text) if unicodedata.category(c) not in ("Cf", "Cc"))
    kept = kept.strip()
    if is_number(kept):
        return _plain_number(kept)
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


def spelled_in_several_ways(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Groups of different names with one plain spelling, each sorted.

    Example:
      >>> spelled_in_several_ways(["1", "2", "1.0", "Cat", "cat"])
      [('1', '1.0'), ('Cat', 'cat')]
    """
    groups: dict[str, set[str]] = {}
    for name in names:
        groups.setdefault(plain_spelling(name), set()).add(name)
    return sorted(tuple(sorted(group)) for group in groups.values() if len(group) > 1)
