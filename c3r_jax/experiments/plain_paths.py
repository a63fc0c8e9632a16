"""A path that the checkpoint library reads as it is written, for a directory whose name it would read as a pattern."""

import os
import pathlib
import re
import shutil
import tempfile
import weakref

import jax

from c3r_jax.errors import WorkdirError

# The library looks for the parts of a checkpoint by a pattern that begins with the directory's own name. It takes a
# backslash for a separator, and "gs:" and the like for the address of a store.
_READ_OTHERWISE = re.compile(r"[*?\[\]\\]|(^|/)[A-Za-z][\w+.-]*:/")


def as_pattern(path: str | os.PathLike[str]) -> str:
    r"""The first part of an absolute path that would be read as a pattern or an address; "": the path is plain.

    Examples:
      >>> as_pattern("/data/run [seed=0]"), as_pattern("/data/run seed=0"), as_pattern("/data/s3:/runs")
      ('[', '', 's3:')
    """
    found = _READ_OTHERWISE.search(os.path.abspath(path))
    return found[0].strip("/") if found else ""


class PlainPath:
    """A directory under a path without patterns: its own, or a link in a private temporary directory.

    Attributes:
      path: the path to give to the library, as long as this object is alive and not closed.
    """

    def __init__(self, directory: pathlib.Path):
        """Makes the link if there is need of one.

        Raises:
          WorkdirError: a link cannot be made, or several processes train, which would each have another one.
        """
        self.path = directory.absolute()
        self._close = lambda: None
        part = as_pattern(directory)
        if not part:
            return
        refused = WorkdirError(
            f"workdir {directory.parent} has {part!r} in its path, which the checkpoint library reads as a pattern or "
            "an address: rename that folder, or choose another workdir."
        )
        if jax.process_count() > 1 or as_pattern(tempfile.gettempdir()):
            raise refused
        try:
            folder = tempfile.mkdtemp(prefix="c3r-checkpoints-")
            self._close = weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)  # removes the link only
            self.path = pathlib.Path(folder, directory.name)
            self.path.symlink_to(directory.absolute(), target_is_directory=True)
        except OSError as error:
            raise refused from error

    def close(self) -> None:
        """Removes the link."""
        self._close()
