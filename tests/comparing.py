"""What "the same numbers" means for runs on other devices, and where a run's state is found."""

import numpy as np

from c3r_jax.experiments.checkpoints import Checkpoints
from c3r_jax.experiments.experiment import build_experiment


def last_state(config, workdir):
    """Step and state of the newest checkpoint."""
    checkpoints = Checkpoints(workdir)
    experiment = build_experiment(config)
    template = experiment.devices.template(experiment.state_maker())
    step, state, _ = checkpoints.restore(checkpoints.newest_first, template)
    checkpoints.close()
    return step, state


def assert_same_values(one, other, note=""):
    """Losses, terms and risks to 1e-5; what divides by a small difference, and gradient norms, are diagnostics.

    F statistics divide by 1 - R^2, the explained share by what z gains over a constant prediction.
    """
    assert one.keys() == other.keys()
    for key in one:
        kind = key.split("/")[0]
        share = kind in ("explained", "cap_limit", "cap_scale")  # between 0 and 1
        relative = 1e-3 if share else {"f": 1e-3, "gradient_norm": 1e-4}.get(kind, 1e-5)
        absolute = 1e-4 if share else 2e-6
        np.testing.assert_allclose(one[key], other[key], rtol=relative, atol=absolute, err_msg=f"{note} {key}")
