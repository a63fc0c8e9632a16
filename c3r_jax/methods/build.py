"""Builds methods from a configuration or from values."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from c3r_jax.core.config import C3RConfig
from c3r_jax.core.tasks.base import Task
from c3r_jax.core.tasks.classification import CLASSIFICATION
from c3r_jax.errors import ConfigError
from c3r_jax.methods.method import METHODS, Method
from c3r_jax.methods.registry import RIVALS, check_fusion, make_rival
from c3r_jax.methods.rival import NO_RIVAL, Rival
from c3r_jax.methods.target import build_target
from c3r_jax.settings.method import ModalityDropoutSettings
from c3r_jax.tasks.registry import named


@dataclasses.dataclass(frozen=True)
class MethodSettings:
    """What a method is built from.

    Attributes:
      method: one of :data:`METHODS`.
      task: name of the task.
      modality_dropout: whether and how often modalities are dropped.
      c3r: weights and modes, without a prior, which comes from the training labels.
      rival: {leaf: value} of ``config.rival``.
      task_settings: {leaf: value} of the configuration's part named after the task; {}: there is none.
      fusion: the network's fusion.
    """

    method: str
    task: str
    modality_dropout: ModalityDropoutSettings
    c3r: C3RConfig
    rival: Mapping[str, Any]
    task_settings: Mapping[str, Any]
    fusion: str


def build_method(settings: MethodSettings, labels: np.ndarray, num_classes: int, environments: int = 0) -> Method:
    """Builds a method and its task.

    Args:
      settings: settings of both.
      labels: the training labels (for masks, a sample of them), for the prior of necessity "kl" and class weights.
      num_classes: K.
      environments: number of environments that training examples come from; 0: they are not known.

    Returns:
      :class:`Method`.

    Raises:
      ConfigError: on an unknown task or method, a contradictory dropout switch or a bad C3R field.
      DataError: the labels of a regression do not vary.
    """
    method, task, smoothing = settings.method, named(settings.task), settings.c3r.label_smoothing
    if method not in METHODS:
        raise ConfigError(f"config.method is {method!r}: expected one of {', '.join(METHODS)}.")
    switch, rate = settings.modality_dropout.switch, settings.modality_dropout.rate
    dropped = switch == "on" or (switch == "auto" and method == "modality_dropout")
    if method == "modality_dropout" and not dropped:
        raise ConfigError(
            "config.modality_dropout.switch is 'off', but config.method is 'modality_dropout': use method 'plain'."
        )
    if task.contrastive and dropped:
        raise ConfigError(
            f"config.task is {task.name!r}, which matches an example's modalities with each other, but "
            "modality_dropout would remove them: use method 'plain' or 'c3r' with modality_dropout.switch='off'."
        )
    if not (task.has_classes or task.contrastive) and smoothing:
        raise ConfigError(
            f"config.train.label_smoothing is {smoothing}, but numbers have no classes to smooth: use 0 for "
            f"{task.name}."
        )
    target, prior = build_target(task, settings.task_settings, np.asarray(labels), num_classes)
    try:
        # The labels of a matching are the examples themselves, which no configuration smooths.
        c3r = dataclasses.replace(settings.c3r, prior=prior, label_smoothing=0.0 if task.contrastive else smoothing)
    except ValueError as error:
        raise ConfigError(f"config.c3r cannot be used: {error}") from error
    return make_method(
        c3r,
        regularised=method == "c3r",
        dropout_rate=float(rate) if dropped else None,
        task=task.name,
        target=target,
        rival=build_rival(settings, environments),
    )


def make_method(
    c3r: C3RConfig,
    *,
    regularised: bool,
    dropout_rate: float | None = None,
    task: str = CLASSIFICATION.spec.name,
    target: Task = CLASSIFICATION,
    official: bool = False,
    rival: Rival = NO_RIVAL,
) -> Method:
    """Builds a method from its parts, with its name; train.py, the estimator and sweeps all use it.

    Args:
      c3r: weights and modes.
      regularised: whether C3R terms are trained on.
      dropout_rate: share of training examples that lose some of their modalities; None: without modality dropout.
      task: name of the task.
      target: the task's losses and correctness.
      official: train on the public PyTorch code's objective instead.
      rival: a rival to train with.

    Examples:
      >>> make_method(C3RConfig(), regularised=True, dropout_rate=0.4).name
      'c3r+dropout'
    """
    name = "c3r" if regularised else "plain"
    if dropout_rate is not None:
        name = "c3r+dropout" if regularised else "dropout"
    if rival.name != NO_RIVAL.name:
        name = rival.name if name == "plain" else f"{rival.name}+{name}"
    return Method(name, regularised, c3r, dropout_rate or 0.0, task, target, official, rival)


def build_rival(settings: MethodSettings, environments: int = 0) -> Rival:
    """The configured rival, checked against the task, the data and the fusion.

    Args:
      settings: settings of the method.
      environments: number of environments that training examples come from; 0: they are not known.

    Raises:
      ConfigError: on a value that cannot be used, or a rival that does not fit the task, the data or the fusion.
    """
    name, fusion = settings.rival["name"], settings.fusion
    known = RIVALS.get(name)
    if known is not None and known.needs_environments and environments < 2:
        raise ConfigError(
            f"config.rival.name is {name!r}, which compares environments, but the training examples are from "
            f"{environments} known ones, expected at least 2: use a data set with a column of environments, such as "
            "watch (subjects), or choose another of its columns by config.data.environments."
        )
    if known is not None and known.tasks and settings.task not in known.tasks:
        raise ConfigError(
            f"config.rival.name is {name!r}, but config.task is {settings.task!r}: it is for {', '.join(known.tasks)}."
        )
    check_fusion(name, fusion)
    try:
        return make_rival(fusion=fusion, environments=environments, **settings.rival)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"config.rival cannot be used: {error}") from error
