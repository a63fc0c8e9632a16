"""Comparisons: what was measured here, in PyTorch and elsewhere, each where it belongs."""

import csv
import json
import math

import numpy as np
import pytest
from scipy import stats

from c3r_jax.commands.report import main
from c3r_jax.errors import DataError
from c3r_jax.report.comparison import HEADER, compare_results, comparison_tables, read_published
from c3r_jax.report.tidy import MetricRow, read_export, read_runs


def rows(method, values, dataset="toy", metric="accuracy"):
    return [MetricRow(dataset, method, "clean", metric, seed, value) for seed, value in values.items()]


def result(method, seed, accuracy):
    routes = {"representation": {"accuracy": accuracy, "nll": 0.5}, "instrument": {"accuracy": accuracy - 0.1}}
    condition = {"name": "clean", "routes": routes}
    return {"dataset": "toy", "method": method, "seed": seed, "conditions": [condition]}


def test_paired_interval_where_seeds_are_shared():
    ours, theirs = {0: 0.8, 1: 0.9, 2: 0.85}, {0: 0.75, 1: 0.86, 2: 0.83}
    (row,) = compare_results(rows("plain", ours), rows("plain", theirs), [])
    gaps = np.array([0.05, 0.04, 0.02])
    half = stats.t.ppf(0.975, 2) * gaps.std(ddof=1) / math.sqrt(3)
    np.testing.assert_allclose(row.difference, [gaps.mean(), gaps.mean() - half, gaps.mean() + half])


def test_welch_interval_where_seeds_differ():
    ours, theirs = [0.8, 0.9, 0.85], [0.7, 0.72, 0.74, 0.8]
    (row,) = compare_results(rows("plain", dict(enumerate(ours))), rows("plain", dict(enumerate(theirs, 5))), [])
    variances = [np.var(x, ddof=1) / len(x) for x in (ours, theirs)]
    freedom = sum(variances) ** 2 / sum(v**2 / (len(x) - 1) for v, x in zip(variances, (ours, theirs), strict=True))
    gap, half = np.mean(ours) - np.mean(theirs), stats.t.ppf(0.975, freedom) * math.sqrt(sum(variances))
    np.testing.assert_allclose(row.difference, [gap, gap - half, gap + half])


def test_published_figures_are_never_in_a_measured_column():
    """Shipped figures stand in their own two columns, with their source, as they were published."""
    made = comparison_tables(compare_results(rows("QMF", {0: 0.7}, dataset="mvsa"), [], read_published()))
    assert list(made) == ["mvsa"]  # only what was measured is compared
    lines = made["mvsa"].rows
    assert [line[3:8] for line in lines if line[1] == "clean"] == [("70.0", "1", "", "", "")]
    quoted = [line for line in lines if line[-1]]
    assert [line[-2] for line in quoted] == ["73.85 ± 1.42", "73.06 ± 1.77", "66.00 to 69.00"]
    assert all(line[3:8] == ("",) * 5 for line in quoted)


def test_every_published_row_names_its_source_and_none_is_of_c3r():
    published = read_published()
    assert len(published) == 28
    assert all(row.source and "c3r" not in row.key[1].lower() for row in published)


def test_command_writes_every_format(tmp_path, capsys):
    for seed, accuracy in enumerate((0.8, 0.9)):
        run = tmp_path / "study" / f"seed_{seed}"
        run.mkdir(parents=True)
        (run / "results.json").write_text(json.dumps(result("plain", seed, accuracy)))
        (run / "shift").mkdir()  # another split of the same run, which is not what is compared
        (run / "shift" / "results.json").write_text(json.dumps(result("plain", seed, 0.1)))
    torch = tmp_path / "torch.csv"
    torch.write_text("seed,value\n0,0.7\n1,0.85\n")
    out = tmp_path / "out"
    main(
        ["compare", "--runs", str(tmp_path / "study"), "--torch"]
        + [f"{torch}?dataset=toy&method=plain&metric=accuracy", "--out", str(out)],
        "c3r report",
    )
    assert "85.0 ± 7.1" in capsys.readouterr().out
    with (out / "comparison.csv").open() as file:
        table = list(csv.DictReader(file))
    (accuracy,) = [row for row in table if row["metric"] == "accuracy, %"]
    assert (accuracy["here"], accuracy["PyTorch"], accuracy["PyTorch seeds"]) == ("85.0 ± 7.1", "77.5 ± 10.6", "2")
    content = json.loads((out / "comparison.json").read_text())["rows"]
    np.testing.assert_allclose(content[0]["difference"][0], 0.075)
    assert len(content) == 2 and content[1]["torch"] is None
    assert "\\toprule" in (out / "comparison.tex").read_text()
    for ending in ("html", "md"):
        text = (out / f"comparison.{ending}").read_text()
        assert all(name in text for name in HEADER[:7]) and "7.5" in text


