"""Emoji: picture and name to one of nine groups, from raw pixels and bytes.

python train.py --config=configs/emoji.py --workdir=runs/emoji
python eval.py --workdir=runs/emoji

The table of scores, by method and condition, is printed by `make demo`; docs/results.md has it, and says how these
settings were chosen.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    """Returns the configuration of the embedded emoji set."""
    config = base.get_config()
    config.data.name = "emoji"
    config.data.image_size = 24
    config.data.augment.word_drop = 0.3
    config.model.image.patch = 6
    config.model.text.dropout = 0.8
    config.model.text.word_break = 34  # the space of bytes
    config.modality_dropout.rate = 0.6
    config.optimizer.learning_rate = 4e-3
    config.train.steps = 700
    config.train.eval_every = 100
    # An over-confident text outvotes the picture: names alone are fitted perfectly long before pictures are.
    config.train.label_smoothing = 0.1
    return config
