"""Checks of a configuration before any long work."""

from collections.abc import Mapping

import numpy as np

from c3r_jax.data.source import DatasetInfo
from c3r_jax.errors import ConfigError, DataError
from c3r_jax.experiments.settings import Settings
from c3r_jax.metrics.scores import MEAN, WORST_ENVIRONMENT, selected_score
from c3r_jax.models.build import PUBLISHED
from c3r_jax.models.encoders.pretrained.architectures import ARCHITECTURES
from c3r_jax.settings.fields import values_of
from c3r_jax.tasks.registry import named
from c3r_jax.tasks.regression import REGRESSION

COVERED = 0.95  # of the training labels: more within the tolerance of one number, and a constant is correct


def check_settings(settings: Settings, splits: tuple[str, ...]) -> None:
    """Refuses settings that contradict each other, or the data set's splits.

    Args:
      settings: the run's settings.
      splits: the data set's splits, "train" first.

    Raises:
      ConfigError: naming the leaf.
    """
    check_pretrained(settings)
    if settings.seed >= 2**32:
        raise ConfigError(f"config.seed is {settings.seed}: expected a whole number below 2**32.")
    data, select_by, split = settings.data, settings.train.select_by, settings.eval.split
    scores = [name for name in named(settings.task).scores if name != "accuracy"]
    if select_by.removeprefix(MEAN) not in ("accuracy", *scores) and not _by_environment(settings):
        more = f", or {', '.join(scores)}, each also with 'mean_'" if scores else ""
        raise ConfigError(
            f"config.train.select_by is {select_by!r}: expected 'accuracy' or 'mean_accuracy' (over modality "
            f"subsets){more}, or {WORST_ENVIRONMENT!r} before a score."
        )
    if data.resize and data.resize < data.image_size:
        raise ConfigError(
            f"config.data.resize is {data.resize}: expected 0 (off) or at least config.data.image_size, "
            f"{data.image_size}."
        )
    if split == "train" or split not in splits:
        raise ConfigError(f"config.eval.split is {split!r}: expected one of {', '.join(splits[1:])}.")


def _by_environment(settings: Settings) -> bool:
    """Whether a score of the task in the worst environment selects; scores of maps are not kept by environment."""
    task, select_by = named(settings.task), settings.train.select_by
    known = select_by.startswith(WORST_ENVIRONMENT) and selected_score(select_by) in ("accuracy", *task.scores)
    return known and not (task.dense or task.contrastive)


def check_data(settings: Settings, info: DatasetInfo) -> None:
    """Refuses a task or a selection score that does not fit the data set, and a data set of one class or modality.

    Args:
      settings: the run's settings.
      info: description of the training split.

    Raises:
      ConfigError: naming the leaf.
      DataError: there are no two modalities, or no two classes to tell apart.
    """
    task = named(settings.task)
    if not task.contrastive and task.name != info.task:
        raise ConfigError(
            f"config.task is {settings.task!r}, but data set {info.name!r} has labels for {info.task!r}: set "
            f"config.task={info.task!r}."
        )
    if len(info.modalities) < 2:
        raise DataError(
            f"data set {info.name!r} has {', '.join(map(repr, info.modalities))} alone, but runs need two modalities "
            "or more: prepare it again with another modality."
        )
    if task.one_class_per_example and info.num_classes < 2:
        raise DataError(
            f"data set {info.name!r} has the classes {list(info.class_names)}, but at least 2 classes were expected: "
            "prepare it again with examples of other classes, or with other labels."
        )
    if settings.eval.calibrate != "none" and settings.eval.split == "validation":
        raise ConfigError(
            f"config.eval.calibrate is {settings.eval.calibrate!r}, which is fitted on the validation split, and "
            "config.eval.split is 'validation': evaluate another split, or use calibrate='none'."
        )
    if settings.eval.calibrate != "none" and not task.one_class_per_example:
        raise ConfigError(
            f"config.eval.calibrate is {settings.eval.calibrate!r}, which is for one class per example, but "
            f"config.task is {settings.task!r}: set it to 'none'."
        )
    if _by_environment(settings) and not info.environments:
        raise ConfigError(
            f"config.train.select_by is {settings.train.select_by!r}, but data set {info.name!r} does not say which "
            "environment an example is from: choose another score, or prepare the set with a column of environments."
        )
    named_by_phrases = info.class_names and set(info.class_names) <= info.phrases.keys() and "text" in info.modalities
    if selected_score(settings.train.select_by) == "zero_shot" and not named_by_phrases:
        raise ConfigError(
            f"config.train.select_by is {settings.train.select_by!r}, but data set {info.name!r} has no phrases for "
            "its classes, or no text: choose 'retrieval' or 'accuracy'."
        )
    if selected_score(settings.train.select_by) in task.binary_scores and info.num_classes != 2:
        raise ConfigError(
            f"config.train.select_by is {settings.train.select_by!r}, which is for two classes, but data set "
            f"{info.name!r} has {info.num_classes}: choose another score."
        )


