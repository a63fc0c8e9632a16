"""One step of training on a prepared set."""

import jax
import numpy as np

from c3r_jax.training.experiment import build_experiment


def take_step(config):
    """Builds the run and takes a step: its metrics are finite and parameters move; returns experiment and batch."""
    experiment = build_experiment(config)
    batch = next(experiment.train_iterator())
    state = experiment.devices.init(experiment.state_maker())
    before = experiment.devices.host(state.params)
    state, metrics = experiment.step(state, experiment.devices.split(batch))
    assert all(np.isfinite(np.asarray(value)).all() for value in jax.tree.leaves(metrics))
    after = experiment.devices.host(state.params)
    assert any(not np.array_equal(*pair) for pair in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True))
    return experiment, batch
