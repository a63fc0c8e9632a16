"""What a sweep consists of: cells (what is trained) x weights x seeds, read from its configuration."""

import dataclasses
import itertools
import json
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from c3r_jax.core.regularizer import C3RConfig
from c3r_jax.data.structural import MODELS, StructuralModel
from c3r_jax.errors import ConfigError
from c3r_jax.estimator.compiled import WEIGHTS, Structure, structure_of, weights_of
from c3r_jax.models.build import build_fusion
from c3r_jax.rivals.settings import NO_RIVAL, Rival
from c3r_jax.training.method import check_fusion

SELECTIONS = ("validation_accuracy", "validation_risk", "oracle")
CELL_KEYS = ("regularised", "dropout", "official", "fusion", "rival", "strength")

GRID = (*WEIGHTS, "strength")  # what a cell may have several values of


class SweepRun(NamedTuple):
    """One run of a sweep.

    Attributes:
      world: name of the structural model.
      cell: name of the cell.
      weights: {weight: value} of the grid, () where the cell has none of its own.
      seed: of data, parameters and batches.
    """

    world: str
    cell: str
    weights: tuple[tuple[str, float], ...]
    seed: int

    @property
    def label(self) -> str:
        """The cell and its weights, as tables name them."""
        return self.cell + "".join(f" {name}={value:g}" for name, value in self.weights)

    def recorded(self) -> dict[str, Any]:
        """Which run it is, as its record begins."""
        return {
            "world": self.world,
            "cell": self.cell,
            "label": self.label,
            "weights": dict(self.weights),
            "seed": self.seed,
        }


class Cell(NamedTuple):
    """A setting to train.

    Attributes:
      name: as tables call it.
      config: weights and modes.
      regularised: whether C3R terms are trained on.
      dropout: rate of modality dropout.
      grid: {weight: values} to try, beside ``config``.
      official: whether the public PyTorch code's objective is trained on instead.
      fusion: as ``config.model.fusion`` of a run names it.
      rival: another way of training; its strength may be in the grid.
    """

    name: str
    config: C3RConfig
    regularised: bool
    dropout: float
    grid: dict[str, tuple[float, ...]]
    official: bool = False
    fusion: str = "mean"
    rival: Rival = NO_RIVAL

    def runs(self, world: str, seeds: int) -> list[SweepRun]:
        """Every run of this cell in one world."""
        choices = [dict(zip(self.grid, values, strict=True)) for values in itertools.product(*self.grid.values())]
        return [SweepRun(world, self.name, tuple(c.items()), seed) for c in choices for seed in range(seeds)]

    def configured(self, run: SweepRun) -> C3RConfig:
        """The configuration of one of its runs."""
        return dataclasses.replace(self.config, **{k: v for k, v in run.weights if k != "strength"})

    def strength(self, run: SweepRun) -> float:
        """The strength of the rival in one of its runs."""
        return dict(run.weights).get("strength", self.rival.strength)


