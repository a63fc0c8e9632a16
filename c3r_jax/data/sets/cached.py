"""Caching for small data sets in files: every example is read and decoded once."""

import functools
from typing import Any

import numpy as np

from c3r_jax.caches import CacheArgument
from c3r_jax.data.source import Example, Source


class CachedSource:
    """A source that caches the examples of another source, and otherwise behaves like it.

    Attributes:
      info: the data set's description.
      streamed: False, so that results computed from its examples may be cached, too.
    """

    streamed = False

    def __init__(self, source: Source):
        self.info = source.info
        self._source = source
        self._cached: dict[int, Example] = {}

    def __len__(self) -> int:
        return len(self._source)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # copying and pickling ask before there is a source
            raise AttributeError(name)
        return getattr(self._source, name)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cached": {}}  # each process has its own cache

    def __getitem__(self, position: int, /) -> Example:
        example = self._cached.get(int(position))
        if example is None:
            example = dict(self._source[position])
            for value in example.values():
                if isinstance(value, np.ndarray):
                    value.flags.writeable = False  # later readers get the same array
            self._cached[int(position)] = example
        return dict(example)


def cached_source(source: Source, key: str) -> CachedSource:
    """Returns a caching source; all runs of this process that use the same key share its cache.

    Args:
      source: the split.
      key: everything that its examples depend on besides the file (``info.sha256``): name, split, image size,
        standardisation.
    """
    checksum = source.info.sha256
    return CachedSource(source) if checksum is None else _shared(CacheArgument(f"{checksum} {key}", source))


@functools.lru_cache(maxsize=12)
def _shared(source: CacheArgument[Source]) -> CachedSource:
    return CachedSource(source.value)
