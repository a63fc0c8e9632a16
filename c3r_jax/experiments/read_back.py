"""Reads a checkpoint's index back after it is written: every array is there, with all of its parts."""

import collections
import json
import math
import pathlib
from typing import Any

import tensorstore as ts

ARRAYS = ("np.ndarray", "jax.Array")


def index_damage(state: pathlib.Path) -> str | None:
    """What the index of a written state lacks, or None. The numbers themselves are not read.

    Args:
      state: directory of the state in a checkpoint.
    """
    try:
        described: dict[str, Any] = json.loads((state / "_METADATA").read_text(encoding="utf-8"))
        store: Any = ts.KvStore.open({"driver": "ocdbt", "base": {"driver": "file", "path": f"{state}/"}}).result()
        parts = collections.Counter()
        headers: dict[str, Any] = {}
        for key in (key.decode() for key in store.list().result()):
            name, _, part = key.rpartition("/")
            if part == ".zarray":
                headers[name] = json.loads(store.read(key).result().value)
            else:
                parts[name] += 1
        for entry in described["tree_metadata"].values():
            name = ".".join(str(part["key"]) for part in entry["key_metadata"])
            if entry["value_metadata"]["value_type"] not in ARRAYS:
                continue
            if name not in headers:
                return f"its index has no array {name!r}"
            expected = math.prod(
                -(-size // chunk) for size, chunk in zip(headers[name]["shape"], headers[name]["chunks"], strict=True)
            )
            if parts[name] < expected:
                return f"its index has {parts[name]} of {expected} parts of array {name!r}"
    except Exception as error:  # whatever the storage layer raises, the checkpoint cannot be read
        return f"its index cannot be read ({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''})"
    return None
