"""Stamps: picture, English text and French speech of 835 stamps, eight classes; some modalities are missing.

python -m c3r_jax.demo --config=configs/stamps.py --config.data.path=DIR --seeds 5 --workdir runs/stamps

docs/real_sets.md says how to prepare DIR, and how these settings were chosen.
"""

from ml_collections import ConfigDict

from configs import emoji


def get_config() -> ConfigDict:
    """Returns the configuration of the stamps: pictures and texts almost as those of emoji."""
    config = emoji.get_config()
    config.data.name = "stamps"
    config.data.keep = True
    config.model.text.word_break = -1  # as the tables of docs/ were measured, n-grams alone
    config.model.sequence.patch = 16
    config.model.sequence.width = 32
    config.model.sequence.depth = 1
    config.model.sequence.block = "mixer"
    config.model.sequence.dropout = 0.8
    config.train.steps = 200
    config.eval.protocols = ()  # mean and worst are then over modality subsets
    return config
