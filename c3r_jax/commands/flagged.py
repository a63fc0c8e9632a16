"""Commands with absl flags: ``--config=NAME`` and ``--config.any.leaf=value`` work in all of them alike."""

import shlex
import sys
import textwrap
import traceback
from collections.abc import Callable, Sequence

from absl import app, flags
from ml_collections import config_flags

from c3r_jax.configurations import names, with_files
from c3r_jax.errors import ConfigError

Define = Callable[[flags.FlagValues], None]


def run_flagged(
    main: Callable[[str, str], None], define: Define, *, about: str | None, arguments: Sequence[str], program: str
) -> None:
    """Parses flags and runs a command; ``--help`` prints what it does and its flags.

    Args:
      main: called with ``program`` and with the whole command line as it was typed; reads ``flags.FLAGS``.
      define: adds the command's flags to some flag values.
      about: the text above the flags in the help, with examples.
      arguments: words after the program.
      program: as messages name it, e.g. "c3r train".
    """
    if {"-h", "--help"} & set(arguments):
        print(help_text(define, about or "", program))
        return
    try:
        words = [program, *with_files(arguments)]
    except ConfigError as error:
        sys.exit(f"{program}: {error}")
    sys.argv = words  # where config_flags looks for --config.any.leaf=value
    define(flags.FLAGS)

    def start(argv: list[str]) -> None:
        if len(argv) > 1:
            sys.exit(f"{program}: argument {argv[1]!r} is unknown: everything is given as --flag=value, see --help.")
        main(program, typed(program, arguments))

    sys.unraisablehook = tell_at_once
    app.run(start, argv=words)


def tell_at_once(raised: "sys.UnraisableHookArgs") -> None:
    """Prints an exception that a library's own thread could not raise, in one piece.

    Python prints it in several, and one of our own sentences that comes between them would not begin a line.
    """
    where = "" if raised.object is None else f"{raised.err_msg or 'Exception ignored in'}: {raised.object!r}\n"
    lines = traceback.format_exception(raised.exc_type, raised.exc_value, raised.exc_traceback)
    sys.stderr.write(where + "".join(lines))


def define_run(values: flags.FlagValues, workdir: str) -> None:
    """Adds --config and --workdir, both required; ``workdir`` says what the directory is."""
    about = "Configuration: a name or a file."
    config_flags.DEFINE_config_file("config", None, about, lock_config=True, flag_values=values)
    flags.DEFINE_string("workdir", None, workdir, flag_values=values)
    flags.mark_flags_as_required(["config", "workdir"], flag_values=values)


def defined(define: Define) -> flags.FlagValues:
    """The flags of a command on their own."""
    own = flags.FlagValues()
    define(own)
    return own


def help_text(define: Define, about: str, program: str) -> str:
    """What ``--help`` prints."""
    own = defined(define)
    lines = [f"usage: {program} [--flag=value ...]", "", about.strip(), "", "flags:", "  --help  This text."]
    for name in sorted(own):
        default = "" if own[name].default in (None, False) else f" (default: {own[name].default})"
        shown = name if own[name].boolean else f"{name}=..."
        lines.append(_wrapped(f"--{shown}  {own[name].help}{default}"))
    if "config" in own:
        lines.append(_wrapped("--config.any.leaf=value  Any leaf of the configuration, see configs/base.py."))
        lines += ["", "configurations that --config takes by name (or give a file):", _wrapped(", ".join(names()))]
    return "\n".join(lines)


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 100, initial_indent="  ", subsequent_indent="      ")


def typed(program: str, arguments: Sequence[str]) -> str:
    """The command line as a person types it, for the record.

    Examples:
      >>> typed("eval.py", ["--workdir=my run"])
      "python eval.py '--workdir=my run'"
    """
    return f"{'' if program.startswith(('c3r ', 'python ')) else 'python '}{program} {shlex.join(arguments)}".rstrip()
