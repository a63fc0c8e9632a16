"""Contrastive pretraining on emoji: each picture is matched with its own name; no label is used.

python train.py --config=configs/pretrain_emoji.py --workdir=runs/pretrain_emoji
python eval.py --workdir=runs/pretrain_emoji

Evaluation: retrieval, zero-shot classification by phrases, and logistic regression on the frozen representations.
docs/results.md says what was measured.
"""

from ml_collections import ConfigDict

from configs import emoji


def get_config() -> ConfigDict:
    """Returns the configuration of contrastive pretraining on the embedded emoji set."""
    config = emoji.get_config()
    config.task = "softmax"
    config.model.dim = 64
    config.model.first_scale = 10.0  # measured before the softmax began at 1 / .07, as in CLIP
    config.model.text.word_break = -1  # as the tables of docs/ were measured, n-grams alone
    config.model.text.dropout = 0.5  # .8, which is best for classes, hides too much of a name to find its picture
    config.train.batch_size = 256
    config.train.label_smoothing = 0.0
    return config
