"""What a configuration must hold to be run, checked before any long work."""

from ml_collections import ConfigDict

from c3r_jax.data.source import DatasetInfo
from c3r_jax.errors import ConfigError
from c3r_jax.evaluation.scores import BINARY_SCORES, TASK_SCORES
from c3r_jax.training.frozen import check_pretrained
from c3r_jax.training.method import LABELLED


def check_ranges(config: ConfigDict, splits: tuple[str, ...]) -> None:
    """Refuses values out of range that nothing else refuses.

    Args:
      config: the whole configuration.
      splits: of the data set, "train" first.

    Raises:
      ConfigError: naming the leaf.
    """
    check_pretrained(config)
    train, evaluation = config.train, config.eval
    for name, value, least in (
        ("seed", config.seed, 0),
        ("data.text_length", config.data.text_length, 1),
        ("model.dim", config.model.dim, 1),
        ("train.steps", train.steps, 1),
        ("train.eval_every", train.eval_every, 1),
        ("train.log_every", train.log_every, 1),
        ("train.patience", train.patience, 0),
        ("train.keep_last", train.keep_last, 1),
        ("train.accumulation", train.accumulation, 1),
        ("train.skip_non_finite", train.skip_non_finite, 0),
        ("eval.num_bins", evaluation.num_bins, 1),
        ("eval.noise_seed", evaluation.noise_seed, 0),
    ):
        if value < least:
            raise ConfigError(f"config.{name} is {value}: expected a whole number of at least {least}.")
    if not 0 <= train.moments_decay < 1:
        raise ConfigError(f"config.train.moments_decay is {train.moments_decay}: expected 0 <= decay < 1.")
    if not 0 <= train.ema_decay < 1:
        raise ConfigError(f"config.train.ema_decay is {train.ema_decay}: expected 0 (off) <= decay < 1.")
    if not train.spike >= 0:
        raise ConfigError(f"config.train.spike is {train.spike}: expected 0 (off) or a positive number.")
    scores = [name for name in TASK_SCORES.get(config.task, ()) if name != "accuracy"]
    if train.select_by.removeprefix("mean_") not in ("accuracy", *scores):
        more = f", or {', '.join(scores)}, each also with 'mean_'" if scores else ""
        raise ConfigError(
            f"config.train.select_by is {train.select_by!r}: expected 'accuracy' or 'mean_accuracy' (over modality "
            f"subsets){more}."
        )
    if config.data.resize and config.data.resize < config.data.image_size:
        raise ConfigError(
            f"config.data.resize is {config.data.resize}: expected 0 (off) or at least config.data.image_size, "
            f"{config.data.image_size}."
        )
    if evaluation.split == "train" or evaluation.split not in splits:
        raise ConfigError(f"config.eval.split is {evaluation.split!r}: expected one of {', '.join(splits[1:])}.")


def check_data(config: ConfigDict, info: DatasetInfo) -> None:
    """Refuses a task, or a score to choose by, that is not the data set's.

    Args:
      config: the whole configuration.
      info: of the training split.

    Raises:
      ConfigError: naming the leaf.
    """
    if config.task in LABELLED and config.task != info.task:
        raise ConfigError(
            f"config.task is {config.task!r}, but data set {info.name!r} has labels for {info.task!r}: set "
            f"config.task={info.task!r}."
        )
    if config.train.select_by.removeprefix("mean_") in BINARY_SCORES and info.num_classes != 2:
        raise ConfigError(
            f"config.train.select_by is {config.train.select_by!r}, which is for two classes, but data set "
            f"{info.name!r} has {info.num_classes}: choose another score."
        )
