"""The files of a split in shards: which there are, whether one is missing, and whether one is there twice."""

import hashlib
import pathlib
import re
from collections.abc import Callable

from absl import logging

from c3r_jax.errors import DataError
from c3r_jax.files.natural import in_natural_order

_LOOK = 1 << 16  # bytes at the beginning and at the end of a shard that is compared
COMPARED = 200  # shards of which others have the size; more would delay the start of a run


def shards_of(directory: pathlib.Path, split: str) -> list[pathlib.Path]:
    """The shards of a split, of both kinds, in natural order."""
    endings = ("arrayrecord", "tar")
    return in_natural_order(path for ending in endings for path in directory.glob(f"{split}-*.{ending}"))


def check_complete(paths: list[pathlib.Path]) -> None:
    """Refuses shards called NUMBER-of-COUNT unless every number below one count is there."""
    named = [re.search(r"-(\d+)-of-(\d+)\.", path.name) for path in paths]
    found = [(int(name[1]), int(name[2])) for name in named if name is not None]
    if found and (len(found) != len(paths) or sorted(found) != [(i, found[0][1]) for i in range(found[0][1])]):
        raise DataError(
            f"{paths[0].parent} has shards {', '.join(path.name for path in paths[:4])}, ...: expected every number "
            "below one count; fetch the missing shards, and delete those of another export."
        )


def check_different(paths: list[pathlib.Path], has_examples: Callable[[pathlib.Path], bool]) -> None:
    """Refuses a shard that is there twice, such as "train-0 (1).tar": its size, beginning and end are another's.

    Only files that have the size of another are read, the first :data:`COMPARED` of them, by the job's first process.

    Args:
      paths: the shards of a split.
      has_examples: whether a shard has examples; equal ones without any are no copies.

    Raises:
      DataError: a shard is a copy.
    """
    if not _is_first():
        return
    sizes: dict[int, list[pathlib.Path]] = {}
    for path in paths:
        sizes.setdefault(path.stat().st_size, []).append(path)
    doubtful = [path for size, some in sizes.items() if size and len(some) > 1 for path in some]
    if len(doubtful) > COMPARED:
        logging.info(
            "%d shards in %s have the size of another; only the first %d were compared, so that copies among the "
            "others go unnoticed.",
            len(doubtful),
            paths[0].parent,
            COMPARED,
        )
    seen: dict[bytes, pathlib.Path] = {}
    for path in doubtful[:COMPARED]:
        other = seen.setdefault(_look(path), path)
        if other != path and has_examples(path):
            raise DataError(
                f"{path} is a copy of {other.name}, so that its examples would be there twice: delete one of them."
            )


def _is_first() -> bool:
    """Whether this is the first process of its job. A single one asks no device: others may be using it."""
    import jax  # here: processes that only read examples do without

    return not jax.distributed.is_initialized() or jax.process_index() == 0


def _look(path: pathlib.Path) -> bytes:
    """A digest of a file's size, beginning and end."""
    size = path.stat().st_size
    with path.open("rb") as file:
        digest = hashlib.sha256(size.to_bytes(8, "little") + file.read(_LOOK))
        file.seek(max(0, size - _LOOK))
        digest.update(file.read())
    return digest.digest()
