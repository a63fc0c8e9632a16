"""A lock on a directory, for one process at a time."""

import contextlib
import fcntl
import os
import pathlib
from collections.abc import Iterator


@contextlib.contextmanager
def exclusive_lock(directory: pathlib.Path, error: Exception) -> Iterator[None]:
    """Locks a directory against other processes; the system releases the lock when the process ends, however it ends.

    Args:
      directory: must exist. Nothing is written into it, so no lock file can be left behind.
      error: raised if another process holds the lock.

    Examples:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as place, exclusive_lock(pathlib.Path(place), OSError("first")):
      ...     with exclusive_lock(pathlib.Path(place), OSError("it is locked already")):
      ...         pass
      Traceback (most recent call last):
      ...
      OSError: it is locked already
    """
    handle = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise error from None
        except OSError:
            pass  # a file system without locks: users of one must not start two processes
        yield
    finally:
        os.close(handle)
