"""A run's directory: its configuration, tokeniser and metrics, written so that a kill at any moment loses nothing."""

import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from absl import logging
from ml_collections import ConfigDict

from c3r_jax.configurations import base_config
from c3r_jax.errors import WorkdirError
from c3r_jax.parallel.hosts import barrier, is_primary
from c3r_jax.training.writers import open_writers

RESULTS = "results.json"
FREE = ("parallel.", "train.accumulation", "model.remat", "data.num_workers", "train.writers")  # may change later


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes a file whole or not at all: to a neighbour, flushed to disk, then renamed."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise WorkdirError(
            f"{path} cannot be written ({error.strerror}): free space or choose another workdir."
        ) from error


def config_text(config: ConfigDict) -> str:
    """The configuration as canonical JSON."""
    return json.dumps(json.loads(config.to_json()), indent=2, sort_keys=True)


def open_workdir(workdir: str | os.PathLike[str], config: ConfigDict) -> pathlib.Path:
    """Makes or reopens a workdir for training.

    Args:
      workdir: the directory.
      config: the configuration; must equal the one the directory was made with, but for :data:`FREE`, which says how
        the work is done and not what comes out.

    Returns:
      Its path.

    Raises:
      WorkdirError: if it cannot be written, or belongs to a run of another configuration (naming the leaves).
    """
    path = pathlib.Path(workdir)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WorkdirError(f"workdir {path} cannot be made ({error.strerror}): choose another place.") from error
    saved = path / "config.json"
    barrier("workdir made")  # no process looks for what another is about to write
    if saved.exists():
        given, defaults = flatten(json.loads(config_text(config))), _defaults()
        # A study has leaves of its own, for which configs/base.py has no defaults.
        known = defaults if given.keys() <= defaults.keys() else {}
        differences = _differences(flatten(_read(path, known).to_dict()), given)
        if differences:
            raise WorkdirError(
                f"workdir {path} holds a run of another configuration ({'; '.join(differences)}): use another workdir, "
                "or the same values to go on with that run."
            )
    barrier("workdir compared")
    if is_primary():
        write_text(saved, config_text(config))  # also the proof that the place can be written, before any long work
    barrier("workdir written")
    return path


def read_config(workdir: str | os.PathLike[str]) -> ConfigDict:
    """Reads the configuration of an existing run; leaves that are younger than the run have their default.

    A new leaf's default in ``configs/base.py`` is what was done before it existed.

    Raises:
      WorkdirError: if there is none, it is damaged, or has leaves that nothing here reads.
    """
    return _read(pathlib.Path(workdir), _defaults())


def _read(workdir: pathlib.Path, defaults: dict[str, Any]) -> ConfigDict:
    """As :func:`read_config`, with these leaves known, each with its default; none: whatever is there is known."""
    path = workdir / "config.json"
    try:
        written = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(written, dict):
            raise ValueError(f"it holds a {type(written).__name__}, but an object was expected")
    except FileNotFoundError as error:
        raise WorkdirError(f"{path} does not exist: give the workdir of a run made by train.py.") from error
    except (OSError, ValueError) as error:
        raise WorkdirError(f"{path} cannot be read ({error}): restore it, or train in a new workdir.") from error
    saved = flatten(written)
    defaults = defaults or saved
    unknown = sorted(saved.keys() - defaults.keys())
    if unknown:
        raise WorkdirError(
            f"{path} sets {', '.join(f'config.{name}' for name in unknown)}, which this version does not know: use the "
            "version that made the run, or train in a new workdir."
        )
    missing = sorted(defaults.keys() - saved.keys())
    if missing:
        logging.warning(
            "%s is older than %s: the defaults are used.",
            path,
            ", ".join(f"config.{name}={defaults[name]!r}" for name in missing),
        )
    return _nested({**saved, **{name: defaults[name] for name in missing}})


def _defaults() -> dict[str, Any]:
    """Leaves of the base configuration, as JSON has them; none where the package was copied without it."""
    base = base_config()
    return {} if base is None else flatten(json.loads(config_text(base)))


def _nested(leaves: dict[str, Any]) -> ConfigDict:
    tree: dict[str, Any] = {}
    for name, value in leaves.items():
        *parents, last = name.split(".")
        part = tree
        for parent in parents:
            part = part.setdefault(parent, {})
        part[last] = value
    return ConfigDict(tree)


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Leaves of nested dicts by dotted name; tuples as lists, as JSON has them."""
    leaves = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            leaves |= flatten(value, f"{prefix}{name}.")
        else:
            leaves[prefix + name] = list(value) if isinstance(value, tuple) else value
    return leaves


def _differences(saved: dict[str, Any], given: dict[str, Any]) -> list[str]:
    nothing = object()
    return [
        f"config.{name}: {saved.get(name, 'absent')!r} there, {given.get(name, 'absent')!r} given"
        for name in sorted(saved.keys() | given.keys())
        if saved.get(name, nothing) != given.get(name, nothing) and not name.startswith(FREE)
    ]


class MetricsLog:
    """``metrics.jsonl``, one object per line (step, split, values), and the run's writers beside it.

    Args:
      workdir: the run's directory, with its configuration.
      after: last step that is kept of an earlier attempt; later lines are dropped, so that nothing repeats.
      validated: last step whose validation is kept; the next one is still to be made.
      writers: names of ``c3r_jax.training.writers.WRITERS``.
    """

    def __init__(self, workdir: pathlib.Path, after: int, validated: int, writers: Sequence[str] = ()):
        self.path = workdir / "metrics.jsonl"
        last = {"validation": validated}
        kept = [line for line in read_history(workdir) if line["step"] <= last.get(line["split"], after)]
        write_text(self.path, "".join(json.dumps(line) + "\n" for line in kept))
        self._file = open(self.path, "a", encoding="utf-8")  # open as long as the run
        config = (workdir / "config.json").read_text(encoding="utf-8")
        self._writers = open_writers(writers, workdir, config, after)

    def write(self, step: int, split: str, values: dict[str, float]) -> None:
        """Appends one line, and tells the writers."""
        self._file.write(json.dumps({"step": step, "split": split, "values": values}) + "\n")
        self._file.flush()
        for writer in self._writers:
            writer.scalars(step, split, values)

    def close(self) -> None:
        """Flushes all."""
        self._file.close()
        for writer in self._writers:
            writer.close()


class NoLog:
    """Stands in for :class:`MetricsLog` in all processes but one."""

    def write(self, step: int, split: str, values: dict[str, float]) -> None:
        """Writes nothing."""

    def close(self) -> None:
        """Has nothing to close."""


def read_history(workdir: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Reads ``metrics.jsonl``; a last line cut short by a kill is left out, any other damaged one is told of."""
    path = pathlib.Path(workdir) / "metrics.jsonl"
    if not path.exists():
        return []
    try:
        written = path.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError as error:
        raise WorkdirError(f"{path} cannot be read ({error.strerror}): check the place.") from error
    lines = [_history_line(line) for line in written]
    damaged = [str(number) for number, line in enumerate(lines[:-1], start=1) if line is None]
    if damaged:
        logging.warning("%s is damaged in line %s: what was there is lost.", path, ", ".join(damaged))
    return [line for line in lines if line is not None]


def _history_line(text: str) -> dict[str, Any] | None:
    """One object of ``metrics.jsonl``, or None if the line is none."""
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        return None
    kinds = {"step": int, "split": str, "values": dict}
    whole = isinstance(line, dict) and all(isinstance(line.get(name), kind) for name, kind in kinds.items())
    return line if whole else None
