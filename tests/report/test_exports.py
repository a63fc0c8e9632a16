"""Tables as other programs export them, and as people edit them: the right numbers, or a sentence with the way out."""

import json
import pathlib

import pytest

from c3r_jax.commands import report
from c3r_jax.errors import DataError
from c3r_jax.report import tidy
from c3r_jax.report.comparison import read_published
from c3r_jax.report.tidy import MetricRow, read_export, read_runs

TIDY = "dataset,method,condition,metric,seed,value\n"
Q = "?dataset=emoji&method=plain&metric=accuracy"


def export(tmp_path, text, query="", name="a.csv", encoding="utf-8"):
    (tmp_path / name).write_bytes(text.encode(encoding))
    return read_export(f"{tmp_path / name}{query}")


def row(value, method="plain", seed=0, metric="accuracy", condition="clean"):
    return MetricRow("emoji", method, condition, metric, seed, value)


@pytest.mark.parametrize(
    "query, method, condition",
    [
        ("method=c3r+dropout", "c3r+dropout", "clean"),
        ("method=c3r%2Bdropout", "c3r+dropout", "clean"),
        ("method=a+b+c&condition=Gaussian+2", "a+b+c", "Gaussian+2"),
        ("method=c3r [c3r.cap=0.0]&condition=missing 30 %", "c3r [c3r.cap=0.0]", "missing 30 %"),
        ("method=a%26b&condition=what?", "a&b", "what?"),
        ("method=größer&condition=a=b", "größer", "a=b"),
    ],
)
def test_the_query_says_what_it_says(tmp_path, query, method, condition):
    """So that "c3r+dropout" meets the row of this package."""
    found = export(tmp_path, "Wall time,Step,Value\n1.0,10,0.5\n", f"?dataset=emoji&metric=accuracy&{query}")
    assert found == [row(0.5, method, condition=condition)]


@pytest.mark.parametrize("name", ["what?.csv", "a b.csv", "a+b.csv", "[a]*.csv", "100%20.csv"])
def test_paths_are_paths(tmp_path, name):
    assert export(tmp_path, "seed,value\n0,0.5\n", Q, name) == [row(0.5)]
    assert export(tmp_path, TIDY + "emoji,plain,clean,accuracy,0,0.5\n", "", name) == [row(0.5)]


@pytest.mark.parametrize(
    "query, message",
    [
        ("?method=", "an empty method"),
        ("?method=a&method=b", "the field 'method' twice"),
        ("?methode=a", "has the field 'methode'"),
        ("?method", "an empty method"),
        ("?unit=promille", "has the unit 'promille': expected share or percent"),
    ],
)
def test_queries_that_say_nothing_are_refused(tmp_path, query, message):
    with pytest.raises(DataError, match=message):
        export(tmp_path, "seed,value\n0,0.5\n", query + "&dataset=emoji&metric=accuracy")


@pytest.mark.parametrize("values", [("85.0", "86.5"), ("85", "100"), ("1.5", "0.0"), ("70.0", "70.0")])
@pytest.mark.parametrize("metric", ["accuracy", "macro_f1", "dice_WT"])
def test_percent_become_shares(tmp_path, values, metric):
    text = TIDY + "".join(f"emoji,plain,clean,{metric},{seed},{value}\n" for seed, value in enumerate(values))
    expected = [row(float(value) / 100, seed=seed, metric=metric) for seed, value in enumerate(values)]
    assert export(tmp_path, text) == expected
    assert export(tmp_path, text, "?unit=percent") == expected
    with pytest.raises(DataError, match=rf"has {metric} .*expected a share"):
        export(tmp_path, text, "?unit=share")


def test_percent_below_one_are_said_to_be_percent(tmp_path):
    text = TIDY + "emoji,plain,clean,accuracy,0,0.5\nemoji,plain,worst,accuracy,0,60.0\n"
    assert export(tmp_path, text, "?unit=percent") == [row(0.005), row(0.6, condition="worst")]


@pytest.mark.parametrize("values", [("85.3", "0.86"), ("0.5", "60"), ("1.0", "99.0")])
def test_shares_and_percent_in_one_file_are_refused(tmp_path, values):
    text = TIDY + "".join(f"emoji,plain,clean,accuracy,{seed},{value}\n" for seed, value in enumerate(values))
    with pytest.raises(DataError, match="as if shares and percent were mixed: .*unit=percent"):
        export(tmp_path, text)


