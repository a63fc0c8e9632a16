"""Emoji by other makers: trained and selected on Noto's pictures, tested on the same names as others draw them.

python train.py --config=configs/emoji_styles.py --workdir=runs/emoji_styles
python eval.py --workdir=runs/emoji_styles --split=twitter

Twemoji's pictures are embedded; docs/data.md says how to prepare Apple's and Facebook's, which are then the splits
apple and facebook of ``--config.data.path=OUT``.
"""

from ml_collections import ConfigDict

from configs import emoji


def get_config() -> ConfigDict:
    """Returns the configuration of emoji, which selects as before: no shifted picture is seen in training."""
    config = emoji.get_config()
    config.data.name = "emoji_styles"
    return config
