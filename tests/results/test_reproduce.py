"""Recorded tables: written and read back, compared cell by cell, and equal to what the pages show."""

import json
import pathlib
import re
import time

import numpy as np
import pytest

from benchmarks.sets import without_folders
from c3r_jax.commands import reproduce
from c3r_jax.errors import DataError
from c3r_jax.results.catalogue import SOURCES
from c3r_jax.results.compare import compare, verdicts
from c3r_jax.results.markdown import BLOCK, fill, table
from c3r_jax.results.record import Meter, Record, cells, cost_line, read_record, tables_of, write_record
from tools.fill_tables import ROOT, pages
from tools.summary_figure import SAME, SHIFTED, draw

TABLES = {
    "emoji": {
        "plain": {"accuracy": [0.5, 0.7, 0.6], "worst": [0.2, None, 0.1]},
        "c3r": {"accuracy": [0.6, 0.8, 0.7], "worst": [0.3, None, 0.2]},
    }
}


def record(**changes) -> Record:
    fields = {
        "name": "t",
        "command": ("benchmarks/t.py",),
        "seeds": 3,
        "tables": TABLES,
        "settings": {"lambda_n": 1.0},
        "commit": "0" * 12,
        "versions": {"jax": "1"},
        "machine": {"cores": 2},
        "data": {},
        "seconds": None,
        "peak_bytes": None,
        "date": "2026-01-01",
        "parameters": {},
    }
    return Record(**{**fields, **changes})


def test_a_record_is_read_as_it_was_written(tmp_path):
    path = tmp_path / "t.json"
    write_record(record(), path)
    assert read_record(path) == record()
    assert not list(tmp_path.glob("*.part"))


def test_what_a_record_took_is_one_line(tmp_path):
    assert cost_line(record()) == "3 seeds"
    took = record(parameters={"a": 1234, "b": 1234}, seconds=90.0, peak_bytes=2**30)
    assert cost_line(took) == "3 seeds, 1,234 parameters, 1.5 minutes, 1.0 GiB"
    write_record(took, tmp_path / "t.json")
    assert read_record(tmp_path / "t.json") == took
    meter = Meter()
    held = np.ones(2**20)  # 8 MiB
    time.sleep(0.01)
    found = meter.read()
    assert found["seconds"] >= 0.01
    status = pathlib.Path("/proc/self/status")  # the kernel's own account, where there is one
    if status.exists():
        highest = 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text())[1])
        assert held.nbytes < found["peak_bytes"] == pytest.approx(highest, rel=0.05)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"name": 1}'])
def test_a_file_that_is_no_record_is_named(tmp_path, text):
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"bad\.json is no record of results"):
        read_record(path)
    with pytest.raises(DataError, match="does not exist: record the table first"):
        read_record(tmp_path / "none.json")


def test_a_value_that_is_not_finite_is_refused():
    with pytest.raises(DataError, match="finite numbers were expected"):
        record(tables={"": {"plain": {"accuracy": [float("nan")]}}})


def test_every_cell_gets_its_verdict():
    found = {
        "emoji": {
            "plain": {"accuracy": [0.5, 0.7, 0.6], "worst": [0.2, None, 0.1000001]},
            "c3r": {"accuracy": [0.62, 0.75, 0.66]},
        }
    }
    got = compare(TABLES, found, tolerance=1e-5)
    assert [cell.verdict for cell in got] == ["equal", "rounding", "within the spread", "missing"]
    assert verdicts(got) == {"equal": 1, "rounding": 1, "within the spread": 1, "missing": 1}
    far = {"emoji": {"plain": {"accuracy": [0.9, 0.95, 0.99]}}}
    assert compare({"emoji": {"plain": {"accuracy": [0.5, 0.7, 0.6]}}}, far)[0].verdict == "differs"


def test_a_seed_that_has_no_value_any_more_is_missing():
    old = {"": {"plain": {"accuracy": [0.5, 0.6]}}}
    assert compare(old, {"": {"plain": {"accuracy": [0.5, None]}}})[0].verdict == "missing"


def test_fewer_seeds_are_compared_with_the_same_seeds():
    found = {"emoji": {"plain": {"accuracy": [0.5]}}}
    assert compare({"emoji": {"plain": {"accuracy": [0.5, 0.9]}}}, found)[0].verdict == "equal"


