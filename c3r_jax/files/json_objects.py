"""JSON objects that say each thing once."""

import collections
from typing import Any


def each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys are all different, for ``object_pairs_hook``; the standard library takes the last of two.

    Raises:
      ValueError: a key is there twice.

    Example:
      >>> each_key_once([("label", 0), ("id", 5)])
      {'label': 0, 'id': 5}
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for key, number in collections.Counter(key for key, _ in pairs).items() if number > 1)
        raise ValueError(f"it has the key {twice!r} twice")
    return found
