import pytest

from c3r_jax.report import Table, aggregate, results_table, routes_table
from c3r_jax.report.tables import conditions_table, first_stage_table, per_class_table, risks_table


def _row(table: Table, name: str) -> tuple[str, ...]:
    return next(row for row in table.rows if row[0] == name)


def test_results_table_cells(runs):
    table = results_table(aggregate(runs))
    assert table.header[:5] == ("method", "seeds", "clean", "image only", "text only")
    assert table.header[-2:] == ("mean", "worst")
    assert _row(table, "plain")[1:4] == ("3", "87.1 ± 0.1", "62.1 ± 0.1")


def test_bold_needs_a_gain_whose_interval_leaves_out_zero(runs):
    table = results_table(aggregate(runs))
    column = {name: j for j, name in enumerate(table.header)}
    # image only: gains over dropout .040, .041, .042. clean: plain over c3r+dropout .010, .008, .006.
    assert (2, column["image only"]) in table.bold
    assert (0, column["clean"]) in table.bold
    runs[6]["conditions"][0]["routes"]["representation"]["accuracy"] = 0.80  # plain, seed 2
    assert (0, column["clean"]) not in results_table(aggregate(runs)).bold


def test_nothing_is_bold_with_two_seeds_or_one_method(runs):
    assert not results_table(aggregate([r for r in runs if r["seed"] < 2])).bold
    assert not results_table(aggregate([r for r in runs if r["method"] == "plain"])).bold


def test_the_rule_stands_below_the_table(runs):
    assert any(note.startswith("Bold:") for note in results_table(aggregate(runs)).notes)


def test_one_seed_shows_no_sd(run):
    assert _row(results_table(aggregate([run])), "c3r+dropout")[1:3] == ("1", "86.0")


def test_routes_table_leaves_out_a_missing_route(runs):
    assert [row[:2] for row in routes_table(aggregate(runs)).rows] == [
        ("plain", "representation (z)"),
        ("dropout", "representation (z)"),
        ("dropout", "instrument (z_c)"),
        ("c3r+dropout", "representation (z)"),
        ("c3r+dropout", "instrument (z_c)"),
    ]


def test_instrument_table_leaves_out_methods_without_it(runs):
    table = results_table(aggregate(runs), route="instrument")
    assert [row[0] for row in table.rows] == ["dropout", "c3r+dropout"]


def test_markdown_escapes(run):
    run["method"] = "a|b*c <i>"
    text = results_table(aggregate([run])).to_markdown()
    assert "| a\\|b\\*c \\<i> |" in text
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in lines} == {12}


def test_conditions_table(run):
    table = conditions_table(run)
    assert table.header == ("condition", "route", "accuracy, %", "balanced accuracy, %", "macro-F1, %", "NLL", "ECE")
    assert table.rows[0] == ("clean", "representation (z)", "86.0", "84.0", "83.0", "0.151", "0.040")
    assert len(table.rows) == 14


def test_per_class_table(run):
    table = per_class_table(run)
    assert table.rows[1] == ("flags", "80.0", "60.0", "65.0", "101")
    assert table.notes == ("Lowest recall: animals & nature, 50.0 %.",)
    assert per_class_table(run, route="other").rows == ()


def test_risks_of_one_run_show_intervals(run):
    rows = {row[0]: row[1] for row in risks_table([run]).rows}
    assert rows["sufficiency risk R_S"] == "0.180 [0.140, 0.220]"
    assert rows["C3 risk R_S + R_N"] == "0.300"


def test_risks_of_several_seeds_show_sd(runs):
    table = risks_table(runs)
    assert table.header == ("", "plain", "dropout", "c3r+dropout")
    assert table.rows[0][1] == "0.190 ± 0.010"


@pytest.mark.parametrize("missing", [float("nan"), None])
def test_missing_risks_are_not_a_number_but_n_a(run, missing):
    run["risk"] |= {"sufficiency": missing, "intervals": {"necessity": [missing, missing]}}
    rows = {row[0]: row[1] for row in risks_table([run]).rows}
    assert rows.get("sufficiency risk R_S", "n/a") == "n/a"
    assert rows["necessity risk R_N"] == "0.120 [n/a, n/a]"


def test_first_stage_table(run):
    rows = first_stage_table(run).rows
    assert rows[0] == ("image", "0.310", "24.1", "381", "16", "not weak", "12.3 on 8, p 0.140", "n/a")
    assert rows[1][-3:] == ("weak", "n/a", "n/a")
    run["first_stage"]["text"]["exclusion"] = {"rho": 0.8, "low": 0.7, "high": 0.9, "num_rows": 381}
    assert first_stage_table(run).rows[1][-1] == "0.800 [0.700, 0.900]"


def test_runs_without_risks_or_first_stage(run):
    del run["risk"], run["first_stage"], run["per_class"]
    assert risks_table([run]).rows == first_stage_table(run).rows == per_class_table(run).rows == ()
