"""Watch: seven exercises, a smartwatch's accelerometer and gyroscope; two people for validation, two for test.

python -m c3r_jax.demo --config=configs/watch.py --config.data.path=DIR --seeds 5 --workdir runs/watch

docs/real_sets.md says how to prepare DIR, how these settings were chosen, and what the results are.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    """Returns the configuration of the smartwatch set."""
    config = base.get_config()
    config.data.name = "watch"
    config.data.keep = True
    config.data.augment.feature_noise = 0.1
    config.model.sequence.patch = 10  # a fifth of a second
    config.model.sequence.width = 32
    config.model.sequence.depth = 1
    config.model.sequence.dropout = 0.3
    config.modality_dropout.rate = 0.6
    config.train.batch_size = 256  # with dropout two fifths of it are complete; the instrument's 16 columns ask for 64
    config.train.steps = 200
    config.train.label_smoothing = 0.1
    config.eval.protocols = ()  # mean and worst are then over modality subsets
    return config