def test_intervals_of_a_table_are_paired():
    spec = {
        "record": "t",
        "rows": {"plain": {"row": "plain"}, "C3R": {"row": "c3r"}},
        "columns": {
            "accuracy": {"table": "emoji", "column": "accuracy"},
            "worst": {"table": "emoji", "column": "worst"},
        },
        "over": {"row": "plain"},
        "show": "interval",
    }
    lines = table(spec, record()).splitlines()
    assert lines[2] == "| plain | 60.0 | 15.0 |"
    assert lines[3] == "| C3R | 70.0 (+10.0, +10.0 to +10.0) | 25.0 (+10.0, +10.0 to +10.0) |"
    with pytest.raises(DataError, match="has no row 'c4r': expected one of 'plain', 'c3r'"):
        table({**spec, "rows": {"x": {"row": "c4r"}}}, record())
    with pytest.raises(DataError, match="has median, but"):
        table({**spec, "show": "median"}, record())


def test_a_row_may_be_compared_with_a_place_of_its_own():
    spec = {
        "record": "t",
        "rows": {"C3R": {"row": "c3r", "over": {"row": "plain"}}, "plain": {"row": "plain"}},
        "columns": {"accuracy": {"table": "emoji", "column": "accuracy"}},
        "show": "difference",
    }
    assert table(spec, record()).splitlines()[2:] == ["| C3R | 70.0 (+10.0) |", "| plain | 60.0 |"]


def test_a_page_is_filled_and_stays_so():
    spec = {
        "record": "t",
        "rows": {"plain": {"row": "plain"}},
        "columns": {"a": {"table": "emoji", "column": "accuracy"}},
    }
    page = f"Text.\n\n<!-- table: {json.dumps(spec)} -->\nold\n<!-- end -->\n\nMore.\n"
    once = fill(page, lambda name: record(name=name))
    assert "| plain | 60.0 |" in once and "old" not in once and once.endswith("More.\n")
    assert fill(once, lambda name: record(name=name)) == once


def test_the_pages_show_what_is_recorded():
    differ = [page.name for page, text in pages().items() if page.read_text(encoding="utf-8") != text]
    assert not differ, "run python tools/fill_tables.py"


def test_the_figure_of_the_readme_shows_every_set():
    figure = draw({"shift": read_record(ROOT / "results" / "shift.json")})
    assert [len(axes.get_yticks()) for axes in figure.axes] == [len(SAME), len(SHIFTED)]
    of_c3r = next(line for line in figure.axes[1].lines if line.get_label() == "C3R (default)")
    assert float(of_c3r.get_xdata()[0]) == pytest.approx(5.9, abs=0.2)  # emoji by other makers, as in the table


def test_records_name_no_folder_of_the_machine_that_made_them():
    made = {"data": {"path": "/home/me/data", "name": "watch"}, "steps": 3}
    assert without_folders(made) == {"data": {"path": "data", "name": "watch"}, "steps": 3}
    for path in sorted((ROOT / "results").glob("*.json")):
        settings = dict(read_record(path).settings)
        assert without_folders(settings) == settings, path.name


def test_every_record_has_its_command():
    """A record is of the command of its source, with every seed that it claims."""
    recorded = sorted(path.stem for path in (ROOT / "results").glob("*.json"))
    assert recorded and set(recorded) <= SOURCES.keys()
    for name in recorded:
        found = read_record(ROOT / "results" / f"{name}.json")
        assert found.name == name and found.command[: len(SOURCES[name].command)] == SOURCES[name].command
        assert found.commit and found.machine["processor"] and found.versions["jax"]
        lengths = {len(values) for _, values in cells(found.tables)}
        assert min(lengths) == found.seeds and not any(n % found.seeds for n in lengths)  # folds are values, too


