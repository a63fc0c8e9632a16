"""Every import of the package leads down, by the table of floors in CONTRIBUTING.md."""

import pytest

from tools.floors import ROOT, imports, problems, read_floors, room_of

FLOORS = read_floors((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))


def test_no_import_leads_up_and_none_in_a_circle():
    assert problems(imports(), FLOORS) == []


def test_every_room_of_the_table_is_there():
    assert {room_of(module, FLOORS) for module in imports()} == FLOORS.keys()


def write_package(folder, files):
    for name, text in files.items():
        path = folder / "c3r_jax" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return imports(folder)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"core/risk.py": "from c3r_jax.models import twin\n", "models/twin.py": ""}, "c3r_jax.core.risk (floor"),
        (
            {"core/risk.py": "def f():\n    import c3r_jax.models.twin\n", "models/twin.py": ""},
            "imports c3r_jax.models",
        ),
        ({"core/a.py": "import c3r_jax.core.b\n", "core/b.py": "from c3r_jax.core.a import x\n"}, "a circle"),
        ({"attic/a.py": "import c3r_jax.errors\n", "errors.py": ""}, "c3r_jax.attic.a has no room"),
    ],
)
def test_what_breaks_the_rule_is_named(tmp_path, files, message):
    (found,) = problems(write_package(tmp_path, files), FLOORS)
    assert message in found