@pytest.mark.parametrize("value", ["7000", "-0.1", "101"])
def test_impossible_shares_are_refused(tmp_path, value):
    with pytest.raises(DataError, match="expected a share from 0 to 1 or 0 to 100 percent"):
        export(tmp_path, TIDY + f"emoji,plain,clean,accuracy,0,{value}\n")
    assert export(tmp_path, TIDY + f"emoji,plain,clean,score,0,{value}\n") == [row(float(value), metric="score")]


@pytest.mark.parametrize("value", [73.85, "0.7", None, True])
def test_published_shares_are_shares(tmp_path, value):
    given = {"dataset": "a", "method": "b", "condition": "clean", "metric": "accuracy", "value": value, "source": "c"}
    (tmp_path / "p.json").write_text(json.dumps({"rows": [given]}))
    with pytest.raises(DataError, match=r"p\.json, row 1, has accuracy .*a share from 0 to 1"):
        read_published(tmp_path / "p.json")


BOARD = "Wall time,Step,Value\n"


@pytest.mark.parametrize(
    "lines, value",
    [
        ("1,10,0.5\n2,20,0.6\n3,30,0.55\n10,20,0.71\n11,30,0.74\n", 0.74),
        ("11,30,0.74\n10,20,0.71\n3,30,0.55\n", 0.74),
        ("1,10,0.5\n1,10,0.6\n", 0.6),
        ("1,9,0.5\n2,10,0.6\n3,100,0.7\n", 0.7),
        ("1.7e9,3,0.1\n1.8e9,3,0.2\n1.75e9,3,0.3\n", 0.2),
    ],
)
def test_a_resumed_run_has_the_value_that_was_written_last(tmp_path, lines, value):
    assert export(tmp_path, BOARD + lines, Q) == [row(value)]


def test_an_earlier_attempt_that_went_further_is_warned_of(tmp_path, caplog):
    assert export(tmp_path, BOARD + "1,10,0.5\n3,30,0.55\n10,20,0.71\n", Q) == [row(0.55)]
    assert "ends at step 20, but has step 30 of an earlier attempt" in caplog.text


@pytest.mark.parametrize(
    "text",
    [
        '\ufeff"Wall time","Step","Value"\r\n1.0,10,0.5\r\n',
        ",Wall time,Step,Value\n0,1.0,10,0.5\n",
        "Wall time;Step;Value\n1,0;10;0,5\n",
        "wall time, step, value\n1.0, 10, 0.5\n",
        "Wall time\tStep\tValue\n1.0\t10\t0.5\n",
    ],
)
def test_dialects_of_a_scalar(tmp_path, text):
    assert export(tmp_path, text, Q) == [row(0.5)]


@pytest.mark.parametrize(
    "text",
    [
        "dataset, method, condition, metric, seed, value\nemoji, plain, clean, accuracy, 0, 0.5\n",
        "dataset;method;condition;metric;seed;value\nemoji;plain;clean;accuracy;0;0,5\n",
        "Dataset,Method,Condition,Metric,Seed,Value\nemoji,plain,clean,accuracy,0,0.5\n",
        ",dataset,method,condition,metric,seed,value\n7,emoji,plain,clean,accuracy,0.0,0.5\n",
        "dataset,method,condition,metric,seed,value\remoji,plain,clean,accuracy,0,.5\r",
        "\ufeffdataset,method,condition,metric,seed,value,\nemoji,plain,clean,accuracy,0,5e-1,\n",
    ],
)
def test_dialects_of_tidy_tables(tmp_path, text):
    assert export(tmp_path, text) == [row(0.5)]


@pytest.mark.parametrize("seed, number", [("0.0", 0), ("3.", 3), (" 12 ", 12), ("1.000", 1)])
def test_whole_seeds_in_any_form(tmp_path, seed, number):
    assert export(tmp_path, f"Name,seed,accuracy\nplain,{seed},0.8\n", "?dataset=emoji") == [row(0.8, seed=number)]
    text = json.dumps([{**row(0.8)._asdict(), "seed": float(seed)}])
    assert export(tmp_path, text, name="a.json") == [row(0.8, seed=number)]