def test_the_command_compares_what_was_found(tmp_path, capsys):
    name = "shift"
    recorded = read_record(ROOT / "results" / f"{name}.json")
    figures = {
        table: {row: {key: {"seeds": values} for key, values in columns.items()} for row, columns in rows.items()}
        for table, rows in recorded.tables.items()
    }
    path = tmp_path / "found.json"
    path.write_text(json.dumps({"cases": figures}))
    reproduce.main([name, "--found", str(path)])
    assert f"cells: {len(cells(recorded.tables))} equal." in capsys.readouterr().out
    first = next(iter(next(iter(next(iter(figures.values())).values())).values()))
    first["seeds"] = [value + 5 for value in first["seeds"] if value is not None]
    path.write_text(json.dumps({"cases": figures}))
    with pytest.raises(SystemExit) as stopped:
        reproduce.main([name, "--found", str(path), "--json", str(tmp_path / "cells.json")])
    assert stopped.value.code == 1 and "1 differs." in capsys.readouterr().out
    assert json.loads((tmp_path / "cells.json").read_text())[0]["verdict"] == "differs"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{}", "KeyError: 'cases'"),
        ("[]", "TypeError"),
        ('{"cases": []}', "AttributeError"),
        ('{"cases": {"a": {"b": {"c": {}}}}}', "KeyError: 'seeds'"),
        ('{"cases": {"a": {"b": {"c": {"seeds": ["x"]}}}}}', "ValueError: could not convert"),
    ],
)
@pytest.mark.parametrize("more", [[], ["--record"]])
def test_a_file_of_another_shape_is_named(tmp_path, text, reason, more):
    path = tmp_path / "found.json"
    path.write_text(text)
    message = rf"^c3r reproduce: .*found\.json is not the JSON of table 'shift' \({reason}.*: give the file that bench"
    with pytest.raises(SystemExit, match=message):
        reproduce.main(["shift", "--found", str(path), *more])


def test_a_comparison_that_cannot_be_written_is_said_first(tmp_path, monkeypatch):
    monkeypatch.setattr(reproduce, "run", lambda command: pytest.fail("the table was made"))
    with pytest.raises(SystemExit, match=r"--json is .*no/such\.json, but .*no is no folder: make it, or name another"):
        reproduce.main(["safety", "--json", str(tmp_path / "no" / "such.json")])
    with pytest.raises(SystemExit, match=f"--json is {tmp_path}, which is a folder: name a file"):
        reproduce.main(["safety", "--json", str(tmp_path)])


def test_a_comparison_that_is_not_written_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(reproduce, "reproduce", lambda *_: [])
    with pytest.raises(SystemExit, match=r"cells\.json cannot be written \(Not a directory\): name another file"):
        (tmp_path / "afile").touch()
        reproduce.main(["safety", "--json", str(tmp_path / "afile" / "cells.json")])
    assert "0 cells" in capsys.readouterr().out  # the comparison itself is not lost


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "table 'nothing' is unknown: expected one of"),
        ([], "no table is named: expected one of"),
        (["safety", "--seeds", "99"], "--seeds is 99, but at most 5 were expected"),
        (["safety", "--seeds", "0"], "--seeds is 0, but at least 1 was expected"),
        (["shift", "--weights", "nowhere", "--record"], "nowhere has no file of efficientnet"),
        (["safety", "--record", "--found", "nowhere.json"], "nowhere.json cannot be read"),
    ],
)
def test_what_cannot_be_made_is_said_first(arguments, message):
    with pytest.raises(SystemExit, match=message):
        reproduce.main(arguments)


def test_the_list_names_what_each_table_needs(capsys):
    reproduce.main(["--list"])
    text = capsys.readouterr().out
    assert all(name in text for name in SOURCES) and "c3r prepare openclipart" in text
    assert len(re.findall(r"recorded: \d+ seeds|not recorded", text)) == len(SOURCES)


def test_levels_of_a_benchmark_become_places():
    found = {"plain": {"representation": {"same": [0.5, 0.6]}}}
    assert tables_of(found, ("row", "column", "column")) == {"": {"plain": {"representation, same": [0.5, 0.6]}}}


def test_blocks_are_separate():
    text = '<!-- table: {"record": "a"} -->\nx\n<!-- end -->\n<!-- table: {"record": "b"} -->\ny\n<!-- end -->'
    assert [match["spec"] for match in BLOCK.finditer(text)] == ['{"record": "a"}', '{"record": "b"}']
    assert pathlib.Path(ROOT / "results").is_dir()
