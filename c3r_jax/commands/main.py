"""The ``c3r`` command: finds the command that is meant, and leaves the rest to it."""

import difflib
import importlib
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

import c3r_jax


class Command(NamedTuple):
    """One command.

    Attributes:
      module: where it lies; it has ``define`` (absl flags) or ``parser`` (argparse), which tell its options.
      function: of the module, called with the words after the command and its name.
      about: one line.
    """

    module: str
    function: str
    about: str


COMMANDS = {
    "train": Command("c3r_jax.commands.train", "run", "train a run, or go on with it"),
    "eval": Command("c3r_jax.commands.eval", "run", "evaluate a run and write its report"),
    "sweep": Command("c3r_jax.sweep.__main__", "run", "run an ablation study as one vmapped program"),
    "prepare": Command("c3r_jax.data.prepare", "main", "prepare a benchmark that is on disk"),
    "report": Command("c3r_jax.report.__main__", "main", "compare runs, or explain one prediction"),
    "export": Command("c3r_jax.commands.export", "main", "write StableHLO, weights and a model card, free of c3r_jax"),
    "doctor": Command("c3r_jax.commands.doctor", "main", "check this machine and say what to mend"),
    "demo": Command("c3r_jax.demo", "run", "four methods, three seeds, one robustness table"),
    "completion": Command("c3r_jax.commands.completion", "main", "print a completion script for bash, zsh or fish"),
}


def help_text() -> str:
    """What ``c3r --help`` prints."""
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
            "`c3r COMMAND --help` has the flags of a command, and examples.",
        ]
    )


def find(command: str) -> Callable[[list[str], str], None]:
    """The function behind a command; it is imported only now, so that no command waits for another's libraries."""
    found = COMMANDS[command]
    return getattr(importlib.import_module(found.module), found.function)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command.

    Args:
      arguments: words after ``c3r``; None: those of the command line.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help", "help"):
        print(help_text())
        sys.exit(0 if words else 2)
    if words[0] == "--version":
        print(f"c3r_jax {c3r_jax.__version__}")
        return
    name = words[0]
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        meant = f"did you mean {near[0]!r}? " if near else ""
        print(f"c3r: command {name!r} is unknown: {meant}Expected one of {', '.join(COMMANDS)}.", file=sys.stderr)
        sys.exit(2)
    find(name)(words[1:], f"c3r {name}")