def read_cells(config: ConfigDict) -> list[Cell]:
    """Reads ``config.cells``: {name: fields of C3RConfig or CELL_KEYS; a weight may be a tuple of values}.

    Args:
      config: the sweep's configuration.

    Raises:
      ConfigError: on an unknown field or a value that cannot be used, naming the cell.
    """
    fields = {field.name for field in dataclasses.fields(C3RConfig)}
    cells = []
    # As JSON, cells keep the order they were written in.
    settings: dict[str, Any]
    for name, settings in json.loads(config.cells.to_json()).items():
        unknown = sorted(set(settings) - fields - set(CELL_KEYS))
        if unknown:
            raise ConfigError(
                f"config.cells[{name!r}] has {unknown[0]!r}: expected a field of C3RConfig, or one of "
                f"{', '.join(CELL_KEYS)}."
            )
        if "prior" in settings:
            settings["prior"] = tuple(settings["prior"])
        regularised, dropout = settings.pop("regularised", True), float(settings.pop("dropout", 0.0))
        official = settings.pop("official", False)
        fusion, rival = settings.pop("fusion", "mean"), settings.pop("rival", "none")
        if official:
            _check_official(name, official, settings, config.data.num_modalities)
            settings, regularised = {"instrument": "none"}, False
        if not isinstance(regularised, bool) or not 0 <= dropout <= 1:
            raise ConfigError(
                f"config.cells[{name!r}] has regularised {regularised!r} and dropout {dropout}: expected True or "
                "False, and a share of 0 to 1."
            )
        grid = {k: tuple(map(float, v)) for k, v in settings.items() if k in GRID and isinstance(v, (tuple, list))}
        if any(not values for values in grid.values()):
            raise ConfigError(f"config.cells[{name!r}] has a weight without any value: give at least one.")
        if settings.get("necessity") == "kl":
            share = float(config.data.positive_share)
            settings.setdefault("prior", (1 - share, share))
        strengths = grid.get("strength", (settings.pop("strength", 1.0),))
        try:
            fixed = C3RConfig(**{k: v for k, v in settings.items() if k not in grid})
            weights = {k: values for k, values in grid.items() if k != "strength"}
            for values in itertools.product(*weights.values()):
                dataclasses.replace(fixed, **dict(zip(weights, values, strict=True)))
            check_fusion(rival, fusion)
            build_fusion(fusion, 1, 2)
            rivals = [Rival(rival, strength, environments=len(config.data.environments)) for strength in strengths]
        except (ValueError, TypeError) as error:
            raise ConfigError(f"config.cells[{name!r}] cannot be used: {error}") from error
        cells.append(Cell(name, fixed, regularised, dropout, grid, official, fusion, rivals[0]))
    if not cells:
        raise ConfigError("config.cells is empty, but at least one cell was expected.")
    return cells


def _check_official(name: str, official: object, settings: dict[str, Any], num_modalities: int) -> None:
    """Refuses settings beside the public code's objective, which has none, and any number of modalities but two."""
    if official is not True or settings or num_modalities != 2:
        raise ConfigError(
            f"config.cells[{name!r}] has official {official!r} with {settings or 'nothing else'} for {num_modalities} "
            "modalities: expected True, nothing else, and config.data.num_modalities=2."
        )


def check_sweep(config: ConfigDict) -> None:
    """Refuses values that cannot be used, before any work.

    Raises:
      ConfigError: naming the leaf.
    """
    for name, least in (
        ("seeds", 1),
        ("data.num_train", 100),
        ("data.num_eval", 100),
        ("train.steps", 1),
        ("train.batch_size", 2),
        ("model.dim", 1),
        ("memory_mib", 1),
        ("experiments.seeds", 1),
        ("experiments.steps", 0),
    ):
        part = config
        for key in name.split("."):
            part = part[key]
        if not isinstance(part, int) or part < least:
            raise ConfigError(f"config.{name} is {part!r}: expected a whole number of at least {least}.")
    if any(strength < 0 for strength in config.data.environments):
        raise ConfigError(
            f"config.data.environments are {config.data.environments}: expected numbers >= 0, the strength of the cues "
            "in each environment relative to the model's, or none."
        )
    if not config.data.worlds and not config.experiments.names:
        raise ConfigError(
            "config.data.worlds is empty: name at least one structural model, or config.experiments.names."
        )
    for world in config.data.worlds:
        if world not in MODELS:
            raise ConfigError(f"config.data.worlds has {world!r}: expected some of {', '.join(MODELS)}.")
    if config.select_by not in SELECTIONS:
        raise ConfigError(f"config.select_by is {config.select_by!r}: expected one of {', '.join(SELECTIONS)}.")


def world_of(config: ConfigDict, run: SweepRun) -> StructuralModel:
    """The structural model of a run; every seed has its own."""
    data = config.data
    try:
        return StructuralModel(run.world, data.num_modalities, run.seed, data.positive_share)
    except ValueError as error:
        raise ConfigError(f"config.data cannot be used: {error}") from error


def structure(config: ConfigDict, cell: Cell, run: SweepRun) -> Structure:
    """The program a run needs; runs of equal structure are one program."""
    return Structure(
        world_of(config, run).modalities,
        2,
        tuple(config.model.hidden),
        config.model.dim,
        structure_of(cell.configured(run)),
        cell.regularised,
        cell.dropout,
        cell.official,
        cell.fusion,
        dataclasses.replace(cell.rival, strength=1.0),
    )


def weights(cell: Cell, run: SweepRun) -> np.ndarray:
    """The weights of a run and its rival's strength (6,), as the estimator's ``weights_of`` gives them."""
    return weights_of(cell.configured(run), cell.strength(run))
