"""Caches of a process: arguments without a hash, and room for compiled programs.

A process that trains many settings must not run out of memory mappings. XLA's compiler for CPUs maps every kernel
separately, about a thousand mappings for the programs of one setting, and JAX keeps a program as long as its function
may be called again. Linux gives a process 65,530 mappings; when they run out, the compiler ends the process.
"""

import dataclasses
import gc
import pathlib
from typing import Generic, TypeVar

MAPS_FILE = pathlib.Path("/proc/self/maps")
MAPS_LIMIT_FILE = pathlib.Path("/proc/sys/vm/max_map_count")
SHARE = 0.4  # of all mappings; the rest is for the next setting's programs and for other work of the process


def count_mappings() -> int:
    """Number of memory mappings of this process; 0 where the system does not report it."""
    return MAPS_FILE.read_bytes().count(b"\n") if MAPS_FILE.exists() else 0


def make_room(share: float = SHARE) -> bool:
    """Clears JAX's compiled programs if the process uses a large share of its memory mappings.

    Functions stay usable: one that is called again is compiled again. Call this before a new setting is built.

    Args:
      share: largest share of the allowed mappings that is tolerated.

    Returns:
      Whether programs were cleared.

    Examples:
      >>> make_room(share=2.0)
      False
    """
    if not MAPS_LIMIT_FILE.exists() or count_mappings() <= share * int(MAPS_LIMIT_FILE.read_text()):
        return False
    import jax  # here, so that small data modules, which use the class below, need no JAX

    jax.clear_caches()
    gc.collect()
    return True


T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class CacheArgument(Generic[T]):
    """An argument of a cached function that may have no hash; its key names everything that the result depends on.

    Examples:
      >>> CacheArgument("a", [1]) == CacheArgument("a", [2]), len({CacheArgument("a", [1]), CacheArgument("b", [1])})
      (True, 2)
    """

    key: str
    value: T = dataclasses.field(compare=False)
