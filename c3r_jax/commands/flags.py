"""Commands with absl flags, in all of which ``--config=NAME`` and ``--config.any.leaf=value`` work."""

import difflib
import re
import shlex
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterable, Sequence

from absl import app, flags
from ml_collections import config_flags

from c3r_jax.configurations import names, with_files
from c3r_jax.errors import ConfigError
from c3r_jax.settings.fields import KINDS

HELP_CONFIG = "--help_config"

Define = Callable[[flags.FlagValues], None]


def run_with_flags(
    main: Callable[[str, str], None],
    define: Define,
    *,
    about: str | None,
    arguments: Sequence[str],
    program: str,
    base: str = "base",
) -> None:
    """Parses flags and runs a command; ``--help`` prints its description and flags.

    Args:
      main: called with ``program`` and the whole command line as text; reads ``flags.FLAGS``.
      define: adds the command's flags to flag values.
      about: description for the help, with examples.
      arguments: arguments after the program.
      program: name of the program in messages, e.g. "c3r train".
      base: the configuration whose settings ``--help_config`` prints where none is named.
    """
    if {"-h", "--help"} & set(arguments):
        print(help_text(define, about or "", program))
        return
    try:
        if HELP_CONFIG in arguments and HELP_CONFIG[2:] in flags_of(define):
            print(config_text(arguments, base))
            return
        words = [program, *with_files(arguments)]
    except ConfigError as error:
        sys.exit(f"{program}: {error}")
    sys.argv = words  # where config_flags looks for --config.any.leaf=value
    define(flags.FLAGS)

    def start(argv: list[str]) -> None:
        if len(argv) > 1:
            sys.exit(
                f"{program}: argument {argv[1]!r} is unknown: all arguments have the form --flag=value, see --help."
            )
        main(program, command_line(program, arguments))

    def parse(argv: list[str]) -> list[str]:
        try:
            return flags.FLAGS(argv)
        except (flags.Error, AttributeError, KeyError) as error:
            mistake = setting_mistake(arguments, error)
            if mistake is None and not isinstance(error, flags.Error):
                raise
            sys.exit(f"{program}: {mistake or f'{error} See --help.'}")

    sys.unraisablehook = print_in_one_piece
    app.run(start, argv=words, flags_parser=parse)


def config_name(arguments: Sequence[str]) -> str | None:
    """The value of ``--config``, as it was typed; None without it.

    Examples:
      >>> config_name(["--config=emoji", "--config.seed=1"]), config_name(["--config", "watch"])
      ('emoji', 'watch')
      >>> config_name([]) is None
      True
    """
    for word, after in zip(arguments, [*arguments, ""][1:], strict=True):
        flag, equals, value = word.partition("=")
        if flag.lstrip("-") == "config" and flag.startswith("-"):
            return value if equals else after
    return None


def config_text(arguments: Sequence[str], base: str) -> str:
    """The text that ``--help_config`` prints: all leaves of the named configuration, or of ``base``.

    Raises:
      ConfigError: there is no configuration of that name.
    """
    from c3r_jax.commands import config as listing  # imported on demand: it loads every library

    return listing.describe(listing.load(config_name(arguments) or base))


def setting_mistake(arguments: Sequence[str], error: Exception) -> str | None:
    """One sentence about a mistake in ``--config.any.leaf=value``; None if there is another mistake.

    Args:
      arguments: arguments after the program.
      error: error from parsing them.
    """
    name = config_name(arguments)
    if not name:
        return None
    from c3r_jax.commands import config as listing  # imported on demand: it loads every library

    config = listing.load(name)
    known, leaves = listing.known_leaves(config), dict(listing.flat(config))
    more = f"`c3r config {name}` lists all settings"
    for word in arguments:
        found = re.match(r"--?(?:no)?config\.([^=\[]+)", word)
        if found and not any(f"{leaf}.".startswith(f"{found[1]}.") for leaf in leaves):
            near = nearest(found[1], leaves)
            meant = f" ({more}): did you mean config.{near}?" if near else f": {more}."
            return f"config.{found[1]} is unknown{meant}"
    found = re.match(r"flag --config\.([^=]+)=(.*?): ", str(error))
    if not found:
        return None
    leaf, value = found.groups()
    if leaf not in leaves:
        return f"config.{leaf} is {value!r}, but it is a part of the configuration: set its leaves one by one ({more})."
    expected = (known[leaf].bounds if leaf in known else "") or KINDS.get(type(leaves[leaf]), "another type")
    return f"config.{leaf} is {value!r}: expected {expected} ({more})."


