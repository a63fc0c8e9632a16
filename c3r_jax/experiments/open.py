"""Reopens a trained run: its experiment, its best parameters, its instrument's exact moments."""

import os
import pathlib
from collections.abc import Iterable
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from c3r_jax.core.moments import Moments
from c3r_jax.errors import DataError
from c3r_jax.experiments.checkpoints import Checkpoints
from c3r_jax.experiments.encode import encode_each, encoded_batches, without_encoders
from c3r_jax.experiments.experiment import Experiment, build_experiment
from c3r_jax.experiments.same_data import check_same_data, trained_on
from c3r_jax.experiments.settings import read_settings
from c3r_jax.experiments.workdir import read_config
from c3r_jax.models.twin import rows_of
from c3r_jax.parallel.strategy import axes_for


def as_evaluated(config: ConfigDict) -> ConfigDict:
    """The configuration without what only training needs: chunks, crops of volumes, a mesh of other machines."""
    settings = read_settings(config)
    config.train.accumulation = 1
    if settings.eval.whole_volumes:
        config.data.volume_size = ()
    # Trained on other machines, parameters may have to be sharded in another way here.
    config.parallel.fsdp, config.parallel.tensor = axes_for(settings.parallel)
    return config


def open_run(workdir: str | os.PathLike[str], split: str | None = None) -> Experiment:
    """The experiment of a run, as evaluation sees it.

    Args:
      workdir: a directory made by training.
      split: a split in place of ``config.eval.split``.

    Raises:
      WorkdirError, DataError, ConfigError: something needed is missing or corrupt, or the training data is not what
        the run was trained on.
    """
    path = pathlib.Path(workdir)
    config = as_evaluated(read_config(path))
    place = config.data.path
    if place and not pathlib.Path(place).exists():
        raise DataError(
            f"config.data.path of the run in {path} is {place!r}, which does not exist: restore it or, if the data was "
            f"moved, write its new place into {path / 'config.json'}; it must be what the run was trained on."
        )
    if split is not None:
        config.eval.split = split
    saved = [path / name for name in ("tokenizer.json", "standardisation.json")]
    texts = (file.read_text(encoding="utf-8") if file.exists() else None for file in saved)
    noted = trained_on(path)
    return build_experiment(config, *texts, check=lambda train: check_same_data(train, noted, path))


def restore_best(experiment: Experiment, workdir: str | os.PathLike[str]) -> tuple[int, Any]:
    """Step and parameters (on the devices) of the best checkpoint.

    Raises:
      CheckpointError: no checkpoint can be read.
    """
    checkpoints = Checkpoints(pathlib.Path(workdir), experiment.settings.train.keep_last, reading=True)
    template = experiment.devices.template(experiment.state_maker())
    step, state, _ = checkpoints.restore(checkpoints.best_first, template)
    checkpoints.close()
    return step, experiment.devices.put(state.evaluated)


def training_moments(
    experiment: Experiment, params: Any, batches: Iterable[dict[str, Any]] | None = None
) -> Moments | None:
    """The instrument's exact moments over the training split, batch by batch; None without an instrument.

    Args:
      experiment: the run.
      params: on the devices.
      batches: of evaluation size, in place of all of the split.
    """
    after_encoders, moments = experiment.devices.host(without_encoders(params)), None
    batches = encoded_batches(experiment, params, "train") if batches is None else batches
    for maps, present, _, _ in encode_each(experiment, params, batches):
        h, (present,) = rows_of(maps, present)
        moments = experiment.branches.measure_moments(after_encoders, h, np.asarray(present), moments)
    return moments
