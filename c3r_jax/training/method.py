"""A training method is a configuration value: which terms count, and whether modalities are dropped."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, PRNGKeyArray
from ml_collections import ConfigDict

from c3r_jax.core.contrastive import CONTRASTIVE_KINDS
from c3r_jax.core.multilabel import MultiLabel
from c3r_jax.core.regression import Regression
from c3r_jax.core.regularizer import C3RConfig
from c3r_jax.core.tasks import CLASSIFICATION, Classification, Task
from c3r_jax.errors import ConfigError, DataError
from c3r_jax.rivals.settings import BY_ENVIRONMENT, NO_RIVAL, WITH_LOSSES, Rival

METHODS = ("plain", "modality_dropout", "c3r")
LABELLED = ("classification", "multilabel", "regression", "segmentation")
TASKS = (*LABELLED, *CONTRASTIVE_KINDS)


class Method(NamedTuple):
    """What a method does.

    Attributes:
      name: "plain", "dropout", "c3r" or "c3r+dropout", as tables call it.
      regularised: whether C3R terms are trained on.
      c3r: weights and modes; the instrument is also measured by methods that do not train on it.
      dropout_rate: share of training examples that lose some of their modalities.
      task: one of :data:`TASKS`; those that are not :data:`LABELLED` are contrastive, and need no labels.
      target: what outputs and labels of a labelled task mean.
      rival: another way of training, alone or joined with C3R's terms.
      official: train on the public PyTorch code's objective instead, see :func:`official_compat_loss`; the model's
        fusion is then :class:`OfficialFusion`.
    """

    name: str
    regularised: bool
    c3r: C3RConfig
    dropout_rate: float
    task: str = TASKS[0]
    target: Task = CLASSIFICATION
    official: bool = False
    rival: Rival = NO_RIVAL

    def without_task(self) -> "Method":
        """This method without the task's loss, where another takes its place."""
        return self._replace(c3r=dataclasses.replace(self.c3r, w_task=0.0))

    @property
    def contrastive(self) -> bool:
        """Whether examples are matched with themselves instead of classified."""
        return self.task not in LABELLED


def build_method(config: ConfigDict, labels: np.ndarray, num_classes: int) -> Method:
    """Reads ``config.task``, ``config.method``, ``config.modality_dropout`` and ``config.c3r``.

    Args:
      config: the whole configuration.
      labels: the training labels (of masks, a sample of them), for the prior of necessity "kl" and class weights.
      num_classes: K.

    Returns:
      :class:`Method`.

    Raises:
      ConfigError: on an unknown task or method, a contradicting dropout switch or a bad C3R field.
      DataError: if labels of a regression do not vary.
    """
    if config.method not in METHODS:
        raise ConfigError(f"config.method is {config.method!r}: expected one of {', '.join(METHODS)}.")
    if config.task not in TASKS:
        raise ConfigError(f"config.task is {config.task!r}: expected one of {', '.join(TASKS)}.")
    switch, rate = config.modality_dropout.switch, config.modality_dropout.rate
    if switch not in ("auto", "on", "off"):
        raise ConfigError(f"config.modality_dropout.switch is {switch!r}: expected 'auto', 'on' or 'off'.")
    if not 0 <= rate <= 1:
        raise ConfigError(f"config.modality_dropout.rate is {rate}: expected a share between 0 and 1.")
    dropped = switch == "on" or (switch == "auto" and config.method == "modality_dropout")
    if config.method == "modality_dropout" and not dropped:
        raise ConfigError(
            "config.modality_dropout.switch is 'off', but config.method is 'modality_dropout': use method 'plain'."
        )
    contrastive = config.task in CONTRASTIVE_KINDS
    if contrastive and dropped:
        raise ConfigError(
            f"config.task is {config.task!r}, which matches an example's modalities with each other, but "
            "modality_dropout would take them away: use method 'plain' or 'c3r' with modality_dropout.switch='off'."
        )
    if contrastive and config.c3r.necessity == "kl":
        raise ConfigError(
            "config.c3r.necessity is 'kl', which needs classes: use 'hinge' or 'log' for contrastive tasks."
        )
    regularised = config.method == "c3r"
    if config.task == "regression" and config.train.label_smoothing:
        raise ConfigError(
            f"config.train.label_smoothing is {config.train.label_smoothing}, but numbers have no classes to smooth: "
            "use 0 for regression."
        )
    target, prior = _target(config, np.asarray(labels), num_classes)
    # The prior comes from the labels, and label smoothing belongs to every method.
    fields = [field.name for field in dataclasses.fields(C3RConfig) if field.name not in ("prior", "label_smoothing")]
    try:
        c3r = C3RConfig(
            **{name: config.c3r[name] for name in fields}, prior=prior, label_smoothing=config.train.label_smoothing
        )
    except ValueError as error:
        raise ConfigError(f"config.c3r cannot be used: {error}") from error
    rival = build_rival(config)
    name = "c3r" if regularised else "plain"
    if dropped:
        name = "c3r+dropout" if regularised else "dropout"
    if rival.name != "none":
        name = rival.name if name == "plain" else f"{rival.name}+{name}"
    return Method(name, regularised, c3r, float(rate) if dropped else 0.0, config.task, target, rival=rival)


