"""The errors a user can meet: each message names the value, what was expected and how to fix it."""


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


class NonFiniteError(C3RError, FloatingPointError):
    """A loss term or gradient is NaN or infinite; the last good checkpoint is still there."""
