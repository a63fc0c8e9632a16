"""Prints a completion script: commands, their flags, and the names of configurations."""

import argparse
import importlib
import re
from collections.abc import Mapping, Sequence

from c3r_jax.commands.flags import flags_of
from c3r_jax.commands.main import COMMANDS
from c3r_jax.configurations import names
from c3r_jax.data.catalogue import LAYOUTS

_BASH = """
_c3r() {
  local word="${COMP_WORDS[COMP_CWORD]}" before="${COMP_WORDS[COMP_CWORD-1]}"
  [[ "$word" == "=" ]] && word=""
  if [[ "$before" == "=" ]]; then before="${COMP_WORDS[COMP_CWORD-2]}"; fi
  if [[ "$before" == "--config" ]]; then
    COMPREPLY=($(compgen -W "CONFIGS" -- "$word") $(compgen -f -X '!*.py' -- "$word")); return
  fi
  if [[ $COMP_CWORD -eq 1 ]]; then COMPREPLY=($(compgen -W "COMMANDS" -- "$word")); return; fi
  local flags=""
  case "${COMP_WORDS[1]}" in
CASES
  esac
  COMPREPLY=($(compgen -W "$flags" -- "$word") $(compgen -f -- "$word"))
}
complete -o filenames -F _c3r c3r
"""
_ZSH = """
autoload -Uz compinit bashcompinit
(( $+functions[compdef] )) || compinit
bashcompinit
"""


def options() -> dict[str, list[str]]:
    """The flags of every command."""
    found = {}
    for name, command in COMMANDS.items():
        module = importlib.import_module(command.module)
        if hasattr(module, "define"):
            values = flags_of(module.define)
            found[name] = ["--help", *sorted(f"--{flag}{'' if values[flag].boolean else '='}" for flag in values)]
        else:
            found[name] = sorted(_completions(module.parser(f"c3r {name}")))
    found["prepare"] += LAYOUTS
    found["config"] += names()
    return found


def _completions(parser: argparse.ArgumentParser) -> set[str]:
    """Flags and choices of a parser and its subparsers."""
    found = set(re.findall(r"--[a-z][a-z_-]*", parser.format_help()))
    for action in parser._actions:  # argparse has no public way to its subcommands
        if isinstance(action, argparse._SubParsersAction):
            for name, subparser in action.choices.items():
                found |= {name} | _completions(subparser)
        elif not action.option_strings and action.choices:
            found |= set(map(str, action.choices))
    return found


def script(shell: str, flags: Mapping[str, Sequence[str]], configs: Sequence[str]) -> str:
    """The completion script of a shell.

    Args:
      shell: "bash", "zsh" or "fish".
      flags: flags of every command.
      configs: names that ``--config`` takes.
    """
    if shell == "fish":
        lines = ["complete -c c3r -f -n __fish_use_subcommand -a '" + " ".join(flags) + "'"]
        for command, words in flags.items():
            prefix = f"complete -c c3r -n '__fish_seen_subcommand_from {command}'"
            lines += [f"{prefix} -l {word[2:].removesuffix('=')}" for word in words if word.startswith("--")]
            lines += [f"{prefix} -a {word}" for word in words if not word.startswith("--")]
        lines.append(f"complete -c c3r -l config -x -a '{' '.join(configs)}'")
        return "\n".join(lines)
    cases = "\n".join(f'    {name}) flags="{" ".join(words)}" ;;' for name, words in flags.items())
    text = _BASH.replace("CONFIGS", " ".join(configs)).replace("COMMANDS", " ".join(flags)).replace("CASES", cases)
    return ((_ZSH if shell == "zsh" else "") + text).strip()


def parser(program: str) -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog=program,
        description="Prints a completion script.",
        epilog='examples: eval "$(c3r completion bash)"  |  c3r completion zsh > ~/.c3r.zsh  |  '
        "c3r completion fish > ~/.config/fish/completions/c3r.fish",
    )
    parser.add_argument("shell", choices=("bash", "zsh", "fish"))
    return parser


def main(arguments: Sequence[str], program: str) -> None:
    """Prints the script."""
    print(script(parser(program).parse_args(arguments).shell, options(), names()))