def test_ablations_of_one_method_are_told_apart(tmp_path, capsys):
    """By the settings that differ; seeds, the size of batches and the place of the data make no other method."""
    folders = []
    for name, weight, accuracies in (("whole", 3.0, (0.8, 0.9)), ("no_necessity", 0.0, (0.6, 0.7))):
        for seed, accuracy in enumerate(accuracies):
            config = {"seed": seed, "c3r": {"lambda_n": weight}, "data": {"path": name}}
            config["eval"] = {"batch_size": 8 * len(name)}
            config["modality_dropout"] = {"switch": {3.0: "off", 0.0: "auto"}[weight]}  # part of the method's name
            summary = {"representation": {"mean_accuracy": accuracy - 0.1, "worst_accuracy": None}}
            extra = {"config": config, "metric": "accuracy", "summary": summary}
            run = tmp_path / name / f"seed_{seed}"
            run.mkdir(parents=True)
            (run / "results.json").write_text(json.dumps({**result("c3r", seed, accuracy), **extra}))
        folders.append(str(tmp_path / name))
    main(["compare", "--runs", *folders, "--metric", "accuracy", "--out", str(tmp_path / "out")], "c3r report")
    shown = [line.split(" | ")[:5] for line in capsys.readouterr().out.splitlines() if line.startswith("| c3r")]
    assert shown == [
        ["| c3r", "clean", "accuracy, %", "85.0 ± 7.1", "2"],
        ["| c3r \\[c3r.lambda_n=0.0]", "clean", "accuracy, %", "65.0 ± 7.1", "2"],
        ["| c3r", "mean", "accuracy, %", "75.0 ± 7.1", "2"],
        ["| c3r \\[c3r.lambda_n=0.0]", "mean", "accuracy, %", "55.0 ± 7.1", "2"],
    ]
    page = (tmp_path / "out" / "comparison.html").read_text()
    assert "c3r [c3r.lambda_n=0.0]" in page and "In brackets: settings" in page


def test_pretraining_is_compared_by_its_own_scores(tmp_path, capsys):
    """Retrieval by direction, classes by phrases and linear probes by subset; what was not measured is left out."""
    for method, found in (("plain", 0.5), ("c3r", 0.75)):
        rows = [{"condition": "clean", "modalities": "text only", "zero_shot": found - 0.2, "linear_probe": found}]
        retrieval = {"image to text": found, "text to image": None}
        said = {"dataset": "toy", "method": method, "seed": 0, "retrieval": retrieval, "conditions": rows}
        (tmp_path / method).mkdir()
        (tmp_path / method / "results.json").write_text(json.dumps(said))
    runs = [str(tmp_path / "plain"), str(tmp_path / "c3r")]
    main(["compare", "--runs", *runs, "--out", str(tmp_path / "out")], "c3r report")
    shown = [line.split(" | ")[:4] for line in capsys.readouterr().out.splitlines() if line.startswith(("| p", "| c"))]
    assert shown == [
        ["| plain", "image to text", "retrieval, %", "50.0"],
        ["| c3r", "image to text", "retrieval, %", "75.0"],
        ["| plain", "clean, text only", "zero_shot, %", "30.0"],
        ["| c3r", "clean, text only", "zero_shot, %", "55.0"],
        ["| plain", "clean, text only", "linear_probe, %", "50.0"],
        ["| c3r", "clean, text only", "linear_probe, %", "75.0"],
    ]


def test_a_study_is_its_runs_and_on_vectors_its_table(tmp_path):
    (tmp_path / "results.json").write_text(json.dumps({"schema": 1, "runs": [{"world": "null", "seed": 0}]}))
    with pytest.raises(DataError, match="Of a study on vectors the table is in its results.md"):
        read_runs([tmp_path])
    (tmp_path / "emoji").mkdir()
    write_run(tmp_path / "emoji" / "seed_0", 0)
    assert {row.seed for row in read_runs([tmp_path])} == {0}


def write_run(folder, seed, **changes):
    folder.mkdir()
    said = {"split": "test", "num_examples": 60, "class_names": ["neg", "pos"], "task": "classification"}
    said["sha256"] = "a" * 64
    (folder / "results.json").write_text(json.dumps({**result("c3r", seed, 0.8 + seed / 100), **said, **changes}))


@pytest.mark.parametrize(
    ("changes", "differ"),
    [
        ({"split": "validation"}, r"split \(test and validation\)"),
        ({"num_examples": 121}, r"num_examples \(60 and 121\)"),
        ({"task": "multilabel"}, r"task \(classification and multilabel\)"),
        ({"sha256": "b" * 64}, "sha256"),
        ({"class_names": ["mid", "neg"]}, r"class_names \(\['neg', 'pos'\] and \['mid', 'neg'\]\)"),
    ],
)
def test_runs_on_other_examples_are_not_averaged(tmp_path, changes, differ):
    for seed, changed in enumerate(({}, {}, changes)):
        write_run(tmp_path / f"run_{seed}", seed, **changed)
    message = rf"run_0/results\.json \(c3r, seed 0\) and .*run_2/results\.json \(c3r, seed 2\) .*'toy', .*{differ}"
    with pytest.raises(SystemExit, match=message):
        main(["compare", "--runs", str(tmp_path), "--out", str(tmp_path / "out")], "c3r report")
    assert not (tmp_path / "out").exists()
    write_run(tmp_path / "elsewhere", 3, dataset="other", **changes)  # another data set has examples of its own
    assert {row.dataset for row in read_runs([tmp_path / "run_0", tmp_path / "elsewhere"])} == {"toy", "other"}


