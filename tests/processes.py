"""Command lines of train.py for a small configuration, and commands without a process of their own."""

import os
import pathlib
import sys
import types
import warnings

from absl import flags

from c3r_jax.configurations import with_files
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


def run_here(command, monkeypatch, *arguments):
    """Runs a command with absl flags in this process, which a process of its own would take seconds to begin.

    Args:
      command: its module, e.g. ``c3r_jax.commands.eval``.
      monkeypatch: of the test.
      arguments: after the program, e.g. "--workdir=DIR".

    Returns:
      None as the command ends well, else what it says on standard error, or its exit status.
    """
    values = flags.FlagValues()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "argv", ["c3r", *with_files(list(map(str, arguments)))])
        command.define(values)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of how ml_collections loads a configuration
            values(sys.argv)
        patch.setattr(command, "flags", types.SimpleNamespace(FLAGS=values))  # other libraries keep theirs
        try:
            command.main("c3r", "c3r")
        except SystemExit as end:
            return end.code
