"""Emoji: picture and name to one of nine groups, from raw pixels and bytes.

python train.py --config=configs/emoji.py --workdir=runs/emoji
python eval.py --workdir=runs/emoji

The table of scores, by method and condition, is what `make demo` prints.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    """Returns the configuration of the embedded emoji set."""
    config = base.get_config()
    config.data.name = "emoji"
    return config
