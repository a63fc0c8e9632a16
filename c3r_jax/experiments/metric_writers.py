"""Where metrics and figures go besides ``metrics.jsonl``: TensorBoard, W&B, MLflow, behind one interface."""

import importlib
import importlib.util
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from c3r_jax.errors import ConfigError
from c3r_jax.experiments.tensorboard import Events


class Writer(Protocol):
    """Where training and evaluation write to: any object with these three methods."""

    def scalars(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """Writes the metrics of one step; ``split`` is "train" or "validation"."""
        ...

    def image(self, name: str, path: pathlib.Path, step: int) -> None:
        """Writes a figure, a PNG file."""
        ...

    def close(self) -> None:
        """Writes what is still buffered."""
        ...


class TensorBoardWriter:
    """Event files in ``workdir/tensorboard``.

    Args:
      workdir: the run's directory.
      config: not used.
      after: last step of an earlier attempt to keep; None: keep all.
    """

    def __init__(self, workdir: pathlib.Path, config: Mapping[str, Any], after: int | None):
        self._events = Events(workdir / "tensorboard", None if after is None else after + 1)

    def scalars(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """One event."""
        self._events.write(step, {f"{split}/{name}": value for name, value in values.items()})

    def image(self, name: str, path: pathlib.Path, step: int) -> None:
        """One image event."""
        self._events.image(step, name, path)

    def close(self) -> None:
        """Closes the file."""
        self._events.close()


class WandbWriter:
    """A run of Weights & Biases, the same whenever the workdir is reopened; environment variables set project and mode.

    Args:
      workdir: the run's directory.
      config: the run's configuration, as a dict.
      after: not used: steps logged before are kept.
    """

    def __init__(self, workdir: pathlib.Path, config: Mapping[str, Any], after: int | None):
        self._wandb = _imported("wandb")
        known = _saved_id(workdir / "wandb_id")
        self._run = self._wandb.init(
            dir=str(workdir), name=workdir.name, id=known, resume="allow" if known else None, config=dict(config)
        )
        (workdir / "wandb_id").write_text(self._run.id, encoding="utf-8")

    def scalars(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """One row."""
        self._run.log({f"{split}/{name}": value for name, value in values.items()}, step=step)

    def image(self, name: str, path: pathlib.Path, step: int) -> None:
        """One image, at the newest step: W&B takes no earlier ones."""
        self._run.log({name: self._wandb.Image(str(path), caption=f"step {step}")})

    def close(self) -> None:
        """Ends the run."""
        self._run.finish()


class MlflowWriter:
    """A run of MLflow, the same whenever the workdir is reopened; environment variables set server and experiment.

    Args:
      workdir: the run's directory.
      config: the run's configuration, as a dict; saved as the artifact config.json.
      after: not used: steps logged before are kept.
    """

    def __init__(self, workdir: pathlib.Path, config: Mapping[str, Any], after: int | None):
        self._mlflow = _imported("mlflow")
        known = _saved_id(workdir / "mlflow_id")
        run = self._mlflow.start_run(run_id=known) if known else self._mlflow.start_run(run_name=workdir.name)
        (workdir / "mlflow_id").write_text(run.info.run_id, encoding="utf-8")
        if known is None:
            self._mlflow.log_dict(dict(config), "config.json")

    def scalars(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """One metric per value."""
        self._mlflow.log_metrics({f"{split}/{name}": value for name, value in values.items()}, step=step)

    def image(self, name: str, path: pathlib.Path, step: int) -> None:
        """One artifact."""
        self._mlflow.log_artifact(str(path), artifact_path=str(pathlib.PurePosixPath(name).parent))

    def close(self) -> None:
        """Ends the run."""
        self._mlflow.end_run()


WRITERS = {"tensorboard": TensorBoardWriter, "wandb": WandbWriter, "mlflow": MlflowWriter}
MODULES = {"tensorboard": "tensorboardX", "wandb": "wandb", "mlflow": "mlflow"}


def check_writers(names: Sequence[str]) -> None:
    """Refuses writers that cannot be used, before any work.

    Raises:
      ConfigError: a name is unknown, or its package is not installed.
    """
    for name in names:
        if name not in WRITERS:
            raise ConfigError(f"config.train.writers has {name!r}: expected any of {', '.join(WRITERS)}.")
        if not installed(name):
            raise ConfigError(
                f"config.train.writers has {name!r}, but the package {MODULES[name]} is not installed: pip install "
                f"{MODULES[name]}, or leave it out."
            )


def installed(name: str) -> bool:
    """Whether a writer's package can be imported; it is not imported."""
    return importlib.util.find_spec(MODULES[name]) is not None


def open_writers(
    names: Sequence[str], workdir: pathlib.Path, config_text: str, after: int | None = None
) -> list[Writer]:
    """The writers of a run.

    Args:
      names: some of :data:`WRITERS`.
      workdir: the run's directory.
      config_text: the run's configuration as JSON.
      after: last step of an earlier attempt to keep; None: keep all.
    """
    return [WRITERS[name](workdir, json.loads(config_text), after) for name in names]


def write_figures(names: Sequence[str], workdir: pathlib.Path, figures: Mapping[str, pathlib.Path], step: int) -> None:
    """Writes figures to a run's writers; writers that are not installed here are left out.

    Args:
      names: the writers the run was trained with, some of :data:`WRITERS`.
      workdir: the run's directory, with its config.json.
      figures: name with slashes -> PNG file.
      step: the checkpoint's step.
    """
    usable = [name for name in names if name in WRITERS and installed(name)]
    for writer in open_writers(usable, workdir, (workdir / "config.json").read_text(encoding="utf-8")):
        for name, path in figures.items():
            writer.image(name, path, step)
        writer.close()


def _imported(name: str) -> Any:
    """A writer's package, imported only when used: an import can take seconds."""
    return importlib.import_module(MODULES[name])


def _saved_id(path: pathlib.Path) -> str | None:
    return path.read_text(encoding="utf-8").strip() if path.exists() else None
