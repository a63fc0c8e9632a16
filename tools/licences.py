"""Licences of everything that c3r_jax needs: python tools/licences.py [--extras dev,torch] [--markdown].

Read from the metadata of the installed packages; nothing is fetched.
"""

import argparse
import importlib.metadata as metadata
import pathlib
import re
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]


def needed(extras: set[str]) -> dict[str, metadata.Distribution | None]:
    """Every package that the requirements lead to, by its name; None for one that is not installed."""
    lines = (REPOSITORY / "requirements.txt").read_text(encoding="utf-8").splitlines()
    roots = [Requirement(line.split("#")[0]) for line in lines if line.split("#")[0].strip()]
    if extras:
        import tomllib

        project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        roots += [Requirement(text) for extra in extras for text in project["optional-dependencies"][extra]]
    found: dict[str, metadata.Distribution | None] = {}
    waiting = [(requirement, "") for requirement in roots]
    while waiting:
        requirement, extra = waiting.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        if name in found and not requirement.extras:
            continue
        try:
            package = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            found[name] = None
            continue
        found[name], texts = package, package.requires or []
        waiting += [(Requirement(text), own) for text in texts for own in ("", *requirement.extras)]
    return found


def licence(package: metadata.Distribution) -> str:
    """What a package says of its licence: the expression, the classifiers, or the first line of its text."""
    about: Any = package.metadata
    classifiers = [
        text.split(" :: ")[-1] for text in about.get_all("Classifier") or [] if text.startswith("License ::")
    ]
    stated = about.get("License-Expression") or ", ".join(classifiers)
    stated = stated or (about.get("License") or "").strip().splitlines()[:1]
    return re.sub(r"\s+", " ", stated if isinstance(stated, str) else "".join(stated)) or "not stated"


def main() -> None:
    """Prints one line per package."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--extras", default="", help="extras of pyproject.toml besides requirements.txt, by commas")
    parser.add_argument("--markdown", action="store_true", help="as a table")
    given = parser.parse_args()
    packages = needed({name for name in given.extras.split(",") if name})
    rows = [(name, p.version if p else "-", licence(p) if p else "not installed") for name, p in packages.items()]
    if given.markdown:
        print("| package | version | licence |\n|---|---|---|")
    for row in sorted(rows):
        print("| " + " | ".join(row) + " |" if given.markdown else f"{row[0]:<32}{row[1]:<18}{row[2]}")


if __name__ == "__main__":
    main()
