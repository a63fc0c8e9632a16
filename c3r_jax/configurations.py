"""Where the configurations lie: beside the package in a clone of the repository, inside it in an installed wheel."""

import importlib.util
import pathlib
import sys
from collections.abc import Sequence

from ml_collections import ConfigDict

from c3r_jax.errors import ConfigError

PACKAGE = pathlib.Path(__file__).parent
SHARED = ("__init__", "base", "benchmark")  # what configurations are made of


def folder(package: pathlib.Path = PACKAGE) -> pathlib.Path | None:
    """The folder ``configs`` that belongs to the package; None where the package was copied without it."""
    homes = (package / "shipped", package.parent)  # a wheel's own first: what lies beside it may be another project's
    return next((home / "configs" for home in homes if (home / "configs" / "base.py").is_file()), None)


def names(package: pathlib.Path = PACKAGE) -> list[str]:
    """Names of all configurations, as ``--config=NAME`` takes them.

    Examples:
      >>> "emoji" in names(), "sweeps/ablation" in names()
      (True, True)
    """
    home = folder(package)
    found = [] if home is None else [path.relative_to(home).with_suffix("") for path in home.rglob("*.py")]
    return sorted(path.as_posix() for path in found if path.stem not in SHARED)


def find(given: str, package: pathlib.Path = PACKAGE) -> str:
    """The file of a configuration.

    Args:
      given: a file, or the name of one of this package's with or without ``configs/`` and ``.py``; either with
        ``:argument``.
      package: whose configurations to look among.

    Raises:
      ConfigError: if it is neither.

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
    """Command-line arguments with ``--config=NAME`` made the file; makes ``from configs import base`` work in it.

    Raises:
      ConfigError: see :func:`find`.
    """
    done, home = list(arguments), folder()
    for i, word in enumerate(done):
        flag, equals, value = word.partition("=")
        if flag not in ("--config", "-config"):
            continue
        if not equals and i + 1 == len(done):
            break
        found = find(value if equals else done[i + 1])
        done[i if equals else i + 1] = f"{flag}={found}" if equals else found
        if home is not None and pathlib.Path(found.partition(":")[0]).resolve().is_relative_to(home.resolve()):
            sys.path.insert(0, str(home.parent))  # its own base, not that of another folder of this name
    if home is not None and str(home.parent) not in sys.path:
        sys.path.append(str(home.parent))
    return done


def base_config() -> ConfigDict | None:
    """The base configuration, whatever else is called ``configs`` here; None without the folder."""
    home = folder()
    spec = None if home is None else importlib.util.spec_from_file_location("c3r_jax_base_config", home / "base.py")
    if spec is None or spec.loader is None:
        return None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config()
