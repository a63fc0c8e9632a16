"""Prints every leaf of a configuration: its value, what it may be, and what it means.

c3r config
c3r config emoji
c3r config sweeps/ablation
"""

import argparse
import importlib.util
import re
import sys
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from ml_collections import ConfigDict

from c3r_jax.configurations import names, with_files
from c3r_jax.core.config import C3RConfig
from c3r_jax.core.counterfactual_modes import MODES
from c3r_jax.core.tasks.base import NECESSITY_KINDS
from c3r_jax.data.catalogue import LAYOUTS, SOURCES
from c3r_jax.data.conditions.protocols import PROTOCOL_NAMES
from c3r_jax.errors import ConfigError
from c3r_jax.experiments.metric_writers import WRITERS
from c3r_jax.experiments.settings import Settings, all_leaves, default_config
from c3r_jax.methods.method import METHODS
from c3r_jax.methods.registry import RIVALS
from c3r_jax.methods.rival import Rival
from c3r_jax.models.build import DTYPES, FUSIONS, PUBLISHED
from c3r_jax.models.encoders.pretrained.architectures import ARCHITECTURES
from c3r_jax.parallel.strategy import STRATEGIES
from c3r_jax.settings.listing import Leaf, leaves, title_of, titles
from c3r_jax.step.optimizer import OPTIMIZERS, SCHEDULES
from c3r_jax.sweep.settings import SweepSettings
from c3r_jax.tasks.registry import TASKS

WIDTH, LEFT = 100, 36  # columns of a terminal; of them for names and values


def choices() -> dict[str, Sequence[str]]:
    """Names that a leaf may have, from the modules that own them."""
    pretrained = {
        f"model.{kind}.pretrained": [name for name, own in ARCHITECTURES.items() if own.kind == kind]
        for kind in PUBLISHED
    }
    return {
        "task": list(TASKS),
        "method": METHODS,
        "c3r.counterfactual": list(MODES),
        "c3r.necessity": NECESSITY_KINDS,
        "rival.name": list(RIVALS),
        "data.name": [*SOURCES, *LAYOUTS],
        "model.dtype": list(DTYPES),
        "model.fusion": FUSIONS,
        **pretrained,
        "optimizer.name": list(OPTIMIZERS),
        "optimizer.schedule": list(SCHEDULES),
        "parallel.strategy": STRATEGIES,
        "train.writers": list(WRITERS),
        "eval.protocols": list(PROTOCOL_NAMES),
    }


def known_leaves(config: ConfigDict) -> dict[str, Leaf]:
    """What there is to say of the leaves of a run's configuration, or of a study's, by name; in order."""
    if "cells" in config:
        return {leaf.name: leaf for leaf in leaves(SweepSettings)}
    lists = choices()
    return {leaf.name: _with_choices(leaf, lists.get(leaf.name, ())) for leaf in all_leaves()}


def _with_choices(leaf: Leaf, among: Sequence[str]) -> Leaf:
    several = "any" if isinstance(leaf.default, tuple) else "one"
    return leaf._replace(bounds=f"{several} of {', '.join(among)}") if among else leaf


def load(name: str) -> ConfigDict:
    """A configuration by name or file, as ``--config`` takes it.

    Raises:
      ConfigError: if there is none.
    """
    (word,) = with_files([f"--config={name}"])
    path, *argument = word.removeprefix("--config=").split(":", 1)
    spec = importlib.util.spec_from_file_location("c3r_jax_listed_config", path)
    assert spec is not None and spec.loader is not None  # with_files refuses what is no Python file
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(*argument)


def describe(config: ConfigDict) -> str:
    """Every leaf with its value, what it may be and what it means, part by part.

    Args:
      config: of a run or of a study.
    """
    known, given = known_leaves(config), dict(flat(config))
    heads = titles(SweepSettings) if "cells" in config else titles(Settings)
    heads |= {"": "", "c3r": title_of(C3RConfig), "rival": title_of(Rival)}
    lines, place = [], None
    for name in [*known, *(name for name in given if name not in known)]:
        here, _, leaf = name.rpartition(".")
        if here != place:
            place = here
            lines += ["", *_wrapped(f"config.{here}".rstrip("."), heads.get(here, ""), "")]
        lines += _wrapped(f"  {leaf} = {given.get(name)!r}", *_said(known.get(name), given.get(name)))
    return "\n".join(lines).strip("\n")


def flat(config: ConfigDict, place: str = "") -> Iterator[tuple[str, Any]]:
    """(name, value) of every leaf."""
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            yield from flat(value, f"{place}{name}.")
        else:
            yield place + name, value


def _said(leaf: Leaf | None, value: Any) -> tuple[str, str]:
    """A leaf's meaning, and in brackets what it may be."""
    if leaf is None:
        return "", ""
    notes = [re.sub("^a (whole )?number (of )?", "", leaf.bounds)] if leaf.bounds else []
    if value != leaf.default:
        notes.append(f"default: {leaf.default!r}")
    return leaf.meaning, f"[{'; '.join(notes)}]" if notes else ""


def _wrapped(left: str, meaning: str, bounds: str) -> list[str]:
    """Two columns, without markup; what is too long for the left one has its text below it."""
    plain = re.sub(r":\w+:`~?([^`]*)`|``", r"\1", meaning)
    text = textwrap.wrap(f"{plain} {bounds}".strip(), WIDTH - LEFT) or [""]
    if len(left) >= LEFT:
        return [left, *(" " * LEFT + line for line in text if line)]
    return [f"{left:<{LEFT}}{text[0]}".rstrip(), *(" " * LEFT + line for line in text[1:])]


def parser(program: str) -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog=program,
        description="Prints every leaf of a configuration: its value, what it may be, and what it means.",
        epilog=f"examples: {program} emoji | {program} sweeps/ablation | configurations: {', '.join(names())}",
    )
    parser.add_argument("config", nargs="?", help="a configuration by name or file (default: what all runs have)")
    return parser


def main(arguments: Sequence[str], program: str) -> None:
    """Prints the leaves."""
    given = parser(program).parse_args(arguments).config
    try:
        print(describe(load(given) if given else default_config()))
    except ConfigError as error:
        sys.exit(f"{program}: {error}")
