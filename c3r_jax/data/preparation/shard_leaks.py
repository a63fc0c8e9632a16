"""Examples of shards (tar files, ArrayRecord) that are in two splits, found in one pass that keeps only digests.

Nobody prepares shards, so nobody has looked: ``c3r prepare --leaks DIR`` does, and a run does where they are small.
"""

import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from absl import logging

from c3r_jax.data.preparation.leaks import Leaks, sentences
from c3r_jax.data.sets.manifest import write_json
from c3r_jax.data.sets.records import RecordSource, load_records, shards_of
from c3r_jax.errors import DataError
from c3r_jax.progress import TrainingProgress

LEAKS = "leaks.json"
SMALL = 1 << 26  # bytes of all shards, and their examples: a run looks through so many itself
FEW = 5_000
SPLITS = ("train", "validation", "test")
_CHUNK = 1 << 13  # examples compared at once
_KINDS = {"image": "image", "text": "text"}


def find_leaks(directory: str | os.PathLike[str], *, shown: bool = False) -> dict[str, Any]:
    """Compares the contents of all splits: equal pictures, byte by byte, and whether their texts are equal, too.

    The largest split is only read past; of the others 16 bytes per example are in memory. What agrees is read again and
    compared by longer digests, with the texts.

    Args:
      directory: directory of the shards.
      shown: whether progress is shown.

    Returns:
      "shards" {name: [bytes, time of change in ns]} before the pass, "examples" {split: number}, "leaks" as in a
      manifest, and "warnings": sentences.

    Raises:
      DataError: shards are damaged, or there are fewer than two splits.
    """
    directory = pathlib.Path(directory)
    shards = _shards(directory)
    if len(shards) < 2:
        raise DataError(
            f"{directory} has shards of {len(shards)} of the splits {', '.join(SPLITS)}: expected two or more, "
            "SPLIT-*.arrayrecord or SPLIT-*.tar."
        )
    stamps = _stamps(shards)  # before they are read: what is written meanwhile has another time
    sources = _opened(directory, shards, {})
    found = _compared(sources, shown=shown)
    return {
        "shards": stamps,
        "examples": {split: len(source) for split, source in sources.items()},
        "leaks": found,
        "warnings": sentences(found, f"{LEAKS} lists them"),
    }


def write_leaks(directory: str | os.PathLike[str]) -> dict[str, Any]:
    """Finds them, and writes what is found to ``leaks.json`` beside the shards, where runs read it."""
    found = find_leaks(directory, shown=True)
    write_json(pathlib.Path(directory) / LEAKS, found)
    return found


def warn_of_leaks(directory: str | os.PathLike[str], sources: Mapping[str, Any] | None = None) -> None:
    """Logs the warnings of ``leaks.json``; without it, few examples are compared now, and of others a hint is logged.

    Few are :data:`FEW` in shards of :data:`SMALL` bytes in all. Each costs one read of its picture, in tar files one
    opening of the shard too; what agrees is read once more, with its text. That is advice, and never stops a run: what
    cannot be read is logged.

    Args:
      directory: directory of the shards.
      sources: {split: its examples} where they are open already; others are opened here, which reads all headers of
        their tar files.
    """
    directory = pathlib.Path(directory)
    try:
        warnings = _warnings(directory, sources or {})
    except (DataError, OSError) as error:
        logging.warning("The splits of the shards in %s could not be compared: %s", directory, error)
        return
    if warnings is None:
        logging.info(
            "The shards in %s were not searched for examples that two splits share: c3r prepare --leaks %s does it.",
            directory,
            directory,
        )
    for warning in warnings or []:
        logging.warning("%s", warning)


def _warnings(directory: pathlib.Path, sources: Mapping[str, Any]) -> list[str] | None:
    """What there is to say of the shards; None if nobody looked, and they are many."""
    shards = _shards(directory)
    warnings = _read(directory / LEAKS, shards)
    if warnings is not None or sum(path.stat().st_size for paths in shards.values() for path in paths) > SMALL:
        return warnings
    if len(shards) < 2:
        return []
    opened = _opened(directory, shards, sources)
    if sum(map(len, opened.values())) > FEW:
        return None
    return sentences(_compared(opened), f"c3r prepare --leaks {directory} lists them")


def _shards(directory: pathlib.Path) -> dict[str, list[pathlib.Path]]:
    return {split: paths for split in SPLITS if (paths := shards_of(directory, split))}


def _stamps(shards: Mapping[str, list[pathlib.Path]]) -> dict[str, list[int]]:
    """Size and time of change of each shard: small tar files have one size whatever is in them."""
    stats = {path.name: path.stat() for paths in shards.values() for path in paths}
    return {name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()}


def _opened(
    directory: pathlib.Path, shards: Mapping[str, list[pathlib.Path]], sources: Mapping[str, Any]
) -> dict[str, RecordSource]:
    """The splits, those that are open already as they are; a wrapper that hides what is stored is passed over."""
    return {
        split: sources[split] if hasattr(sources.get(split), "picture") else load_records(split, path=directory)
        for split in shards
    }


def _compared(sources: Mapping[str, RecordSource], *, shown: bool = False) -> list[dict[str, Any]]:
    """The examples that two splits share, as in a manifest."""
    with TrainingProgress(sum(map(len, sources.values())), 0, 1, "comparing", shown=shown) as progress:
        candidates = _candidates(sources, progress.update)
    leaks = Leaks(_KINDS)
    for split, source in sources.items():
        for position in candidates[split].tolist():
            stored = source.stored(position)
            leaks.add(split, {"key": source.key(position), "image": stored["image"], "text": stored["text"]})
    return leaks.found()


def _read(path: pathlib.Path, shards: Mapping[str, list[pathlib.Path]]) -> list[str] | None:
    """The warnings that were found in these shards; None if nobody looked since they were written."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        same = found["shards"] == _stamps(shards)
        return [str(warning) for warning in found["warnings"]] if same else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _digests(source: RecordSource, begin: int, end: int) -> np.ndarray:
    """8 bytes of each picture's content in a stretch of a split."""
    contents = (source.picture(position) for position in range(begin, end))
    return np.fromiter(
        (int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little") for content in contents),
        np.uint64,
        end - begin,
    )


def _candidates(sources: Mapping[str, RecordSource], on_done: Callable[[int], None]) -> dict[str, np.ndarray]:
    """Positions of the examples whose picture's digest is in another split, too, by split."""
    largest = max(sources, key=lambda split: len(sources[split]))
    digests: dict[str, np.ndarray] = {}
    places: dict[str, np.ndarray] = {}
    known = np.empty(0, np.uint64)
    done = 0
    for split in sorted(sources, key=lambda split: split == largest):  # the largest last
        kept, size = [], len(sources[split])
        for begin in range(0, size, _CHUNK):
            some = _digests(sources[split], begin, min(begin + _CHUNK, size))
            chosen = np.flatnonzero(np.isin(some, known)) if split == largest else np.arange(len(some))
            kept.append((begin + chosen, some[chosen]))
            on_done(done + begin + len(some))
        done += size
        places[split], digests[split] = (np.concatenate(column) for column in zip(*kept, strict=True))
        known = np.union1d(known, digests[split])
    values, splits = np.unique(np.concatenate([np.unique(some) for some in digests.values()]), return_counts=True)
    shared = values[splits > 1]
    return {split: places[split][np.isin(digests[split], shared)] for split in sources}
