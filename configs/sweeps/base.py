"""The defaults that all sweeps share; each study adds its cells. ``c3r config sweeps/ablation`` lists all leaves."""

from ml_collections import ConfigDict

from c3r_jax.sweep.settings import default_sweep


def get_config() -> ConfigDict:
    """Returns the base of a sweep; every leaf is read and can be set as ``--config.any.leaf=value``."""
    return default_sweep()
