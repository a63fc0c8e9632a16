"""Everything that can be set in a study, with its defaults: what a sweep's configuration is read into."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from c3r_jax.data.sets.structural import MODELS
from c3r_jax.errors import ConfigError
from c3r_jax.settings.fields import Part, defaults, part, read, setting

SELECTIONS = ("validation_accuracy", "validation_risk", "oracle")


@dataclasses.dataclass(frozen=True)
class WorldSettings(Part, place="data"):
    """The structural models that runs are trained on."""

    worlds: tuple[str, ...] = setting(("confounded", "anticausal"), 'Structural models; also "null".')
    num_modalities: int = setting(2, "Modalities of each.")
    positive_share: float = setting(0.5, "Share of rows of the second class.")
    environments: tuple[float, ...] = setting(
        (),
        "Training rows (and those of validation and same) take turns between environments with cues of these "
        "strengths, relative to the model's; empty: all as the model says.",
    )
    num_train: int = setting(4000, "Training rows.", least=100)
    num_eval: int = setting(2000, "Rows of validation and of each test.", least=100)


@dataclasses.dataclass(frozen=True)
class NetworkSettings(Part, place="model"):
    """The network of structural models."""

    hidden: tuple[int, ...] = setting((64,), "Widths of the hidden layers of each encoder.")
    dim: int = setting(16, "Width of every representation.", least=1)


@dataclasses.dataclass(frozen=True)
class BudgetSettings(Part, place="train"):
    """How runs on structural models are trained."""

    steps: int = setting(500, "Steps of a run.", least=1)
    batch_size: int = setting(256, "Rows of a batch.", least=2)
    learning_rate: float = setting(2e-3, "Learning rate.", least=0)
    weight_decay: float = setting(1e-3, "Weight decay.", least=0)


@dataclasses.dataclass(frozen=True)
class ExperimentsSettings(Part, place="experiments"):
    """Configurations that are trained and evaluated as train.py and eval.py do, besides structural models.

    Each with the study's fusions, rivals and dropout; C3R is that of the configuration, or of the study's cells.
    """

    names: tuple[str, ...] = setting((), "Configurations to train and evaluate as well, e.g. emoji_shift.")
    seeds: int = setting(1, "Seeds of each.", least=1)
    steps: int = setting(0, "Steps of each; 0: the configuration's own.", least=0)
    path: str = setting("", "Directory of prepared sets.")
    c3r: str = setting(
        "configuration",
        "Whose weights and modes of C3R: the configuration's own, or those of each cell.",
        choices=("configuration", "cells"),
    )
    tuned: bool = setting(True, "False: of a cell's values the middle one alone, without selection.")


@dataclasses.dataclass(frozen=True)
class SweepSettings(Part):
    """The settings of a study, checked.

    Attributes:
      cells: {name: what differs from the defaults}, see :func:`c3r_jax.sweep.grid.read_cells`.
    """

    seeds: int = setting(5, "Seeds of every cell.", least=1)
    baseline: str = setting("plain", "The cell that others are compared with.")
    select_by: str = setting("validation_accuracy", "What chooses among a cell's weights.", choices=SELECTIONS)
    memory_mib: int = setting(2048, "Memory for the runs of one chunk, in MiB.", least=1)
    data: WorldSettings = part(WorldSettings)
    model: NetworkSettings = part(NetworkSettings)
    train: BudgetSettings = part(BudgetSettings)
    experiments: ExperimentsSettings = part(ExperimentsSettings)
    cells: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def default_sweep() -> ConfigDict:
    """The configuration of a study without cells.

    Examples:
      >>> default_sweep().seeds
      5
    """
    return ConfigDict(defaults(SweepSettings) | {"cells": {}})


def read_sweep(config: ConfigDict) -> SweepSettings:
    """Reads a study's configuration, and checks all of it but its cells.

    Args:
      config: the whole configuration.

    Raises:
      ConfigError: naming the leaf.

    Examples:
      >>> read_sweep(default_sweep()) == SweepSettings()
      True
    """
    given = dict(config.items())
    if "cells" not in given:
        raise ConfigError(
            "--config names the configuration of a run, but that of a study was expected, such as sweeps/ablation: "
            "train a run with c3r train."
        )
    # As JSON, cells keep the order they were written in.
    cells = json.loads(given.pop("cells").to_json())
    settings = dataclasses.replace(read(SweepSettings, given), cells=cells)
    data = settings.data
    if any(width < 1 for width in settings.model.hidden):
        raise ConfigError(f"config.model.hidden is {settings.model.hidden}: expected widths of at least 1.")
    if any(strength < 0 for strength in data.environments):
        raise ConfigError(
            f"config.data.environments are {data.environments}: expected numbers >= 0, the strength of the cues in "
            "each environment relative to the model's, or none."
        )
    if not data.worlds and not settings.experiments.names:
        raise ConfigError(
            "config.data.worlds is empty: name at least one structural model, or config.experiments.names."
        )
    for world in data.worlds:
        if world not in MODELS:
            raise ConfigError(f"config.data.worlds has {world!r}: expected some of {', '.join(MODELS)}.")
    return settings
