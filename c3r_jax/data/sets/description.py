"""The description of a directory of shards, ``dataset.json``: every entry that is read is checked first."""

import dataclasses
import difflib
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from c3r_jax.data.media.image import PictureRules
from c3r_jax.errors import ConfigError, DataError
from c3r_jax.files.json_objects import each_key_once

DESCRIPTION = "dataset.json"


@dataclasses.dataclass(frozen=True)
class Description:
    """What a directory of shards says of itself.

    Attributes:
      name: the data set's name.
      class_names: names by class id.
      phrases: {class: what a person would call its examples}; {} if there are none.
      environments: {field of the records: names of its environments by id}.
      rules: what the values of its pictures mean.
    """

    name: str
    class_names: tuple[str, ...]
    phrases: Mapping[str, tuple[str, ...]]
    environments: Mapping[str, list[str]]
    rules: PictureRules


def read_description(directory: pathlib.Path) -> Description:
    """Reads ``dataset.json`` in a directory.

    Raises:
      DataError: it is missing or no JSON object, or an entry is unknown or cannot be used.
    """
    path = directory / DESCRIPTION
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=each_key_once)
        if not isinstance(found, dict):
            raise TypeError(f"it holds a {type(found).__name__}, expected an object")
        name, class_names = found["name"], found["class_names"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(
            f"{path} cannot be used ({type(error).__name__}: {error}): write "
            '{"name": ..., "class_names": [...]} there; one class name is enough for pairs without labels.'
        ) from error
    _check_entries(found, path)
    span = found.get("range")
    rules = PictureRules(found.get("upright", True), None if span is None else (float(span[0]), float(span[1])))
    phrases = {label: tuple(map(str, some)) for label, some in found.get("phrases", {}).items()}
    environments = {field: list(map(str, names)) for field, names in found.get("environments", {}).items()}
    return Description(str(name), tuple(map(str, class_names)), phrases, environments, rules)


def _is_name(value: Any) -> bool:
    """Whether a value is a text, or a number that stands for one."""
    return isinstance(value, (str, int, float)) and not isinstance(value, bool)


def _are_names(value: Any) -> bool:
    """Whether a value is a list of different names, one at least."""
    return isinstance(value, list) and all(map(_is_name, value)) and 0 < len(set(map(str, value))) == len(value)


def _are_names_by_key(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_are_names, value.values()))


def _is_range(value: Any) -> bool:
    if value is None:
        return True
    if not isinstance(value, list) or len(value) != 2 or not all(type(end) in (int, float) for end in value):
        return False
    try:
        PictureRules(span=(value[0], value[1]))
    except ConfigError:
        return False
    return True


_ENTRIES: dict[str, tuple[Callable[[Any], bool], str]] = {  # what an entry has to be
    "name": (_is_name, "a text"),
    "class_names": (_are_names, "a list of different names in quotes"),
    "phrases": (_are_names_by_key, "a list of different texts for each class, such as {CLASS: [TEXT, ...]}"),
    "environments": (_are_names_by_key, "a list of different names for each field, such as {FIELD: [NAME, ...]}"),
    "range": (_is_range, "a low and a higher number, such as [0, 10000]"),
    "upright": (lambda value: isinstance(value, bool), "true or false"),
}


def _check_entries(found: Mapping[str, Any], path: pathlib.Path) -> None:
    for key, value in found.items():
        if key not in _ENTRIES:
            if near := difflib.get_close_matches(key, _ENTRIES, n=1):
                raise DataError(f"{path} has {key!r}, which nothing reads: did you mean {near[0]!r}? Correct the name.")
            continue  # a note for people, such as a licence
        fits, expected = _ENTRIES[key]
        if not fits(value):
            raise DataError(f"{key!r} in {path} is {json.dumps(value)[:80]}, expected {expected}: write it so.")
    if strange := sorted(found.get("phrases", {}).keys() - set(map(str, found["class_names"]))):
        raise DataError(f"'phrases' in {path} has {strange[0]!r}, which is none of its class_names: correct the name.")
