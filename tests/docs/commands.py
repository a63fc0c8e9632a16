"""The commands that the documentation shows, and whether what they name is there."""

import ast
import functools
import importlib.util
import pathlib
import re
import shlex
import tomllib
from typing import Any

from ml_collections import ConfigDict

from c3r_jax.commands.main import COMMANDS

ROOT = pathlib.Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
SHELL = ("", "sh", "bash")
OURS = ("python", "make", "pip", "c3r", ".venv/bin/python")
# Programs of others: that they are there and take their flags is not this project's to say.
OTHERS = {
    "apt-get",
    "cd",
    "curl",
    "docker",
    "export",
    "git",
    "mkdir",
    "npm",
    "dpkg",
    "sbatch",
    ".",
    "cp",
    "kill",
    "tensorboard",
}
MODULES = {
    "build",
    "coverage",
    "http.server",
    "mkdocs",
    "pip",
    "pytest",
    "pyright",
    "ruff",
    "tests.browser",
    "tests.chaos",
    "twine",
    "venv",
    "zipfile",
}
ANYWHERE = {"help", "helpfull", "config"}
SHARED = ROOT / "c3r_jax/commands/flags.py"  # the flags of all commands that have a configuration
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


class UnknownCommand(Exception):
    """A line that names something that is not there."""


def blocks(text: str, *languages: str) -> list[str]:
    """The fenced blocks of some languages."""
    return [body for indent, language, body in FENCE.findall(text) if language in languages and not indent]


