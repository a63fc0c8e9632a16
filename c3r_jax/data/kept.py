"""Small sets from files: every example is read and decoded once, and kept."""

import functools
from typing import Any

import numpy as np

from c3r_jax.data.source import Example, Source
from c3r_jax.keyed import Keyed


class KeptSource:
    """A source that keeps what it has read; all else is the source's own.

    Attributes:
      info: the set's description.
      streamed: False: what is made of its examples may be kept, too.
    """

    streamed = False

    def __init__(self, source: Source):
        self.info = source.info
        self._source = source
        self._kept: dict[int, Example] = {}

    def __len__(self) -> int:
        return len(self._source)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # copying and pickling ask before there is a source
            raise AttributeError(name)
        return getattr(self._source, name)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": {}}  # each process keeps its own

    def __getitem__(self, position: int, /) -> Example:
        example = self._kept.get(int(position))
        if example is None:
            example = dict(self._source[position])
            for value in example.values():
                if isinstance(value, np.ndarray):
                    value.flags.writeable = False  # the next reader sees the same array
            self._kept[int(position)] = example
        return dict(example)


def kept(source: Source, key: str) -> KeptSource:
    """Returns what keeps a source; all runs of this process that use the same key share what has been read.

    Args:
      source: the split.
      key: what its examples depend on besides the file (``info.sha256``): name, split, image size, standardisation.
    """
    return KeptSource(source) if source.info.sha256 is None else _shared(Keyed(f"{source.info.sha256} {key}", source))


@functools.lru_cache(maxsize=12)
def _shared(keyed: Keyed[Source]) -> KeptSource:
    return KeptSource(keyed.value)
