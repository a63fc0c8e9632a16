"""Caches of a process: arguments without a hash, and room for compiled programs.

A process that trains many settings must not run out of memory mappings. XLA's compiler for CPUs maps every kernel
separately, about a thousand mappings for the programs of one setting, and JAX keeps a program as long as its function
may be called again. Linux gives a process 65,530 mappings; when they run out, the compiler ends the process.
"""

import dataclasses
import gc
import hashlib
import importlib.util
import os
import pathlib
import platform
import sys
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


CPU_FILE = pathlib.Path("/proc/cpuinfo")
DISK_LIMIT = 2**30  # bytes of kept programs; the least used go first


def programs_folder() -> pathlib.Path:
    """Where programs are kept: in the user's cache folder, apart for each kind of processor, whose instructions differ.

    A home folder may be shared by several kinds of machines.
    """
    user = os.environ.get("XDG_CACHE_HOME")
    if not user and sys.platform == "darwin":
        user = "~/Library/Caches"
    lines = CPU_FILE.read_text(errors="replace").splitlines() if CPU_FILE.exists() else []
    kinds = sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))})
    machine = hashlib.sha256("\n".join([platform.machine(), *kinds]).encode()).hexdigest()[:12]
    return pathlib.Path(user or "~/.cache").expanduser() / "c3r_jax" / "programs" / machine


def keep_programs() -> bool:
    """Asks JAX to keep compiled programs for later processes; call it before JAX is imported.

    What the environment says already (``JAX_COMPILATION_CACHE_DIR``, ``JAX_ENABLE_COMPILATION_CACHE=false``) is left as
    it is. Without a folder that can be written, or without the package ``filelock``, with which JAX keeps to a limit,
    nothing is kept.

    Returns:
      Whether programs will be kept in :func:`programs_folder`.
    """
    off = os.environ.get("JAX_ENABLE_COMPILATION_CACHE", "").lower() in ("0", "false", "no", "off")
    if off or "JAX_COMPILATION_CACHE_DIR" in os.environ or "jax" in sys.modules:
        return False
    if not importlib.util.find_spec("filelock"):
        return False
    try:
        folder = programs_folder()
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # the latter: there is no home folder
        return False
    if not os.access(folder, os.W_OK):
        return False
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
    os.environ.setdefault("JAX_COMPILATION_CACHE_MAX_SIZE", str(DISK_LIMIT))
    return True


def quick_compilation(level: int) -> dict[str, bool | int] | None:
    """Options of ``jax.jit`` for small programs on CPUs, which take longer to compile than to run; else None.

    The older emitter of kernels takes about half of the newer one's time. What ``XLA_FLAGS`` says comes first. It asks
    JAX for its devices: call it when a program is needed, not at import.

    Args:
      level: of optimisation: 1 for programs that run many times, as fast as fully optimised for small arrays; 0 for
        those that run once, half as fast.
    """
    import jax
    import jaxlib.version

    known = jaxlib.version.__version_info__ < (0, 11)  # later ones do not have the first option, which is then an error
    if not known or "xla_backend_optimization_level" in os.environ.get("XLA_FLAGS", ""):
        return None
    if jax.default_backend() != "cpu":
        return None
    return {"xla_cpu_use_fusion_emitters": False, "xla_backend_optimization_level": level}


def stop_keeping() -> None:
    """From here on no compiled program is kept or read."""
    import jax

    jax.config.update("jax_enable_compilation_cache", False)


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
