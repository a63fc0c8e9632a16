"""Validation while a run trains: averaged parameters are scored with their own moments."""

import jax
import jax.numpy as jnp
import numpy as np

from c3r_jax.evaluation.validate import validate
from c3r_jax.experiments.encode import encode_split
from c3r_jax.experiments.experiment import build_experiment


def test_averaged_parameters_are_scored_with_moments_of_their_own(small_config):
    """The trained parameters and their running moments are far off: no score shows it."""
    small_config.train.ema_decay = 0.9
    experiment = build_experiment(small_config)
    made = jax.device_get(jax.jit(experiment.state_maker())())
    trained = jax.tree.map(lambda x: 3 * x + 1, made.params)
    state = experiment.devices.put(
        made._replace(params=trained, instrument=jax.tree.map(lambda x: jnp.full_like(x, 7), made.instrument))
    )
    scores = validate(experiment, state)

    averaged = experiment.devices.put(made.ema)
    h, present, *_ = encode_split(experiment, averaged, "train")
    exact = experiment.branches.measure_moments(made.ema, h, present)
    alone = made._replace(ema={}, instrument=exact._asdict())
    expected = validate(experiment, experiment.devices.put(alone))
    assert scores.keys() == expected.keys()
    for name, value in expected.items():
        # The running moments' share of the training set is not all of it: what goes through them differs a little.
        through = name == "accuracy_instrument" or name.startswith("risk_")
        np.testing.assert_allclose(scores[name], value, atol=0.03 if through else 1e-6, err_msg=name)
    wrong = alone._replace(instrument=jax.tree.map(lambda x: np.full_like(x, 7), exact._asdict()))
    off = validate(experiment, experiment.devices.put(wrong))  # and it would show
    assert abs(off["risk_total"] - expected["risk_total"]) > 0.05
