"""All settings of a run in one typed object, read from its configuration before anything else is done."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

from c3r_jax.core.config import C3RConfig
from c3r_jax.errors import ConfigError
from c3r_jax.methods import registry as rivals
from c3r_jax.methods.build import MethodSettings
from c3r_jax.methods.rival import Rival
from c3r_jax.settings.data import DataSettings
from c3r_jax.settings.evaluation import EvalSettings
from c3r_jax.settings.fields import (
    Part,
    as_tuple,
    check,
    defaults,
    part,
    read,
    refuse_unknown,
    setting,
    values_of,
)
from c3r_jax.settings.listing import Leaf, described, documented_leaves, leaves
from c3r_jax.settings.method import ModalityDropoutSettings
from c3r_jax.settings.model import ModelSettings
from c3r_jax.settings.optimizer import OptimizerSettings
from c3r_jax.settings.parallel import ParallelSettings
from c3r_jax.settings.train import TrainSettings
from c3r_jax.tasks.classification import CLASSIFICATION
from c3r_jax.tasks.regression import RegressionSettings
from c3r_jax.tasks.segmentation import SegmentationSettings

NOT_IN_C3R = ("prior", "label_smoothing")  # from the labels, and from config.train.label_smoothing


def c3r_settings() -> list[Leaf]:
    """The leaves of ``config.c3r``."""
    return list(documented_leaves(C3RConfig, "c3r", NOT_IN_C3R))


def rival_settings() -> list[Leaf]:
    """The leaves of ``config.rival``: the rival's name, and the settings of all rivals together."""
    name = Leaf("rival.name", Rival.name, "A rival method, alone or combined with C3R, see docs/rivals.md.", "")
    listed = [name]
    for setting_name, field in rivals.rival_settings().items():
        leaf = described(f"rival.{setting_name}", field)
        listed.append(leaf._replace(meaning=rivals.meaning_of(setting_name)))
    return listed


def _default_values(known: list[Leaf]) -> dict[str, Any]:
    return {leaf.name.rpartition(".")[2]: leaf.default for leaf in known}


@dataclasses.dataclass(frozen=True)
class Settings(Part):
    """The checked settings of a run; every package gets its own part.

    Attributes:
      c3r: weights and modes, with the run's label smoothing; the prior of necessity "kl" comes from the training
        labels, see :func:`c3r_jax.methods.build.build_method`.
      rival: {leaf: value} of ``config.rival``.
    """

    seed: int = setting(0, "Seed of everything that is drawn in training.", least=0)
    task: str = setting(CLASSIFICATION.name, "As the data set's labels are; or a contrastive task, which needs none.")
    method: str = setting("c3r", "What is trained.")
    modality_dropout: ModalityDropoutSettings = part(ModalityDropoutSettings)
    c3r: C3RConfig = C3RConfig()
    regression: RegressionSettings = part(RegressionSettings)
    segmentation: SegmentationSettings = part(SegmentationSettings)
    rival: Mapping[str, Any] = dataclasses.field(default_factory=lambda: _default_values(rival_settings()))
    data: DataSettings = part(DataSettings)
    model: ModelSettings = part(ModelSettings)
    optimizer: OptimizerSettings = part(OptimizerSettings)
    parallel: ParallelSettings = part(ParallelSettings)
    train: TrainSettings = part(TrainSettings)
    eval: EvalSettings = part(EvalSettings)

    @property
    def of_method(self) -> MethodSettings:
        """The settings from which the method and its task are built."""
        return MethodSettings(
            self.method,
            self.task,
            self.modality_dropout,
            self.c3r,
            self.rival,
            values_of(getattr(self, self.task)) if hasattr(self, self.task) else {},
            self.model.fusion,
        )


# Parts that are not a Part themselves: {name: function that lists their leaves}.
OTHERS = {"c3r": c3r_settings, "rival": rival_settings}


def all_leaves() -> Iterator[Leaf]:
    """Every leaf of a run's configuration, part by part."""
    for field in dataclasses.fields(Settings):
        if field.name in OTHERS:
            yield from OTHERS[field.name]()
        else:
            yield from leaves(Settings, only=field.name)


def default_config() -> ConfigDict:
    """The configuration with all defaults; every leaf can be set as ``--config.any.leaf=value``.

    Examples:
      >>> default_config().train.steps
      400
    """
    return ConfigDict(defaults(Settings) | {name: _default_values(listing()) for name, listing in OTHERS.items()})


def read_settings(config: ConfigDict) -> Settings:
    """Reads a configuration, and checks everything that needs no data.

    Args:
      config: the configuration; missing leaves take their default.

    Raises:
      ConfigError: a leaf is unknown or its value cannot be used.

    Examples:
      >>> read_settings(default_config()) == Settings()
      True
    """
    parts = dict(config.items())
    c3r, rival = (_checked(name, parts.pop(name, {}), listing()) for name, listing in OTHERS.items())
    settings = read(Settings, parts)
    return dataclasses.replace(settings, c3r=_read_c3r(c3r, settings.train.label_smoothing), rival=rival)


def _checked(place: str, values: Any, known: list[Leaf]) -> dict[str, Any]:
    """The values of a part that is not a Part, completed with defaults; only their types are checked."""
    default_values = _default_values(known)
    refuse_unknown(place, values, default_values)
    chosen = {name: as_tuple(values[name]) for name in values}
    for name, value in chosen.items():
        check(f"{place}.{name}", value, default_values[name])
    return default_values | chosen


def _read_c3r(values: dict[str, Any], label_smoothing: float) -> C3RConfig:
    try:
        return C3RConfig(**values, label_smoothing=label_smoothing)
    except ValueError as error:
        raise ConfigError(f"config.c3r cannot be used: {error}") from error