def check_tolerance(settings: Settings, labels: np.ndarray) -> None:
    """Refuses a tolerance within which nearly every number counts as correct, or none where that selects checkpoints.

    Args:
      settings: the run's settings.
      labels: of the training split.

    Raises:
      ConfigError: naming the tolerance, what share of the labels it covers, and other settings.
    """
    if (
        named(settings.task) is not REGRESSION or not len(labels) or not np.ptp(labels)
    ):  # of one value: refused elsewhere
        return
    tolerance, centre = settings.regression.tolerance, float(np.median(labels))
    share = float((np.abs(labels - centre) <= tolerance).mean())
    quarter = float(np.std(labels, dtype=np.float64)) / 4
    way = f"a quarter of their standard deviation would be --config.regression.tolerance={quarter:.2g}"
    if share >= COVERED:
        raise ConfigError(
            f"config.regression.tolerance is {tolerance:g}, the error up to which a number counts as correct, but "
            f"{share:.0%} of the training labels are within it of their median, {centre:g}: {way}."
        )
    if share <= 1 - COVERED and selected_score(settings.train.select_by) == "accuracy":
        raise ConfigError(
            f"config.train.select_by is {settings.train.select_by!r}, which counts numbers within "
            f"config.regression.tolerance, {tolerance:g}, of the label, but only {share:.0%} of the training labels "
            f"are within it of their median, {centre:g}: use --config.train.select_by=mean_mae, or {way}."
        )


def check_encoders(settings: Settings, kinds: Mapping[str, str], dataset: str) -> None:
    """Refuses a published encoder for a kind of modality that the data set does not have.

    Args:
      settings: the run's settings.
      kinds: {modality: kind} of the data set.
      dataset: its name.

    Raises:
      ConfigError: naming the leaf.
    """
    encoded = {"image" if kind == "video" else kind for kind in kinds.values()}
    for kind in PUBLISHED:
        part = getattr(settings.model, kind)
        if part.pretrained and kind not in encoded:
            given = f"pretrained {part.pretrained!r}" + (f" and weights {part.weights!r}" if part.weights else "")
            has = ", ".join(f"{name!r} of kind {own!r}" for name, own in kinds.items())
            raise ConfigError(
                f"config.model.{kind} has {given}, but data set {dataset!r} has only {has}: set config.model.KIND of a "
                "modality that is there, or leave these empty."
            )


def check_pretrained(settings: Settings) -> None:
    """Refuses settings of published encoders that contradict each other.

    Args:
      settings: the run's settings.

    Raises:
      ConfigError: naming the leaf.
    """
    frozen = []
    for kind in PUBLISHED:
        part = getattr(settings.model, kind)
        name, weights = part.pretrained, part.weights
        known = [key for key, architecture in ARCHITECTURES.items() if architecture.kind == kind]
        if name and name not in known:
            raise ConfigError(f"config.model.{kind}.pretrained is {name!r}: expected '' or one of {', '.join(known)}.")
        if bool(part.frozen) > bool(name and weights) or bool(weights) > bool(name):
            raise ConfigError(
                f"config.model.{kind} has pretrained {name!r}, weights {weights!r} and frozen {part.frozen}: weights "
                "need an architecture, and a frozen encoder needs weights."
            )
        frozen += [kind] if part.frozen else []
    if settings.train.cache_frozen:
        data, augment = settings.data, values_of(settings.data.augment)
        changes = {
            "image": augment.keys() - {"word_drop", "feature_noise"},
            "text": {"word_drop"},
            "sequence": {"feature_noise"},
        }
        changed = [name for kind in frozen for name in sorted(changes[kind]) if augment[name]]
        cropped = "image" in frozen and data.resize > data.image_size
        if not frozen or changed or cropped or data.train_noise:
            raise ConfigError(
                "config.train.cache_frozen is True, which needs a frozen encoder, no change of its inputs in training "
                f"(now: config.data.augment {', '.join(changed) or 'none'}, random crops by config.data.resize "
                f"{data.resize}, config.data.train_noise {data.train_noise!r}): set it to False."
            )
