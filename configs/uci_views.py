"""UCI views: handwritten digits described by six sets of features.

python -m c3r_jax.demo --config=configs/uci_views.py --config.data.path=DIR --seeds 5 --workdir runs/uci_views

docs/real_sets.md says how to prepare DIR, how these settings were chosen, and what the results are.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    """Returns the configuration of the digits."""
    config = base.get_config()
    config.data.name = "uci_views"
    config.data.keep = True
    config.data.augment.feature_noise = 0.2
    config.model.dim = 8  # five other views make an instrument of 40 columns
    config.model.features.hidden = (64,)
    config.model.features.dropout = 0.2
    config.modality_dropout.rate = 0.6
    config.train.batch_size = 256
    config.train.steps = 200
    config.train.label_smoothing = 0.1
    config.eval.protocols = ()  # mean and worst are then over modality subsets
    return config