@pytest.mark.parametrize("seed", ["0.5", "1e3", "nan", "x", "1_0", True, 1.5])
def test_other_seeds_are_refused(tmp_path, seed):
    text = json.dumps([{**row(0.8)._asdict(), "seed": seed}])
    with pytest.raises(DataError, match="row 1: .*no whole number; expected .*a whole number as seed"):
        export(tmp_path, text, name="a.json")
    if not isinstance(seed, str):
        run = {"dataset": "toy", "method": "a", "seed": seed, "conditions": []}
        (tmp_path / "results.json").write_text(json.dumps(run))
        with pytest.raises(DataError, match="no whole number"):
            read_runs([tmp_path])


@pytest.mark.parametrize("value", ["1_000", "0x1", "True", "0,5", "٣"])
def test_values_that_are_no_numbers_are_refused(tmp_path, value):
    with pytest.raises(DataError, match="row 2.*could not convert|beyond the header"):
        export(tmp_path, TIDY + f"emoji,plain,clean,score,0,{value}\n")


@pytest.mark.parametrize("bad", ["NaN", "Infinity", "-inf", "nan"])
def test_a_crashed_run_does_not_refuse_the_others(tmp_path, caplog, bad):
    text = (
        f"Name,State,seed,accuracy,loss\nplain,finished,0,0.8,0.1\nplain,crashed,1,{bad},0.2\nc3r,finished,0,0.9,0.3\n"
    )
    found = export(tmp_path, text, "?dataset=emoji&metric=accuracy")
    assert found == [row(0.8), row(0.9, "c3r")]
    assert "1 values are no finite numbers and are left out: plain, clean, accuracy, seed 1" in caplog.text
    assert "1 runs that did not finish (plain (crashed))" in caplog.text
    tidy = TIDY + f"emoji,plain,clean,accuracy,0,0.8\nemoji,plain,clean,accuracy,1,{bad}\n"
    assert export(tmp_path, tidy) == [row(0.8)]
    with pytest.raises(DataError, match="expected a finite number"):
        export(tmp_path, TIDY + f"emoji,plain,clean,accuracy,1,{bad}\n")


CHART = (
    '"Step","plain-s0 - val/accuracy","plain-s0 - val/accuracy__MIN","plain-s0 - val/accuracy__MAX",'
    '"plain-s1 - val/accuracy","plain-s1 - val/accuracy__MIN","plain-s1 - val/accuracy__MAX"\n'
    '"10","0.5","0.1","0.9","","",""\n"20","0.6","0.2","0.95","0.61","0.3","0.99"\n"30","","","","0.62","",""\n'
)


@pytest.mark.parametrize("step", ["Step", "_step", "trainer/global_step", "Relative Time (Process)", "epoch"])
def test_charts_have_a_value_per_run_without_their_ranges(tmp_path, step):
    text = CHART.replace('"Step"', f'"{step}"')
    assert export(tmp_path, text, Q) == [row(0.6), row(0.62, seed=1)]
    own = export(tmp_path, text, "?dataset=emoji")
    assert own == [row(0.6, "plain-s0", metric="val/accuracy"), row(0.62, "plain-s1", metric="val/accuracy")]


def test_runs_of_a_chart_without_seeds_are_refused(tmp_path):
    text = CHART.replace("plain-s0", "fearless sun").replace("plain-s1", "calm lake")
    with pytest.raises(DataError, match="has 2 curves, but one method is given"):
        export(tmp_path, text, Q)
    assert [found.method for found in export(tmp_path, text, "?dataset=emoji&metric=accuracy")] == [
        "fearless sun",
        "calm lake",
    ]


@pytest.mark.parametrize("extra", ["accuracy__MIN", "accuracy__MAX", "_step", "_runtime", "Runtime", "_wandb.x"])
def test_ranges_and_counters_of_tables_are_no_metrics(tmp_path, extra):
    assert export(tmp_path, f"Name,{extra},accuracy\nplain,3,0.8\n", "?dataset=emoji") == [row(0.8)]


def test_what_is_given_names_the_method_and_chooses_the_metric(tmp_path):
    text = "Name,seed,accuracy,nll\nfearless-sun-12,0,0.8,0.4\ncalm-lake-3,1,0.9,0.3\n"
    assert export(tmp_path, text, Q) == [row(0.8), row(0.9, seed=1)]
    with pytest.raises(DataError, match="has no 'dice', but accuracy, nll: give one of these as metric"):
        export(tmp_path, text, "?dataset=emoji&metric=dice")
    renamed = export(tmp_path, "Name,test_acc\nplain,0.8\n", "?dataset=emoji&metric=accuracy")
    assert renamed == [row(0.8)]


