"""The ``c3r`` command: finds a command and runs it."""

import difflib
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

from c3r_jax.caches import keep_programs
from c3r_jax.errors import MissingExtraError, extra_of
from c3r_jax.version import __version__


class Command(NamedTuple):
    """One command.

    Attributes:
      module: the command's module, whose ``define`` (absl flags) or ``parser`` (argparse) defines its options.
      function: function of the module, called with the arguments after the command and the program's name.
      about: description of one line.
      extra: the extra of pyproject.toml whose libraries it needs.
    """

    module: str
    function: str
    about: str
    extra: str = "train"


COMMANDS = {
    "train": Command("c3r_jax.commands.train", "run", "train a run, or continue it"),
    "eval": Command("c3r_jax.commands.eval", "run", "evaluate a run and write its report"),
    "sweep": Command("c3r_jax.commands.sweep", "run", "run an ablation study as one vmapped program"),
    "config": Command("c3r_jax.commands.config", "main", "print every setting with its value and meaning"),
    "prepare": Command("c3r_jax.commands.prepare", "main", "prepare a benchmark from its files", "data"),
    "report": Command("c3r_jax.commands.report", "main", "compare runs, or explain one prediction"),
    "export": Command("c3r_jax.commands.export", "main", "write StableHLO, weights and a model card"),
    "doctor": Command("c3r_jax.commands.doctor", "main", "check this machine and say what to fix"),
    "demo": Command("c3r_jax.commands.demo", "run", "four methods, three seeds, one robustness table"),
    "reproduce": Command("c3r_jax.commands.reproduce", "main", "make a recorded table again and compare it"),
    "launch": Command("c3r_jax.commands.launch", "main", "run a script as several local processes of one job"),
    "completion": Command("c3r_jax.commands.completion", "main", "print a completion script for bash, zsh or fish"),
}


def help_text() -> str:
    """The text that ``c3r --help`` prints."""
    lines = [f"  {name:<12}{command.about}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: c3r COMMAND [--flag=value ...]",
            "",
            "Causal Complete Cause Regularization for multi-modal learning.",
            "",
            "commands:",
            *lines,
            "",
            "examples:",
            "  c3r doctor",
            "  c3r train --config=emoji --workdir=runs/emoji --config.method=c3r",
            "  c3r eval --workdir=runs/emoji",
            "  c3r report explain --workdir runs/emoji --example 1405",
            "  c3r export --workdir runs/emoji --out exported",
            "",
            "`c3r COMMAND --help` prints the flags of a command, and examples.",
        ]
    )


def find(command: str) -> Callable[[list[str], str], None]:
    """The function of a command, imported on demand, so that no command waits for the libraries of another."""
    found = COMMANDS[command]
    with extra_of(f"c3r {command}", found.extra):
        return getattr(importlib.import_module(found.module), found.function)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command.

    Args:
      arguments: arguments after ``c3r``; None takes those of the command line.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help", "help"):
        print(help_text())
        sys.exit(0 if words else 2)
    if words[0] == "--version":
        print(f"c3r_jax {__version__}")
        return
    name = words[0]
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        meant = f"did you mean {near[0]!r}? " if near else ""
        print(f"c3r: command {name!r} is unknown: {meant}Expected one of {', '.join(COMMANDS)}.", file=sys.stderr)
        sys.exit(2)
    run(name, words[1:], f"c3r {name}")


def run(name: str, arguments: list[str], program: str) -> None:
    """Runs one command, or ends with one sentence where a library that it needs is not installed.

    Args:
      name: a key of :data:`COMMANDS`.
      arguments: arguments after the command.
      program: name of the program in messages, e.g. "train.py".
    """
    keep_programs()
    try:
        command = find(name)
    except MissingExtraError as error:
        sys.exit(str(error))
    try:
        command(arguments, program)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of what is printed, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains once more at its exit
        sys.exit(141)  # as shells count SIGPIPE
