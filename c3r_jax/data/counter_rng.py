"""Counter-based random numbers: a pure function of (seed, parts), so they do not depend on order, batch or worker."""

import zlib

import numpy as np

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15


def check_seed(seed: int) -> int:
    """Returns the seed if it is an integer of at least 0, else raises a ValueError."""
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ValueError(f"seed is {seed!r}, expected an integer of at least 0: choose such a seed.")
    return int(seed)


def _scramble(value: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64; uint64 arithmetic wraps on purpose."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def hash64(seed: int, *parts: int | str | np.ndarray) -> np.ndarray:
    """Returns 64 well-mixed bits for every combination of broadcast parts.

    Args:
      seed: integer of at least 0.
      *parts: integers, names or integer arrays that broadcast against each other.

    Returns:
      uint64 array of the broadcast shape.

    Examples:
      >>> bool((hash64(0, "flip", np.arange(3)) == hash64(0, "flip", np.arange(5))[:3]).all())
      True
    """
    state = _scramble(np.asarray([(seed + _GOLDEN) & _MASK], np.uint64))
    for part in parts:
        if isinstance(part, str):
            part = zlib.crc32(part.encode())
        value = np.atleast_1d(np.asarray(part)).astype(np.uint64)
        state = _scramble(state * np.uint64(_GOLDEN) + value + np.uint64(1))
    return state


def uniform(seed: int, *parts: int | str | np.ndarray) -> np.ndarray:
    """Returns float32 numbers in [0, 1) of the broadcast shape of the parts, see ``hash64``."""
    # 24 bits: the most that float32 holds without rounding up to 1.
    return (hash64(seed, *parts) >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)


def permutation(n: int, seed: int, *parts: int | str) -> np.ndarray:
    """Returns a random order of ``0 .. n - 1``. Shape ``(n,)``, int64.

    Examples:
      >>> sorted(permutation(4, 0, "epoch", 7).tolist())
      [0, 1, 2, 3]
    """
    return np.argsort(hash64(seed, *parts, np.arange(n)), kind="stable")


def example_rng(seed: int, index: int, name: str) -> np.random.Generator:
    """Returns a generator for one example and one purpose, independent of all other draws."""
    return np.random.default_rng([check_seed(seed), int(index), zlib.crc32(name.encode())])