@pytest.mark.parametrize("content", ["3", '"text"', "null", "[]", "true", "0.5"])
def test_json_of_another_kind_is_refused(tmp_path, content):
    with pytest.raises(DataError, match=r"a\.json holds .*expected a list of rows"):
        export(tmp_path, content, name="a.json")


@pytest.mark.parametrize("content", ["3", '"text"', "null", "[1]", '{"runs": 3}', '{"runs": null}', '{"runs": [[]]}'])
def test_results_of_another_kind_are_refused(tmp_path, content):
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(DataError, match=r"results\.json is not the results of a run"):
        read_runs([tmp_path])


def test_a_run_without_an_instrument_has_no_such_route(tmp_path):
    run = {"dataset": "toy", "method": "c3r", "seed": 0, "config": {"c3r": {"instrument": "none"}}, "conditions": []}
    (tmp_path / "results.json").write_text(json.dumps({"runs": [run]}))
    with pytest.raises(DataError, match=r"config\.c3r\.instrument is 'none', which has no route 'instrument'"):
        read_runs([tmp_path], route="instrument")


def test_a_byte_order_mark_is_no_part_of_json(tmp_path):
    assert export(tmp_path, "\ufeff" + json.dumps([row(0.5)._asdict()]), name="a.json") == [row(0.5)]


@pytest.mark.parametrize(
    "text, message",
    [
        (TIDY + "emoji,plain,clean,accuracy,0,0.8,extra\n", "row 2, has 'extra' beyond the header's 6 columns"),
        ("seed,value,value\n0,0.1,0.2\n", "has the column 'value' twice"),
        ("Name,accuracy\nplain,0.8\nplain,0.9\n", "has seed 0 twice"),
    ],
)
def test_tables_with_two_meanings_are_refused(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        export(tmp_path, text, "?dataset=emoji" if "Name" in text else "")


def test_many_values_that_are_no_numbers_take_no_longer_than_others(monkeypatch):
    """Each is looked at by itself: comparing it with all others would take minutes for a long chart."""
    compared = []
    monkeypatch.setattr(MetricRow, "__eq__", lambda a, b: compared.append(1) or tuple.__eq__(a, b), raising=False)
    rows = [MetricRow("emoji", "plain", "clean", "accuracy", seed, seed % 2 or float("nan")) for seed in range(100)]
    assert len(tidy._finite(rows, pathlib.Path("runs.csv"))) == 50 and not compared


def test_keys_twice_in_an_object_are_refused(tmp_path):
    path = tmp_path / "runs.json"
    row = '{"dataset": "emoji", "method": "plain", "metric": "accuracy", "seed": 0, "value": 0.5, "value": 0.9}'
    path.write_text(f"[{row}]")
    with pytest.raises(DataError, match=r"runs\.json cannot be read \(it has the key 'value' twice\)"):
        read_export(str(path))


@pytest.mark.parametrize(
    ("place", "other"),
    [(0, "Emoji"), (1, "C3R+Dropout"), (1, "c3r+dropout\u200b"), (2, "missing_text"), (3, "Accuracy")],
)
def test_names_in_two_ways_are_warned_of(tmp_path, caplog, capsys, place, other):
    """Their rows never meet."""
    names = ["emoji", "c3r+dropout", "missing text", "accuracy"]
    for file, changed in (("a.csv", names[place]), ("b.csv", other)):
        row = [*names[:place], changed, *names[place + 1 :], "0", "0.5"]
        (tmp_path / file).write_text("dataset,method,condition,metric,seed,value\n" + ",".join(row) + "\n")
    both = [argument for file in ("a.csv", "b.csv") for argument in ("--torch", str(tmp_path / file))]
    report.main(["compare", *both, "--out", str(tmp_path / "out")], "c3r report")
    (record,) = [record for record in caplog.records if "ways" in record.getMessage()]
    assert f"{names[place]!r} and " in record.getMessage() or f" and {names[place]!r}" in record.getMessage()
    assert repr(other) in record.getMessage()
