"""A run's directory: its configuration, tokeniser and metrics, written so that a kill at any moment loses nothing."""

import json
import os
import pathlib
from collections.abc import Callable
from typing import Any

from absl import logging
from ml_collections import ConfigDict

from c3r_jax.errors import WorkdirError
from c3r_jax.experiments.settings import default_config
from c3r_jax.files.atomic import write_text
from c3r_jax.parallel.hosts import barrier, is_primary

RESULTS = "results.json"
# Leaves that are younger than some runs, and what was done before they existed, where that is not today's default.
BEFORE = {"c3r.expert": 0.0, "c3r.subsets": 0.0, "c3r.cap": 0.0, "c3r.gate": False, "c3r.stage_rows": "complete"}
SWITCHES = {"c3r.subsets": {False: 0.0, True: 0.9}}  # leaves that were switches, and are read as these numbers
MOST_NAMED = 8  # leaves that differ
FREE = (  # may change later
    "parallel.",
    "train.accumulation",
    "model.remat",
    "model.scan_layers",
    "data.num_workers",
    "train.writers",
)


def config_text(config: ConfigDict) -> str:
    """The configuration as canonical JSON."""
    return json.dumps(json.loads(config.to_json()), indent=2, sort_keys=True)


def open_workdir(
    workdir: str | os.PathLike[str],
    config: ConfigDict,
    check: Callable[[], None] = lambda: None,
    *,
    free: tuple[str, ...] = (),
) -> pathlib.Path:
    """Creates or reopens a workdir for training.

    Args:
      workdir: the directory.
      config: the configuration; must equal the directory's, except for :data:`FREE` leaves, which do not change the
        results.
      check: called before anything is written; it raises an error to refuse the run.
      free: further leaves that may differ, as ``check`` compares what they stand for.

    Returns:
      Its path.

    Raises:
      WorkdirError: it cannot be written, or belongs to a run of another configuration (naming the leaves).
    """
    path = pathlib.Path(workdir)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WorkdirError(f"workdir {path} cannot be made ({error.strerror}): choose another place.") from error
    saved = path / "config.json"
    barrier("workdir made")  # no process reads what another is about to write
    if saved.exists():
        wanted, defaults = flatten(json.loads(config_text(config))), _defaults()
        # A study has leaves of its own, which have no defaults.
        known = defaults if wanted.keys() <= defaults.keys() else {}
        differences = _differences(flatten(_read(path, known).to_dict()), wanted, (*FREE, *free))
        if differences:
            more = len(differences) - MOST_NAMED
            listed = "; ".join(differences[:MOST_NAMED]) + (f"; and {more} more" if more > 0 else "")
            raise WorkdirError(
                f"workdir {path} holds a run of another configuration ({listed}): use another workdir, "
                "or the same values to continue that run."
            )
    check()
    barrier("workdir compared")
    if is_primary():
        write_text(saved, config_text(config))  # also proves, before any long work, that the place can be written
    barrier("workdir written")
    return path


def read_config(workdir: str | os.PathLike[str]) -> ConfigDict:
    """Reads the configuration of an existing run; leaves added since then keep the behaviour from before they existed.

    That is their default, or their value in :data:`BEFORE`.

    Raises:
      WorkdirError: the configuration is missing or corrupt, or has leaves that this version does not know.
    """
    return _read(pathlib.Path(workdir), _defaults())


def _read(workdir: pathlib.Path, defaults: dict[str, Any]) -> ConfigDict:
    """As :func:`read_config`, for known leaves with these defaults; if empty, all leaves are accepted."""
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
    if unknown and "cells" in written:
        raise WorkdirError(f"{workdir} holds a study of c3r sweep, but a run of c3r train was expected.")
    if unknown:
        raise WorkdirError(
            f"{path} sets {', '.join(f'config.{name}' for name in unknown)}, which this version does not know: use the "
            "version that made the run, or train in a new workdir."
        )
    missing = {name: BEFORE.get(name, defaults[name]) for name in sorted(defaults.keys() - saved.keys())}
    if missing:
        logging.warning(
            "%s is older than %s: the run continues as before they existed.",
            path,
            ", ".join(f"config.{name}={value!r}" for name, value in missing.items()),
        )
    for name in SWITCHES.keys() & saved.keys():
        if isinstance(saved[name], bool):
            switched, saved[name] = saved[name], SWITCHES[name][saved[name]]
            logging.warning("%s has config.%s=%r, a number today: read as %r.", path, name, switched, saved[name])
    return _nested({**saved, **missing})


def _defaults() -> dict[str, Any]:
    """Leaves of the base configuration, as JSON has them."""
    return flatten(json.loads(config_text(default_config())))


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


def _differences(saved: dict[str, Any], given: dict[str, Any], free: tuple[str, ...]) -> list[str]:
    nothing = object()
    return [
        f"config.{name}: {saved.get(name, 'absent')!r} there, {given.get(name, 'absent')!r} given"
        for name in sorted(saved.keys() | given.keys())
        if saved.get(name, nothing) != given.get(name, nothing) and not name.startswith(free)
    ]
