"""Where metrics and figures go besides ``metrics.jsonl``: TensorBoard, W&B, MLflow, behind one interface."""

import importlib
import importlib.util
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from c3r_jax.errors import ConfigError
from c3r_jax.training.events import Events


class Writer(Protocol):
    """What training and evaluation write to; anything with these three will do."""

    def scalars(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """Takes the metrics of one step; ``split`` is "train" or "validation"."""
        ...

    def image(self, name: str, path: pathlib.Path, step: int) -> None:
        """Takes a figure, a PNG file."""
        ...

    def close(self) -> None:
        """Writes what is not written yet."""
        ...


class TensorBoardWriter:
    """Event files in ``workdir/tensorboard``.

    Args:
      workdir: of the run.
      config: not used.
      after: last step that is kept of an earlier attempt; None: all are.
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
    """A run of Weights & Biases, the same one whenever the workdir is opened again; project and mode by its variables.

    Args:
      workdir: of the run.
      config: of the run, as a dict.
      after: not used: steps that were logged before are kept.
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
        """One image, at the newest step: earlier ones are closed."""
        self._run.log({name: self._wandb.Image(str(path), caption=f"step {step}")})

    def close(self) -> None:
        """Ends the run."""
        self._run.finish()


class MlflowWriter:
    """A run of MLflow, the same one whenever the workdir is opened again; server and experiment by its variables.

    Args:
      workdir: of the run.
      config: of the run, as a dict; kept as the artifact config.json.
      after: not used: steps that were logged before are kept.
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
    """Tells before any work what cannot be written to.

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
      names: of :data:`WRITERS`.
      workdir: of the run.
      config_text: its configuration as JSON.
      after: last step that is kept of an earlier attempt; None: all are.
    """
    return [WRITERS[name](workdir, json.loads(config_text), after) for name in names]


def write_figures(names: Sequence[str], workdir: pathlib.Path, figures: Mapping[str, pathlib.Path], step: int) -> None:
    """Gives figures to a run's writers, of which those that are not installed here are left out.

    Args:
      names: of :data:`WRITERS`, as the run was trained with.
      workdir: of the run; its config.json goes along.
      figures: name with slashes -> PNG file.
      step: of the checkpoint they are about.
    """
    here = [name for name in names if name in WRITERS and installed(name)]
    for writer in open_writers(here, workdir, (workdir / "config.json").read_text(encoding="utf-8")):
        for name, path in figures.items():
            writer.image(name, path, step)
        writer.close()


def _imported(name: str) -> Any:
    """A writer's package, imported only where it is written to: that takes up to seconds."""
    return importlib.import_module(MODULES[name])


def _saved_id(path: pathlib.Path) -> str | None:
    return path.read_text(encoding="utf-8").strip() if path.exists() else None