@pytest.mark.parametrize("leaf, value", [("calibrate", "biases"), ("noise_seed", 1), ("protocols", ["noise"])])
def test_runs_evaluated_in_another_way_are_told_apart(tmp_path, leaf, value):
    ways = {"calibrate": "none", "noise_seed": 0, "protocols": []}
    for seed, changed in enumerate(({}, {leaf: value})):
        write_run(tmp_path / f"run_{seed}", seed, config={"seed": seed, "eval": {**ways, **changed}})
    assert {(row.method, row.seed) for row in read_runs([tmp_path])} == {("c3r", 0), (f"c3r [eval.{leaf}={value}]", 1)}


def test_exports(tmp_path):
    board = tmp_path / "board.csv"
    board.write_text("Wall time,Step,Value\n1.0,1,0.5\n2.0,3,0.7\n3.0,2,0.6\n")
    query = "?dataset=toy&method=plain&metric=accuracy&seed=4"
    assert read_export(f"{board}{query}") == rows("plain", {4: 0.7})
    wandb = tmp_path / "wandb.csv"
    wandb.write_text('"Name","State","seed","accuracy"\n"plain","finished","0","0.8"\n"c3r","finished","1","0.9",""\n')
    assert read_export(f"{wandb}?dataset=toy") == rows("plain", {0: 0.8}) + rows("c3r", {1: 0.9})
    tidy = tmp_path / "rows.json"
    tidy.write_text(json.dumps([row._asdict() for row in rows("plain", {0: 0.8})]))
    assert read_export(str(tidy)) == rows("plain", {0: 0.8})
    own = tmp_path / "results.json"
    own.write_text(json.dumps({"runs": [result("plain", 0, 0.8)]}))
    assert read_export(str(own)) == rows("plain", {0: 0.8}) + rows("plain", {0: 0.5}, metric="nll")
    assert read_runs([tmp_path], route="instrument") == rows("plain", {0: 0.7000000000000001})


@pytest.mark.parametrize(
    ("name", "text", "query", "message"),
    [
        ("a.csv", "seed,value\n0,0.7\n", "?dataset=toy&metric=accuracy", "row 2, has no method"),
        ("a.csv", "seed,value\n0,x\n", "?dataset=toy&metric=a&method=b", "row 2: could not convert"),
        ("a.csv", "seed,value\n0,nan\n", "?dataset=toy&metric=a&method=b", "expected a finite number"),
        ("a.csv", "seed,value\n0,1\n0,2\n", "?dataset=toy&metric=a&method=b", "seed 0 twice"),
        ("a.csv", "seed,value\n", "", "has no rows"),
        ("a.csv", "Wall time,Step,Value\n1,2,0.5\n1,x,0.5\n", "", "Step that is no number"),
        ("a.csv", "seed,value\n0,1\n", "?data=toy", "'.*' has the field 'data': expected some of dataset"),
        ("a.json", "{", "", "expected a JSON file"),
        ("a.json", "{}", "", "is not the results of a run"),
        ("a.json", "[3]", "", "row 1, is 3: expected an object"),
        ("a.txt", "", "", "neither .json nor .csv"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, name, text, query, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message):
        read_export(f"{tmp_path / name}{query}")


def test_other_refusals(tmp_path):
    with pytest.raises(DataError, match="has no results.json"):
        read_runs([tmp_path])
    (tmp_path / "published.json").write_text('{"rows": [{"dataset": "a", "method": "b", "value": 1}]}')
    with pytest.raises(DataError, match="row 1, lacks condition, metric, source"):
        read_published(tmp_path / "published.json")
    for held in ("3", "[3]", '{"a": 1}'):
        (tmp_path / "published.json").write_text(f'{{"rows": {held}}}')
        with pytest.raises(DataError, match="expected a list of objects, one published figure each"):
            read_published(tmp_path / "published.json")
    with pytest.raises(SystemExit, match="--metric none is not among what is compared: expected some of acc"):
        main(["compare", "--metric", "none", "--out", str(tmp_path / "out")], "c3r report")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    write_run(tmp_path / "run", 0)
    with pytest.raises(SystemExit, match="--metric nope is not among what is compared: expected some of accuracy"):
        main(["compare", "--runs", str(tmp_path / "run"), "--metric", "nope", "--out", str(tmp_path)], "c3r report")
    (tmp_path / "afile").touch()
    for place, reason in (("afile", "File exists"), ("afile/below", "Not a directory")):
        out = tmp_path / place
        with pytest.raises(SystemExit, match=rf"^report: {out} cannot be written \({reason}\): name another folder"):
            main(["compare", "--runs", str(tmp_path / "run"), "--out", str(out)], "c3r report")


def test_settings_that_are_no_object_are_named(tmp_path):
    write_run(tmp_path / "run", 0, config=[3])
    with pytest.raises(DataError, match=r"results\.json is not the results of a run \(TypeError: config is \[3\]"):
        read_runs([tmp_path])
