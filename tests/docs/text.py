"""Outputs that the documentation shows, compared with outputs of today."""

import re

NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


def agrees(one: str, other: str) -> bool:
    """Whether two texts have the same words, and about the same numbers: machines round differently."""
    words = ["".join(NUMBER.sub("#", text).split()) for text in (one, other)]
    values = [[float(x) for x in NUMBER.findall(text)] for text in (one, other)]
    return words[0] == words[1] and all(abs(a - b) <= 0.05 + 0.25 * abs(b) for a, b in zip(*values, strict=True))