def build_rival(config: ConfigDict) -> Rival:
    """Reads ``config.rival``.

    Raises:
      ConfigError: on a value that cannot be used, or a rival that is not for the task, the data or the fusion.
    """
    name, fusion = config.rival.name, config.model.fusion
    if name in BY_ENVIRONMENT:
        raise ConfigError(
            f"config.rival.name is {name!r}, which compares environments, but no data set of train.py says which "
            "environment an example is from: the structural models of configs/sweeps/rivals.py do."
        )
    tasks = ("classification",) if name == "casn" else ("classification", "multilabel", "regression")
    if name != "none" and config.task not in tasks:
        raise ConfigError(
            f"config.rival.name is {name!r}, but config.task is {config.task!r}: it is for {', '.join(tasks)}."
        )
    check_fusion(name, fusion)
    try:
        return Rival(**{field: config.rival[field] for field in config.rival})
    except (TypeError, ValueError) as error:
        raise ConfigError(f"config.rival cannot be used: {error}") from error


def check_fusion(rival: str, fusion: str) -> None:
    """Refuses two losses in one place: fusions that have their own take no other rival."""
    if rival != "none" and fusion in WITH_LOSSES:
        raise ConfigError(
            f"config.rival.name is {rival!r}, but fusion {fusion!r} has a loss of its own: use rival 'none', or "
            "another fusion."
        )


def _target(config: ConfigDict, labels: np.ndarray, num_classes: int) -> tuple[Task, tuple[float, ...] | None]:
    """What outputs and labels mean, and what is known of the training labels, for necessity "kl"."""
    if config.task in CONTRASTIVE_KINDS and (labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer)):
        return CLASSIFICATION, None  # pairs of any data set, whose labels are not looked at
    if config.task == "multilabel":
        return MultiLabel(), tuple(labels.mean(0, dtype=np.float64).tolist())
    if config.task == "regression":
        tolerance = config.regression.tolerance
        if not 0 < tolerance < np.inf:
            raise ConfigError(f"config.regression.tolerance is {tolerance}: expected a positive number, as labels are.")
        mean, sd = float(labels.mean(dtype=np.float64)), float(labels.std(dtype=np.float64))
        if not sd > 0:
            raise DataError(f"all training labels are {mean}: a regression needs labels that vary.")
        return Regression(tolerance=float(tolerance)), (mean, sd)
    shares = np.bincount(labels.ravel(), minlength=num_classes) / labels.size
    if config.task != "segmentation":
        return CLASSIFICATION, tuple(shares.tolist())
    weights = _class_weights(config.segmentation, shares)
    return Classification(class_weights=tuple(weights.tolist())), tuple(
        (weights * shares / (weights @ shares)).tolist()
    )


def _class_weights(config: ConfigDict, shares: np.ndarray) -> np.ndarray:
    """The given weights, or the inverse of the classes' shares, relative to the commonest class and bounded."""
    given = np.asarray(config.class_weights, np.float64)
    if given.size:
        if given.shape != shares.shape or not ((given > 0) & np.isfinite(given)).all():
            raise ConfigError(
                f"config.segmentation.class_weights are {tuple(given.tolist())}: expected a positive number for each "
                f"of {len(shares)} classes, or none."
            )
        return given
    if not 1 <= config.max_weight < np.inf:
        raise ConfigError(f"config.segmentation.max_weight is {config.max_weight}: expected a number of at least 1.")
    return np.minimum(shares.max() / np.maximum(shares, 1e-12), config.max_weight)


def drop_modalities(
    keys: PRNGKeyArray, present: Bool[Array, "batch modalities"], rate: float
) -> Bool[Array, "batch modalities"]:
    """Drops some of the present modalities of a share of the examples, never all of them.

    With probability ``rate`` an example keeps a random non-empty proper subset of its modalities.

    Args:
      keys: (B,) one PRNG key per example, so that a split batch drops the same.
      present: (B, M) bool.
      rate: probability that an example loses any.

    Returns:
      (B, M) bool, a subset of ``present``; an example whose kept modalities are all absent keeps what it has.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> keys = jax.random.split(jax.random.key(0), 1000)
      >>> kept = drop_modalities(keys, jnp.ones((1000, 2), bool), 0.4)
      >>> print(bool(kept.any(1).all()), round(float((~kept.all(1)).mean()), 1))
      True 0.4
    """

    def one(key: Array, have: Array) -> Array:
        chance, bits, pick = jax.random.split(key, 3)
        kept = jax.random.bernoulli(bits, 0.5, have.shape)
        forced = jnp.arange(have.shape[0]) == jax.random.randint(pick, (), 0, have.shape[0])
        kept = jnp.where(kept.any(), kept & ~(kept.all() & forced), forced)
        kept = have & jnp.where(jax.random.bernoulli(chance, rate), kept, True)
        return jnp.where(kept.any(), kept, have)

    return jax.vmap(one)(keys, present)
