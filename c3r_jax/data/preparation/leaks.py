"""Items of one split that are in another, too, under any name: the same content, or the same picture or sound."""

import collections
import hashlib
from collections.abc import Mapping
from typing import Any

import msgpack
import numpy as np

from c3r_jax.data.preparation.convert import unpack

LARGE = ("image", "audio", "video", "volume")  # kinds of which two equal values are no coincidence
FEW = 20  # whole numbers that two different items may well share, such as ages, counts and categories
LISTED = 5  # items of one content and split; a picture of nothing may be there thousands of times


class Leaks:
    """Finds equal contents of different splits.

    Args:
      kinds: {modality: its kind}.

    Examples:
      >>> leaks = Leaks({"photo": "image", "note": "text"})
      >>> for split, key, note in (("train", "a", "x"), ("train", "b", "y"), ("test", "c", "x"), ("test", "d", "z")):
      ...     leaks.add(split, {"key": key, "photo": b"1", "note": note})
      >>> [(leak["key"], leak["same_as"]["key"], leak["shared"]) for leak in leaks.found()]
      [('c', 'a', ['note', 'photo']), ('d', 'a', ['photo'])]
    """

    def __init__(self, kinds: Mapping[str, str]):
        self._kinds = dict(kinds)
        # {digest of a content: {split: keys of its items}}, of whole items ("") and of single modalities.
        self._places: dict[str, dict[bytes, dict[str, list[str]]]] = collections.defaultdict(dict)

    def add(self, split: str, entry: Mapping[str, Any]) -> None:
        """Takes in an item: its key, a value or None for each modality, and "shown", digests of what pictures show."""
        present = {name: entry[name] for name in sorted(self._kinds) if entry.get(name) is not None}
        present |= entry.get("shown", {})  # one picture in two files, of another format or with other metadata
        whole = {} if self._by_coincidence(present) else {"": list(present.items())}
        parts = whole | {name: [present[name]] for name in present if self._kinds[name] in LARGE}
        for part, content in parts.items():
            packed = msgpack.packb(content, unicode_errors="backslashreplace")
            places = self._places[part].setdefault(hashlib.blake2b(packed, digest_size=16).digest(), {})
            keys = places.setdefault(split, [])
            if not keys or len(places) > 1:  # of the first split one is enough to compare with
                keys.append(entry["key"])

    def _by_coincidence(self, present: Mapping[str, Any]) -> bool:
        """Whether an item is a few whole numbers and nothing else."""
        if any(self._kinds[name] != "features" for name in present):
            return False
        values = [unpack(value).ravel() for value in present.values()]
        return sum(map(len, values)) <= FEW and all((value == np.round(value)).all() for value in values)

    def found(self) -> list[dict[str, Any]]:
        """An item for each that is in an earlier split, too: its split and key, what it is the same as, and in what.

        Of more than :data:`LISTED` that are the same as one item the first are there; "more" of the last is the number
        of the others.
        """
        leaks: dict[tuple[str, str], dict[str, Any]] = {}
        for part, contents in sorted(self._places.items()):  # "" first
            for places in contents.values():
                splits = list(places)
                for split in splits[1:]:
                    same = {"split": splits[0], "key": places[splits[0]][0]}
                    for key in places[split]:
                        leak = {"split": split, "key": key, "same_as": same, "shared": [part] if part else []}
                        leaks.setdefault((split, key), leak)
                        if part and leaks[split, key]["shared"] and part not in leaks[split, key]["shared"]:
                            leaks[split, key]["shared"].append(part)
        every = sorted(self._kinds)
        found = [leak | {"shared": leak["shared"] or every} for leak in leaks.values()]
        return _shortened(sorted(found, key=lambda leak: (leak["split"], leak["key"])))


def _shortened(leaks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for leak in leaks:
        same = leak["same_as"]
        groups.setdefault((leak["split"], *same.values(), same["key"] == leak["key"], *leak["shared"]), []).append(leak)
    last = {id(some[LISTED - 1]): len(some) - LISTED for some in groups.values() if len(some) > LISTED}
    kept = {id(leak) for some in groups.values() for leak in some[:LISTED]}
    return [leak | ({"more": last[id(leak)]} if id(leak) in last else {}) for leak in leaks if id(leak) in kept]


def _count(leaks: list[dict[str, Any]]) -> int:
    return sum(1 + leak.get("more", 0) for leak in leaks)


def sentences(leaks: list[dict[str, Any]], listed: str = "the manifest lists them") -> list[str]:
    """A warning for each pair of splits and what their items share; ``listed`` says where all of them are."""
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for leak in leaks:
        if leak["key"] != leak["same_as"]["key"]:  # those are found in the lists
            shared = (leak["split"], leak["same_as"]["split"], " and ".join(leak["shared"]))
            groups.setdefault(shared, []).append(leak)
    return [
        f"{_count(some):,} items of split {split!r} have the same {shared} as an item of split {other!r} under another "
        f"name, such as {some[0]['key']!r} and {some[0]['same_as']['key']!r}: take them out of one of the splits; "
        f"{listed}."
        for (split, other, shared), some in groups.items()
    ]
