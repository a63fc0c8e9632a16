"""The defaults that all configurations share; each file changes what differs. ``c3r config`` lists all leaves."""

from typing import Any

from ml_collections import ConfigDict

from c3r_jax.core.config import C3RConfig
from c3r_jax.experiments.settings import default_config


def get_config() -> ConfigDict:
    """Returns the base configuration; every leaf is read by the code and can be set as ``--config.any.leaf=value``."""
    return default_config()


def use_first_objective(config: ConfigDict, **leaves: Any) -> None:
    """Sets C3R to its first version, :meth:`c3r_jax.C3RConfig.hinge`, for comparison: it can harm ordinary data.

    The tables of docs/ that say so were measured with it.

    Args:
      config: the configuration; its ``c3r`` part is changed.
      **leaves: leaves of ``config.c3r`` that the experiment sets otherwise.
    """
    first = C3RConfig.hinge()
    weights = ("lambda_s", "lambda_n", "lambda_v", "cap", "expert")
    for name in (*weights, "necessity", "counterfactual", "subsets", "gate", "stage_rows"):
        config.c3r[name] = getattr(first, name)
    config.c3r.update(leaves)
