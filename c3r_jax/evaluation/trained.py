"""A trained run, opened again: its experiment, its best parameters, its instrument's exact moments."""

import os
import pathlib
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from c3r_jax.core.instrument import Moments
from c3r_jax.models.twin import rows_of
from c3r_jax.training.checkpoints import Checkpoints
from c3r_jax.training.experiment import (
    Experiment,
    build_experiment,
    encode_each,
    encoded_batches,
    without_encoders,
)
from c3r_jax.training.workdir import read_config


def as_evaluated(config: ConfigDict) -> ConfigDict:
    """The configuration without what is of training alone: chunks, crops of volumes, a mesh of other machines."""
    config.train.accumulation = 1
    if config.eval.whole_volumes:
        config.data.volume_size = ()
    shared = config.parallel.fsdp * config.parallel.tensor
    if jax.device_count() % shared or jax.local_device_count() % config.parallel.tensor:
        # Trained on other machines: here all devices share what they hold.
        config.parallel.fsdp, config.parallel.tensor = jax.device_count(), 1
    return config


def open_run(workdir: str | os.PathLike[str], split: str | None = None) -> Experiment:
    """The experiment of a run, as evaluation sees it.

    Args:
      workdir: a directory made by training.
      split: another split than ``config.eval.split``.

    Raises:
      WorkdirError, DataError, ConfigError: if something needed is missing or damaged.
    """
    path = pathlib.Path(workdir)
    config = as_evaluated(read_config(path))
    if split is not None:
        config.eval.split = split
    saved = [path / name for name in ("tokenizer.json", "standardisation.json")]
    return build_experiment(config, *(file.read_text(encoding="utf-8") if file.exists() else None for file in saved))


def restore_best(experiment: Experiment, workdir: str | os.PathLike[str]) -> tuple[int, Any]:
    """Step and parameters (on the devices) of the best checkpoint.

    Raises:
      CheckpointError: if none can be read.
    """
    checkpoints = Checkpoints(pathlib.Path(workdir), experiment.config.train.keep_last, reading=True)
    template = experiment.devices.template(experiment.state_maker())
    step, state, _ = checkpoints.restore(checkpoints.best_first, template)
    checkpoints.close()
    return step, experiment.devices.put(state.evaluated)


def training_moments(experiment: Experiment, params: Any) -> Moments | None:
    """The instrument's exact moments over the training split, batch by batch; None without an instrument.

    Args:
      experiment: the run.
      params: on the devices.
    """
    after_encoders, moments = experiment.devices.host(without_encoders(params)), None
    for maps, present, _, _ in encode_each(experiment, params, encoded_batches(experiment, params, "train")):
        h, (present,) = rows_of(maps, present)
        moments = experiment.branches.measure_moments(after_encoders, h, np.asarray(present), moments)
    return moments
