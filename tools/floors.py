"""The floors of the code: the table in CONTRIBUTING.md says which room stands on which floor.

A room is a folder of c3r_jax, or a single module that the table names, such as ``core.batch``. A module imports from
its own room and from lower floors, and no chain of imports leads back to where it began. ``python tools/floors.py``
prints what breaks that rule; a test asks the same.
"""

import ast
import graphlib
import pathlib
import re
from collections.abc import KeysView, Mapping

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = "c3r_jax"
ENTRY = f"{PACKAGE}.commands.main"  # all that a module for ``python -m`` imports
Floors = dict[str, int]  # room: number of its floor, from the ground up


def read_floors(text: str) -> Floors:
    r"""The table of floors in a Markdown page: rows of a number, rooms in backticks, and what they hold.

    Examples:
      >>> read_floors("| 2 | `data`, `models` | Flax and sources |\n| 1 | `core.batch` | sums |")
      {'data': 2, 'models': 2, 'core.batch': 1}
    """
    rows = re.findall(r"^\| *(\d+) *\| *(`[^|]*`) *\|", text, re.MULTILINE)
    return {room: int(floor) for floor, rooms in rows for room in re.findall(r"`([\w.]+)`", rooms)}


def room_of(module: str, floors: Floors) -> str | None:
    """The room of a module, by the longest name that begins its own; None if no room is its home.

    Examples:
      >>> floors = {"core": 2, "core.batch": 1}
      >>> [room_of(f"c3r_jax.{name}", floors) for name in ("core.batch", "core.risk", "caches")]
      ['core.batch', 'core', None]
    """
    parts = module.split(".")[1:] or [PACKAGE]
    names = [".".join(parts[:end]) for end in range(len(parts), 0, -1)]
    return next((name for name in names if name in floors), None)


def imports(root: pathlib.Path = ROOT) -> dict[str, set[str]]:
    """{module: modules of the package that it imports}, also inside functions and for type checking.

    An ``__init__`` that imports nothing is left out.
    """
    paths = {}
    for path in sorted((root / PACKAGE).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        paths[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    found = {module: _imported(path, paths.keys()) - {module} for module, path in paths.items()}
    return {module: names for module, names in found.items() if names or paths[module].name != "__init__.py"}


def _imported(path: pathlib.Path, modules: KeysView[str]) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {alias.name: f"{node.module}.{alias.name}" for alias in node.names}
            found |= {full if full in modules else node.module for full in inner.values()}
    return found & modules


def folder_imports(graph: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """{folder of c3r_jax: other folders that its modules import}; modules that only call a command are left out.

    Examples:
      >>> folder_imports({"c3r_jax.step.a": {"c3r_jax.step.b", "c3r_jax.core.c"}, "c3r_jax.core.c": set()})
      {'step': {'core'}, 'core': set()}
    """
    folders: dict[str, set[str]] = {}
    for module, imported in graph.items():
        if module.count(".") > 1 and imported != {ENTRY}:
            folder, *others = [name.split(".")[1] for name in (module, *imported) if name.count(".") > 1]
            folders.setdefault(folder, set()).update(set(others) - {folder})
    return folders


def problems(graph: Mapping[str, set[str]], floors: Floors) -> list[str]:
    """One line for each module without a room, each import that does not lead down, and the first circle of imports.

    Examples:
      >>> problems({"c3r_jax.low": {"c3r_jax.high"}, "c3r_jax.high": {"c3r_jax.low"}}, {"low": 1, "high": 2})[0]
      'c3r_jax.low (floor 1) imports c3r_jax.high (floor 2)'
    """
    found = []
    for module, imported in graph.items():
        room = room_of(module, floors)
        if room is None:
            found.append(f"{module} has no room: give it one in the table of floors in CONTRIBUTING.md")
            continue
        for other in sorted(imported):
            below = room_of(other, floors)
            if below is not None and below != room and floors[below] >= floors[room]:
                found.append(f"{module} (floor {floors[room]}) imports {other} (floor {floors[below]})")
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        found.append("a circle of imports: " + " <- ".join(error.args[1]))
    return found


def heights(folders: Mapping[str, set[str]]) -> dict[str, int]:
    """How many folders lie below each in the longest chain of imports.

    Examples:
      >>> heights({"step": {"core", "tasks"}, "core": {"tasks"}, "tasks": set()})
      {'tasks': 0, 'core': 1, 'step': 2}
    """
    found: dict[str, int] = {}
    for name in graphlib.TopologicalSorter(folders).static_order():
        found[name] = 1 + max((found[other] for other in folders[name]), default=-1)
    return found


def direct(folders: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """Each folder's imports without those that another of its imports has below it: the same order in fewer arrows.

    Examples:
      >>> direct({"step": {"core", "tasks"}, "core": {"tasks"}, "tasks": set()})
      {'step': {'core'}, 'core': {'tasks'}, 'tasks': set()}
    """

    def below(name: str) -> set[str]:
        return set().union(*({other} | below(other) for other in folders[name]))

    return {
        name: {other for other in own if not any(other in below(by) for by in own)} for name, own in folders.items()
    }


if __name__ == "__main__":
    table = read_floors((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    print("\n".join(problems(imports(), table)) or "every import leads down")
