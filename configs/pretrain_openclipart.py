"""Contrastive pretraining on Open Clip Art: each drawing is matched with its own title; no label is used.

python train.py --config=configs/pretrain_openclipart.py --config.data.path=DIR --workdir=runs/pretrain_openclipart
python eval.py --workdir=runs/pretrain_openclipart
python eval.py --workdir=runs/pretrain_openclipart --split=unseen

docs/data.md says how to prepare DIR. Evaluation: retrieval, zero-shot classification by phrases, and logistic
regression on the frozen representations; "unseen" are drawings by authors of whom none was trained on. docs/results.md
says what was measured.
"""

from ml_collections import ConfigDict

from configs import pretrain_emoji


def get_config() -> ConfigDict:
    """Returns the configuration of contrastive pretraining on Open Clip Art, from raw pixels and bytes."""
    config = pretrain_emoji.get_config()
    config.data.name = "openclipart"
    config.data.keep = True
    config.data.image_size = 32
    config.data.text_length = 48
    config.model.image.patch = 8
    config.eval.protocols = ()  # mean and worst are then over modality subsets
    return config
