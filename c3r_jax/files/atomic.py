"""Text files that are written whole or not at all."""

import os
import pathlib

from c3r_jax.errors import WorkdirError


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes a text file whole or not at all: to a temporary file beside it, flushed to disk, then renamed."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise WorkdirError(
            f"{path} cannot be written ({error.strerror}): free space or choose another workdir."
        ) from error
