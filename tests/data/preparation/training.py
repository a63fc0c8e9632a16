"""One step of training on a prepared set, and its configuration made small."""

import jax
import numpy as np

from c3r_jax.experiments.experiment import build_experiment


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


def shrunk(config, path, method="plain"):
    """A data set's own configuration for a set prepared in ``path``, with a network and a step that compile fast.

    C3R's objective takes as long to compile as all else: tests ask for it where a set's modalities or labels are of a
    kind of their own.
    """
    config.method = method
    config.data.path, config.data.num_workers = str(path), 0
    config.data.image_size, config.data.resize, config.data.text_length = 8, 10 if config.data.resize else 0, 12
    config.model.dim = 4
    for part in (config.model.image, config.model.text, config.model.sequence):
        part.width, part.num_heads, part.depth = 8, 2, min(part.depth, 1)
    # ResNets of 18 layers compile for minutes; tests/models/encoders/pretrained/test_published.py trains small ones.
    config.model.image.pretrained = config.model.sequence.pretrained = ""
    config.model.image.patch, config.model.text.orders, config.model.text.buckets = 4, (2,), 64
    config.model.volume.width, config.model.volume.depth = 4, 1
    if config.data.volume_size:
        config.data.volume_size = (4, 4, 4)
    config.model.features.hidden = (8,)
    config.train.batch_size = config.eval.batch_size = 64
    return config
