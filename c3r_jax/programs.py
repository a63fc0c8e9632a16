"""Room for compiled programs: a process that trains many settings must not run out of memory mappings.

XLA's compiler for CPUs maps every kernel of a program by itself, some thousand mappings for one setting's programs,
and JAX keeps programs as long as a function may be called again. Linux gives a process 65,530 mappings; the compiler
that gets no more of them takes the process down with it.
"""

import gc
import pathlib

import jax

MAPS = pathlib.Path("/proc/self/maps")
MOST = pathlib.Path("/proc/sys/vm/max_map_count")
SHARE = 0.4  # of all mappings; the rest is for the next setting's programs, and for what else the process does


def mappings() -> int:
    """How many memory mappings this process has; 0 where the system does not say."""
    return MAPS.read_bytes().count(b"\n") if MAPS.exists() else 0


def make_room(share: float = SHARE) -> bool:
    """Forgets JAX's compiled programs if they have taken much of the process's memory mappings.

    Functions stay as they are: one that is called again is compiled again. To be called before a new setting is built.

    Args:
      share: of the mappings that the system allows; fewer are left alone.

    Returns:
      Whether programs were forgotten.

    Examples:
      >>> make_room(share=2.0)
      False
    """
    if not MOST.exists() or mappings() <= share * int(MOST.read_text()):
        return False
    jax.clear_caches()
    gc.collect()
    return True