def commands(text: str) -> list[str]:
    """Every command of a page: in fences (up to an empty line: what follows is output), indented blocks and code."""
    found = []
    for body in blocks(text, *SHELL):
        lines = re.sub(r" *\\\n\s*", " ", body).split("\n\n")[0].splitlines()
        found += [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    for body in blocks(text, "yaml"):
        found += [line.strip() for line in body.splitlines() if line.strip().startswith(OURS)]
    plain = FENCE.sub("", text)
    starts = "|".join(map(re.escape, OURS))
    found += re.findall(rf"(?<=\n\n)    ((?:{starts}) .*)", plain)
    return found + [code for code in re.findall(r"`([^`\n]+)`", plain) if re.match(rf"(?:{starts}) [\w.-]", code)]


def check(command: str) -> str:
    """Checks a command; returns what it was taken for.

    Raises:
      UnknownCommand: a file, module, flag, configuration leaf, make target or extra that is not there.
    """
    words = shlex.split(command.strip("() "), comments=True)
    kinds = []
    for part in _parts(words):
        while part and (re.fullmatch(r"\w+=.*", part[0]) or part[0] in ("srun", "time", "do", "(cd", "nohup")):
            part = part[1:]
        if part:
            kinds.append(_check_one(part))
    return " ".join(kinds)


def _parts(words: list[str]) -> list[list[str]]:
    """Words between ``&&``, ``;``, ``|`` and redirections."""
    parts: list[list[str]] = [[]]
    for word in words:
        if word in ("&&", ";", "|", ">", "&"):
            parts.append([])
        else:
            optional = word.startswith("[") or (word.endswith("]") and "[" not in word)  # [--workers N]
            parts[-1].append(word.rstrip(";").strip("[]" if optional else ""))
    return parts


def _check_one(words: list[str]) -> str:
    program, *rest = words
    if program in ("for", "done") or program in OTHERS:
        return "others"
    if program == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        unknown = [word for word in rest if "=" not in word and word not in targets]
        return _fail(words, f"make has no target {unknown[0]}") if unknown else "make"
    if program == "pip":
        return _check_pip(words)
    if program == "c3r":
        if rest[0] in COMMANDS:
            return _check_python(["-m", COMMANDS[rest[0]].module, *rest[1:]])
        return "c3r" if rest[0] in ("--help", "--version") else _fail(words, f"c3r has no command {rest[0]}")
    if program in ("python", ".venv/bin/python") and rest:
        return _check_python(rest)
    return _fail(words, f"{program} is unknown")


def _check_pip(words: list[str]) -> str:
    for word in words:
        extra = re.fullmatch(r"\.\[(\w+)\]", word)
        if extra and extra[1] not in PROJECT["optional-dependencies"]:
            _fail(words, f"there is no extra {extra[1]}")
    return "pip"


def _check_python(rest: list[str]) -> str:
    if rest[0] == "-m":
        module, rest = rest[1], rest[2:]
        if module.split(".")[0] != "c3r_jax":
            return "others" if module in MODULES else _fail(rest, f"module {module} is unknown")
        path = ROOT / module.replace(".", "/")
        path = path / "__main__.py" if path.is_dir() else path.with_suffix(".py")
    elif rest[0] == "-c":
        return "python"
    else:
        path, rest = ROOT / rest[0], rest[1:]
    if not path.is_file():
        _fail(rest, f"{path.relative_to(ROOT)} is not there")
    script = next((i for i, word in enumerate(rest) if word.endswith(".py") and not word.startswith("-")), None)
    if path.name == "launch.py" and script is not None:
        _check_python(rest[script:])
        rest = rest[:script]
    known = _flags(path) | _flags(SHARED) | ANYWHERE
    for word in rest:
        if word.startswith("--"):
            name, _, value = word[2:].partition("=")
            if name.startswith("config."):
                _check_leaf(_config(rest, path), name.removeprefix("config."), value, rest)
            elif name not in known:
                _fail(rest, f"{path.relative_to(ROOT)} has no flag --{name}")
    _config(rest, path)
    return "python"


@functools.cache
def _flags(path: pathlib.Path) -> frozenset[str]:
    """Names of the flags that a program defines, by its source; most are defined by a command of the package."""
    name = path.parent.name if path.stem == "__main__" else path.stem
    command = ROOT / "c3r_jax/commands" / f"{name}.py"
    source = "".join(file.read_text(encoding="utf-8") for file in {path, command} if file.is_file())
    return frozenset(re.findall(r'(?:add_argument|DEFINE_\w+)\(\s*"-{0,2}([\w-]+)"', source))


@functools.cache
def _load(path: pathlib.Path) -> ConfigDict:
    spec = importlib.util.spec_from_file_location("documented_config", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config()


def _config(rest: list[str], path: pathlib.Path) -> ConfigDict | None:
    """The configuration that a command names; the demo has one of its own."""
    named = [word.partition("=")[2] for word in rest if word.startswith("--config=")]
    named += ["configs/emoji.py"] if not named and path.name in ("demo.py", "train.py") else []
    if not named or named[0].isupper() or "NAME" in named[0]:
        return None
    given = named[0].partition(":")[0]
    name = given.removeprefix("configs/").removesuffix(".py")  # files and names are both taken
    file = ROOT / "configs" / f"{name}.py"
    return _load(file) if file.is_file() else _fail(rest, f"{named[0]} is not there")


def _check_leaf(config: ConfigDict | None, name: str, value: str, rest: list[str]) -> None:
    if config is None:
        return
    *parents, leaf = name.split(".")
    for parent in parents:
        config = config[parent] if parent in config else _fail(rest, f"config.{name} is no leaf")
    if leaf not in config or isinstance(config[leaf], ConfigDict):
        _fail(rest, f"config.{name} is no leaf")
    old = config[leaf]
    try:
        new = ast.literal_eval(value)
    except (ValueError, SyntaxError):
        new = value
    fits = isinstance(new, type(old)) or (isinstance(old, float) and isinstance(new, int)) or isinstance(old, tuple)
    if not fits and not value.isupper():
        _fail(rest, f"config.{name} is {type(old).__name__}, not {value!r}")


def _fail(words: list[str], why: str) -> Any:
    raise UnknownCommand(f"{' '.join(words)}: {why}")
