"""The grid of a sweep: cells (settings to train) x weights x seeds, read from its configuration."""

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from c3r_jax.core.config import C3RConfig
from c3r_jax.data.sets.structural import StructuralModel
from c3r_jax.errors import ConfigError
from c3r_jax.methods.registry import make_rival
from c3r_jax.methods.rival import NO_RIVAL, Rival
from c3r_jax.models.build import build_fusion
from c3r_jax.step.in_memory import WEIGHTS, Structure, structure_of, weights_of
from c3r_jax.sweep.settings import SweepSettings

C3R_STRENGTH = "c3r_strength"  # C3RConfig.strength in a cell, where "strength" is the rival's
CELL_KEYS = ("preset", "row_experts", "regularised", "dropout", "official", "fusion", "rival", "strength", C3R_STRENGTH)

GRID = tuple(C3R_STRENGTH if name == "strength" else name for name in WEIGHTS) + (
    "strength",
)  # may have several values
NUM_CLASSES = 2  # of every structural model
PRESETS = {"default": C3RConfig, "strong": C3RConfig.strong, "hinge": C3RConfig.hinge, "paper": C3RConfig.paper}


class SweepRun(NamedTuple):
    """One run of a sweep.

    Attributes:
      world: name of the structural model.
      cell: name of the cell.
      weights: (weight, value) pairs of the grid, () if the cell has none.
      seed: seed of data, parameters and batches.
    """

    world: str
    cell: str
    weights: tuple[tuple[str, float], ...]
    seed: int

    @property
    def label(self) -> str:
        """The name of cell and weights in tables."""
        return self.cell + "".join(f" {name}={value:g}" for name, value in self.weights)

    def identity(self) -> dict[str, Any]:
        """The first entries of its record, which identify the run."""
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
      name: name in tables.
      config: weights and modes.
      regularised: whether training uses the C3R terms.
      dropout: rate of modality dropout.
      grid: {weight: values} to try, beside ``config``.
      official: whether training uses the objective of the public PyTorch code instead.
      fusion: value of ``config.model.fusion``.
      rival: another training method; its strength may be in the grid.
      row_experts: whether experts are those of all training rows, as the estimator's, instead of each batch's.
    """

    name: str
    config: C3RConfig
    regularised: bool
    dropout: float
    grid: dict[str, tuple[float, ...]]
    official: bool = False
    fusion: str = "mean"
    rival: Rival = NO_RIVAL
    row_experts: bool = False

    @property
    def changes(self) -> set[str]:
        """The fields of C3RConfig that differ from its defaults, beside the grid; the prior is the world's."""
        own, usual = dataclasses.asdict(self.config), dataclasses.asdict(C3RConfig())
        return set() if self.official else {name for name in own if own[name] != usual[name]} - {"prior"}

    def runs(self, world: str, seeds: int) -> list[SweepRun]:
        """All runs of this cell in one world."""
        choices = [dict(zip(self.grid, values, strict=True)) for values in itertools.product(*self.grid.values())]
        return [SweepRun(world, self.name, tuple(c.items()), seed) for c in choices for seed in range(seeds)]

    def configured(self, run: SweepRun) -> C3RConfig:
        """The configuration of one of its runs."""
        return dataclasses.replace(self.config, **_of_config(dict(run.weights)))

    def strength(self, run: SweepRun) -> float:
        """The strength of the rival in one of its runs."""
        return dict(run.weights).get("strength", self.rival.strength)


def _of_config(weights: Mapping[str, Any]) -> dict[str, Any]:
    """The grid's values that are fields of C3RConfig, by the name of the field."""
    own = {name: value for name, value in weights.items() if name != "strength"}
    return {("strength" if name == C3R_STRENGTH else name): value for name, value in own.items()}