def nearest(name: str, leaves: Iterable[str]) -> str | None:
    """The leaf that a mistyped name most likely means, by its spelling or by its last word.

    Examples:
      >>> nearest("trian.steps", ["train.steps", "eval.split"]), nearest("split", ["train.steps", "eval.split"])
      ('train.steps', 'eval.split')
    """
    last = [leaf for leaf in leaves if leaf.rpartition(".")[2] == name.rpartition(".")[2]]
    near = difflib.get_close_matches(name, leaves, n=1, cutoff=0.75) or last
    return near[0] if near else None


def print_in_one_piece(raised: "sys.UnraisableHookArgs") -> None:
    """Prints an exception that a library's thread could not raise, in one piece.

    Python prints it in several pieces, and a message of ours between them would not start on a new line.
    """
    source = "" if raised.object is None else f"{raised.err_msg or 'Exception ignored in'}: {raised.object!r}\n"
    lines = traceback.format_exception(raised.exc_type, raised.exc_value, raised.exc_traceback)
    sys.stderr.write(source + "".join(lines))


def define_run(values: flags.FlagValues, workdir: str, *, unless: str | None = None) -> None:
    """Adds the required flags --config and --workdir.

    Args:
      values: flag values to add to.
      workdir: help of --workdir.
      unless: a flag, defined before, with which --workdir is not needed.
    """
    define_config(values, "Configuration: a name or a file.")
    flags.DEFINE_string("workdir", None, workdir, flag_values=values)
    flags.mark_flags_as_required(["config", *([] if unless else ["workdir"])], flag_values=values)
    if unless:
        flags.register_multi_flags_validator(
            ["workdir", unless],
            lambda given: given["workdir"] is not None or given[unless],
            f"Flag --workdir must have a value other than None, but for --{unless}.",
            flag_values=values,
        )


def define_config(values: flags.FlagValues, about: str) -> None:
    """Adds --config and --help_config."""
    config_flags.DEFINE_config_file("config", None, about, lock_config=True, flag_values=values)
    flags.DEFINE_bool("help_config", False, "Print every setting with its value and meaning.", flag_values=values)


def flags_of(define: Define) -> flags.FlagValues:
    """The flags of a command."""
    values = flags.FlagValues()
    define(values)
    return values


def help_text(define: Define, about: str, program: str) -> str:
    """The text that ``--help`` prints."""
    values = flags_of(define)
    lines = [f"usage: {program} [--flag=value ...]", "", about.strip(), "", "flags:", "  --help  This text."]
    for name in sorted(values):
        default = "" if values[name].default in (None, False) else f" (default: {values[name].default})"
        shown = name if values[name].boolean else f"{name}=..."
        lines.append(_wrapped(f"--{shown}  {values[name].help}{default}"))
    if "config" in values:
        lines.append(_wrapped("--config.any.leaf=value  Any leaf of the configuration; `c3r config` lists them."))
        lines += ["", "configurations that --config takes by name (or give a file):", _wrapped(", ".join(names()))]
    return "\n".join(lines)


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 100, initial_indent="  ", subsequent_indent="      ")


def command_line(program: str, arguments: Sequence[str]) -> str:
    """The command line as a person would type it, for the record.

    Examples:
      >>> command_line("eval.py", ["--workdir=my run"])
      "python eval.py '--workdir=my run'"
    """
    return f"{'' if program.startswith(('c3r ', 'python ')) else 'python '}{program} {shlex.join(arguments)}".rstrip()
