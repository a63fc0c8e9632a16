"""Command lines of train.py for a small configuration."""

import os
import pathlib
import sys

from c3r_jax.experiments.workdir import flatten
from configs.emoji import get_config

REPOSITORY = pathlib.Path(__file__).parents[1]


def settings(config):
    """Command-line flags that make configs/emoji.py equal to a small configuration."""
    base, wanted = flatten(get_config().to_dict()), flatten(config.to_dict())
    flags = []
    for name, value in wanted.items():
        if base[name] != value:
            text = f"({','.join(map(str, value))},)" if isinstance(value, list) else value
            flags.append(f"--config.{name}={text}")
    return flags


def train_command(config, workdir, *extra):
    return [
        sys.executable,
        str(REPOSITORY / "train.py"),
        f"--config={REPOSITORY / 'configs/emoji.py'}",
        f"--workdir={workdir}",
        *settings(config),
        *extra,
    ]


def command_environment():
    return {**os.environ, "PYTHONPATH": str(REPOSITORY)}
