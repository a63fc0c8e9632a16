"""Where the configurations are: beside the package in a clone of the repository, inside it in an installed wheel."""

import pathlib
import sys
from collections.abc import Sequence

from c3r_jax.errors import ConfigError

PACKAGE = pathlib.Path(__file__).parent
SHARED = ("__init__", "base", "benchmark")  # parts of configurations, not configurations


def folder(package: pathlib.Path = PACKAGE) -> pathlib.Path | None:
    """The folder ``configs`` that belongs to the package; None where the package was copied without it."""
    # A wheel's own folder comes first: the one beside it may belong to another project.
    parents = (package / "shipped", package.parent)
    return next((parent / "configs" for parent in parents if (parent / "configs" / "base.py").is_file()), None)


def names(package: pathlib.Path = PACKAGE) -> list[str]:
    """Names of all configurations, as ``--config=NAME`` takes them.

    Examples:
      >>> "emoji" in names(), "sweeps/ablation" in names()
      (True, True)
    """
    home = folder(package)
    paths = [] if home is None else [path.relative_to(home).with_suffix("") for path in home.rglob("*.py")]
    return sorted(path.as_posix() for path in paths if path.stem not in SHARED)


def find(given: str, package: pathlib.Path = PACKAGE) -> str:
    """The file of a configuration.

    Args:
      given: a file, or the name of a configuration of this package, with or without ``configs/`` and ``.py``; either
        may end in ``:argument``.
      package: the package whose configurations are searched.

    Raises:
      ConfigError: there is no such file or name.

    Examples:
      >>> pathlib.Path(find("emoji")).parts[-2:]
      ('configs', 'emoji.py')
    """
    path, colon, argument = given.partition(":")
    if pathlib.Path(path).is_file():
        return given
    home, name = folder(package), path.removeprefix("configs/").removesuffix(".py")
    if home is None or not (home / f"{name}.py").is_file():
        raise ConfigError(
            f"--config is {given!r}: expected a file, or one of {', '.join(names(package)) or 'none: no configs here'}."
        )
    return f"{home / name}.py{colon}{argument}"


def with_files(arguments: Sequence[str]) -> list[str]:
    """Replaces ``--config=NAME`` by ``--config=FILE``, and makes ``from configs import base`` work in that file.

    Raises:
      ConfigError: see :func:`find`; or the file is no Python file.
    """
    resolved, home = list(arguments), folder()
    for i, word in enumerate(resolved):
        flag, equals, value = word.partition("=")
        if flag not in ("--config", "-config"):
            continue
        if not equals and i + 1 == len(resolved):
            break
        given = value if equals else resolved[i + 1]
        file = find(given)
        if not file.partition(":")[0].endswith(".py"):
            raise ConfigError(f"--config is {given!r}: expected a Python file with a function get_config.")
        resolved[i if equals else i + 1] = f"{flag}={file}" if equals else file
        if home is not None and pathlib.Path(file.partition(":")[0]).resolve().is_relative_to(home.resolve()):
            sys.path.insert(0, str(home.parent))  # so that it imports its own base, not another project's
    if home is not None and str(home.parent) not in sys.path:
        sys.path.append(str(home.parent))
    return resolved
