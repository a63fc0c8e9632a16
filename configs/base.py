"""The defaults that all configurations share; each file changes what differs. ``c3r config`` lists all leaves."""

from ml_collections import ConfigDict

from c3r_jax.experiments.settings import default_config


def get_config() -> ConfigDict:
    """Returns the base configuration; every leaf is read by the code and can be set as ``--config.any.leaf=value``."""
    return default_config()
