"""Your own tables and images; docs/own_data.md says how to describe and prepare them.

python -m c3r_jax.data.prepare table --source DIR --out data
python train.py --config=configs/table.py --workdir=runs/table
python eval.py --workdir=runs/table
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    """Returns settings for some hundreds or thousands of examples on one machine."""
    config = base.get_config()
    config.data.name = "table"
    config.data.path = "data"
    config.data.keep = True
    config.data.augment.feature_noise = 0.1
    config.train.label_smoothing = 0.1
    # C3R stays at its defaults, which never overrule the task. Where a cue is known to reverse, the weights of
    # C3RConfig.strong() ask for more: docs/own_data.md.
    config.eval.protocols = ()  # mean and worst are then over modality subsets
    return config