def read_cells(settings: SweepSettings) -> list[Cell]:
    """Reads ``config.cells``: {name: fields of C3RConfig or CELL_KEYS; a weight may be a tuple of values}.

    Fields that a cell does not set are those of its ``preset``, by default "default", which is C3RConfig() and has no
    experts: a cell adds them by ``expert``. ``strength`` is the rival's, ``c3r_strength`` C3R's. With ``row_experts``
    experts are computed on all training rows, as the estimator does, and not on each batch.

    Args:
      settings: of the study.

    Raises:
      ConfigError: a field is unknown or a value cannot be used; the message names the cell.
    """
    fields = {field.name for field in dataclasses.fields(C3RConfig)}
    cells = []
    for name, written in settings.cells.items():
        if not isinstance(written, Mapping | ConfigDict):
            raise ConfigError(
                f"config.cells[{name!r}] is {written!r}, but fields were expected, such as {{'lambda_n': 0.5}}."
            )
        own: dict[str, Any] = dict(written)
        unknown = sorted(set(own) - fields - set(CELL_KEYS))
        if unknown:
            raise ConfigError(
                f"config.cells[{name!r}] has {unknown[0]!r}: expected a field of C3RConfig, or one of "
                f"{', '.join(CELL_KEYS)}."
            )
        if "prior" in own:
            own["prior"] = tuple(own["prior"])
        regularised, dropout = own.pop("regularised", True), float(own.pop("dropout", 0.0))
        official = own.pop("official", False)
        fusion, rival = own.pop("fusion", "mean"), own.pop("rival", "none")
        preset, row_experts = own.pop("preset", "default"), own.pop("row_experts", False)
        if preset not in PRESETS or not isinstance(row_experts, bool):
            raise ConfigError(
                f"config.cells[{name!r}] has preset {preset!r} and row_experts {row_experts!r}: expected one of "
                f"{', '.join(PRESETS)}, and True or False."
            )
        if official:
            _check_official(name, official, own, settings.data.num_modalities)
            own, regularised = {"instrument": "none"}, False
        if not isinstance(regularised, bool) or not 0 <= dropout <= 1:
            raise ConfigError(
                f"config.cells[{name!r}] has regularised {regularised!r} and dropout {dropout}: expected True or "
                "False, and a share of 0 to 1."
            )
        grid = {k: tuple(map(float, v)) for k, v in own.items() if k in GRID and isinstance(v, (tuple, list))}
        if any(not values for values in grid.values()):
            raise ConfigError(f"config.cells[{name!r}] has a weight without any value: give at least one.")
        if own.get("necessity") == "kl":
            share = float(settings.data.positive_share)
            own.setdefault("prior", (1 - share, share))
        strengths = grid.get("strength", (own.pop("strength", 1.0),))
        try:
            fixed = PRESETS[preset](**_of_config({k: v for k, v in own.items() if k not in grid}))
            for values in itertools.product(*grid.values()):
                dataclasses.replace(fixed, **_of_config(dict(zip(grid, values, strict=True))))
            build_fusion(fusion, 1, 2)
            environments = len(settings.data.environments)
            rivals = [make_rival(rival, fusion, strength=s, environments=environments) for s in strengths]
        except (ValueError, TypeError) as error:
            raise ConfigError(f"config.cells[{name!r}] cannot be used: {error}") from error
        cells.append(Cell(name, fixed, regularised, dropout, grid, official, fusion, rivals[0], row_experts))
    if not cells:
        raise ConfigError("config.cells is empty, but at least one cell was expected.")
    return cells


def _check_official(name: str, official: object, settings: dict[str, Any], num_modalities: int) -> None:
    """Refuses other settings beside the public code's objective, and any number of modalities except two."""
    if official is not True or settings or num_modalities != 2:
        raise ConfigError(
            f"config.cells[{name!r}] has official {official!r} with {settings or 'nothing else'} for {num_modalities} "
            "modalities: expected True, nothing else, and config.data.num_modalities=2."
        )


def world_of(settings: SweepSettings, run: SweepRun) -> StructuralModel:
    """The structural model of a run; every seed has a different one."""
    data = settings.data
    try:
        return StructuralModel(run.world, data.num_modalities, run.seed, data.positive_share)
    except ValueError as error:
        raise ConfigError(f"config.data cannot be used: {error}") from error


def run_structure(settings: SweepSettings, cell: Cell, run: SweepRun) -> Structure:
    """The structure of a run; runs of equal structure share one program, as do a cell's strengths of C3R."""
    config = cell.configured(run)
    if C3R_STRENGTH in cell.grid:
        config = dataclasses.replace(config, strength=1.0)
    return Structure(
        world_of(settings, run).modalities,
        NUM_CLASSES,
        settings.model.hidden,
        settings.model.dim,
        structure_of(config),
        cell.regularised,
        cell.dropout,
        cell.official,
        cell.fusion,
        dataclasses.replace(cell.rival, strength=1.0),
    )


def run_weights(cell: Cell, run: SweepRun) -> np.ndarray:
    """The weights of a run and its rival's strength (7,), as the estimator's ``weights_of`` gives them."""
    return weights_of(cell.configured(run), cell.strength(run))
