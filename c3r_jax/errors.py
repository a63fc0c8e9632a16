"""The errors a user can meet: each message names the value, what was expected and how to fix it."""

import contextlib
from collections.abc import Iterator


class C3RError(Exception):
    """Base of all errors that c3r_jax raises on purpose, except plain argument checks (those are ``ValueError``)."""


class ConfigError(C3RError, ValueError):
    """A configuration leaf has a value that cannot be used."""


class DataError(C3RError, ValueError):
    """A data file or an example is missing, damaged or not what the model expects."""


class WorkdirError(C3RError, RuntimeError):
    """A working directory belongs to another run, or cannot be written."""


class CheckpointError(C3RError, RuntimeError):
    """No usable checkpoint was found."""


class MissingExtraError(C3RError, ImportError):
    """What was asked for needs libraries that a small install leaves out; the message has the line that adds them."""


@contextlib.contextmanager
def extra_of(wanted: str, extra: str) -> Iterator[None]:
    """Turns the import of a library that is not installed into one sentence with its ``pip`` line.

    Args:
      wanted: what needs the library, as a user knows it.
      extra: the extra of pyproject.toml that has the library.

    Raises:
      MissingExtraError: instead of ``ModuleNotFoundError``, where the module is not one of this repository.

    Examples:
      >>> with extra_of("c3r train", "train"):
      ...     import a_library_that_is_not_installed
      Traceback (most recent call last):
      ...
      c3r_jax.errors.MissingExtraError: c3r train needs a_library_that_is_not_installed, which is not installed: run \
      pip install 'c3r-jax[train]' (or, in a copy of the repository, pip install '.[train]').
    """
    try:
        yield
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        if library in ("", "c3r_jax", "configs"):
            raise
        raise MissingExtraError(
            f"{wanted} needs {library}, which is not installed: run pip install 'c3r-jax[{extra}]' (or, in a copy of "
            f"the repository, pip install '.[{extra}]')."
        ) from None


class NonFiniteError(C3RError, FloatingPointError):
    """A loss term or gradient is NaN or infinite; the last good checkpoint is still there."""
