"""Shared settings of the benchmarks that users have on disk; see ``docs/data.md`` for how to prepare them.

Batch sizes, optimisers, schedules, patience and image sizes follow the authors' public code where it states them.
None of these benchmarks was available to this project, so nothing was tuned on them, and no score is claimed: the
configurations are tested on small synthetic files of the same layout.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(
    name: str, *, train_size: int, batch_size: int, epochs: int, patience: int, learning_rate: float
) -> ConfigDict:
    """Returns the configuration of a prepared benchmark, validated once an epoch.

    Args:
      name: of the benchmark; it is read from the directory that ``python -m c3r_jax.data.prepare`` was given as --out.
      train_size: examples of its training split.
      batch_size: examples a step.
      epochs: at most so many.
      patience: validations without a better one before training stops.
      learning_rate: of Adam.
    """
    config = base.get_config()
    config.data.name = name
    config.data.path = "data"
    config.data.num_workers = 8
    config.model.dim = 64
    config.train.batch_size = batch_size
    config.train.eval_every = max(1, train_size // batch_size)
    config.train.steps = epochs * config.train.eval_every
    config.train.log_every = max(1, config.train.eval_every // 4)
    config.train.patience = patience
    config.optimizer.name = "adam"
    config.optimizer.learning_rate = learning_rate
    config.optimizer.weight_decay = 0.0
    config.optimizer.schedule = "plateau"
    config.optimizer.plateau_window = config.train.eval_every
    return config


def use_images(config: ConfigDict, *, pixels: int = 224, resize: int = 256) -> None:
    """Images as the public code crops them, and an encoder of the size of ViT-S/16 with half its depth."""
    config.data.image_size, config.data.resize = pixels, resize
    config.data.augment.shift = 0  # the crop moves them
    image = config.model.image
    image.block, image.patch, image.width, image.depth, image.num_heads, image.mlp_ratio = (
        "transformer",
        16,
        384,
        6,
        6,
        4,
    )
    image.dropout = 0.1


def use_texts(config: ConfigDict, *, tokens: int = 128) -> None:
    """Texts as word pieces learned from the training texts, and a transformer beside their n-grams."""
    config.data.tokenizer, config.data.vocab_size, config.data.text_length = "word_piece", 8000, tokens
    text = config.model.text
    text.width, text.depth, text.num_heads, text.mlp_ratio = 256, 4, 4, 4
    text.dropout = 0.1
