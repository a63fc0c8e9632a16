"""Temperature and biases of a trained run, fitted on its validation split: ``config.eval.calibrate``."""

from typing import Any

import numpy as np

from c3r_jax.core.moments import Moments
from c3r_jax.experiments.encode import encode_split, without_encoders
from c3r_jax.experiments.experiment import Experiment
from c3r_jax.metrics.biases import Biases, fit_biases
from c3r_jax.metrics.routes import ROUTES
from c3r_jax.models.branches import Branches


def fitted_calibration(experiment: Experiment, params: Any, moments: Moments | None) -> dict[str, Biases]:
    """{route: temperature and biases} of the validation split's logits; {} where the configuration asks for none.

    C3R's necessity asks rare classes to be as probable as their share once the shared part is gone; biases that are
    fitted give them back what that costs. Neither training rows nor the evaluated split are looked at.

    Args:
      experiment: the run.
      params: on the devices.
      moments: the instrument's moments of the training set.
    """
    if experiment.settings.eval.calibrate == "none":
        return {}
    h, present, labels, _ = encode_split(experiment, params, "validation")
    after_encoders = experiment.devices.host(without_encoders(params))
    branches = experiment.branches(after_encoders, moments, h, present, labels, seed=experiment.settings.seed)
    return {route: fit_biases(branches.logits[route], np.asarray(labels)) for route in ROUTES}


def calibrated(branches: Branches, fitted: dict[str, Biases]) -> Branches:
    """Branches whose predictions are calibrated; what the hypothetical world says is calibrated as z_c's is.

    Args:
      branches: of evaluated rows.
      fitted: output of :func:`fitted_calibration`.
    """
    if not fitted:
        return branches
    logits = {route: fitted[route](value) for route, value in branches.logits.items()}
    return branches._replace(logits=logits, counterfactual_logits=fitted[ROUTES[1]](branches.counterfactual_logits))
