"""Emoji with planted cues: a coloured corner and a word that agree with the label in training but not under shift.

python train.py --config=configs/emoji_shift.py --workdir=runs/emoji_shift
python eval.py --workdir=runs/emoji_shift --split=shift

docs/results.md has the table.
"""

from ml_collections import ConfigDict

from configs import emoji


def get_config() -> ConfigDict:
    """Returns the configuration of emoji with planted cues."""
    config = with_cues(emoji.get_config())
    config.model.text.word_break = -1  # as the tables of docs/ were measured, n-grams alone
    return config


def with_cues(config: ConfigDict) -> ConfigDict:
    """The configuration of emoji on the set with cues."""
    config.data.name = "emoji_shift"
    return config
