"""A directory that one process at a time may write to."""

import contextlib
import fcntl
import os
import pathlib
from collections.abc import Iterator


@contextlib.contextmanager
def alone(directory: pathlib.Path, error: Exception) -> Iterator[None]:
    """Holds a directory against a second process; the system lets go of it when a process ends, however it ends.

    Args:
      directory: exists. Nothing is written into it, so that no lock can be left behind.
      error: raised if another process holds it.

    Examples:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as place, alone(pathlib.Path(place), OSError("first")):
      ...     with alone(pathlib.Path(place), OSError("it is held already")):
      ...         pass
      Traceback (most recent call last):
      ...
      OSError: it is held already
    """
    handle = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise error from None
        except OSError:
            pass  # a file system without locks: whoever has one must not start two
        yield
    finally:
        os.close(handle)
