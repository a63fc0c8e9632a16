import re

import pytest

from c3r_jax.report import aggregate, what_it_means
from c3r_jax.report.cells import metric_value, number
from c3r_jax.report.examples import explain
from c3r_jax.report.interpretation import read_first_stage, read_risks
from tests.report.conftest import make_record


def test_clear_result_names_winner_interval_and_cost(runs):
    text = what_it_means(aggregate(runs), baseline="plain")
    assert "Averaged over 7 conditions, c3r+dropout comes first" in text[0]
    assert "then dropout" in text[0]
    # gains in the mean: (.16 - .12) * 3.75 / 7 + .000, .001, .002, mean 2.24 points, half-width .248 points
    assert "+2.2 points (95 % interval +2.0 to +2.5, 3 shared seeds)" in text[0]
    assert "not distinguish the two" not in text[0]
    assert text[2].startswith("c3r+dropout against the baseline plain: on the mean +")
    # clean: -.010, -.008, -.006
    assert "On clean data" in text[3] and "-0.8 points" in text[3] and "what it costs" in text[3]


def test_an_interval_with_zero_is_said(runs):
    for run in runs:
        if run["method"] == "c3r+dropout":
            shift = (0.05, -0.03, 0.01)[run["seed"]]
            run["summary"]["representation"]["mean_accuracy"] += shift
            run["conditions"][0]["routes"]["representation"]["accuracy"] += shift
    text = what_it_means(aggregate(runs))
    assert "which includes 0. These seeds do not distinguish the two." in text[0]
    assert any("neither a cost nor a gain is shown" in paragraph for paragraph in text)


def test_it_does_not_overclaim(runs):
    last = what_it_means(aggregate(runs))[-1]
    assert "3 seeds per method, too few for a firm conclusion" in last
    assert "one data set (emoji)" in last
    assert "not a reproduction of the paper" in last


def test_one_seed_has_no_interval(runs):
    text = what_it_means(aggregate([r for r in runs if r["seed"] == 0]))
    assert "one shared seed: no interval" in text[0] and "not as a finding" in text[0]
    assert "nan" not in " ".join(text) and "n/a" not in " ".join(text)


def test_two_seeds_are_too_few(runs):
    assert "Two seeds are too few" in what_it_means(aggregate([r for r in runs if r["seed"] < 2]))[1]


def test_one_method_is_not_compared(run):
    text = what_it_means(aggregate([run]))
    assert text[0].startswith("Only one method was run") and "Nothing here compares" in text[0]


def test_no_shared_seed(runs):
    chosen = [r for r in runs if (r["method"], r["seed"]) in {("plain", 0), ("dropout", 1)}]
    assert "They share no seed" in what_it_means(aggregate(chosen))[0]


def test_a_missing_route_is_said(runs):
    plain = aggregate([r for r in runs if r["method"] == "plain"])
    assert what_it_means(plain, route="instrument")[0].startswith("No run has finite values")


def test_unknown_baseline_is_an_error(runs):
    with pytest.raises(ValueError, match="baseline is 'other': expected one of plain"):
        what_it_means(aggregate(runs), baseline="other")


def test_lower_is_better_for_a_loss(runs):
    text = what_it_means(aggregate(runs, metric="nll"), baseline="plain")
    assert "c3r+dropout comes first (NLL" in text[0] and "Paired difference -0.0" in text[0]
    assert "what it costs" in text[3]


def test_risks_in_words(run):
    text = " ".join(read_risks(run))
    assert "Sufficiency risk 0.180 (interval 0.140 to 0.220)" in text
    assert "guessing predicts 0.333" in text
    assert "between 0.700 and 0.820" in text and "counted directly, it is 0.740" in text
    assert "still reads the label" in text and "low probability" in text


def test_risks_that_refute_the_lower_bound(run):
    run["risk"] |= {"sufficiency": 0.7, "necessity": 0.6, "lower": 0.0, "probe_accuracy": 0.3}
    text = " ".join(read_risks(run))
    assert "add up to more than 1" in text and "close to or below chance" in text


def test_nan_risks_in_words(run):
    run["risk"] = dict.fromkeys(run["risk"], float("nan")) | {"intervals": {}}
    assert read_risks(run) == [
        "Sufficiency risk n/a: the share of examples that the causal part alone gets wrong. Necessity risk n/a: the "
        "share whose label is still predicted after the causal part is removed."
    ]
    assert read_risks({}) == []


def test_no_sentence_goes_from_a_number_to_the_same(run, runs):
    """What is equal once it is rounded is said once, in every sentence about spans."""
    record = make_record(0)
    shown = record["predictions"]
    shown["representation"]["label_probability"], shown["counterfactual"]["label_probability"] = 0.0149, 0.0051
    run["risk"] |= {"lower": 0.7001, "upper": 0.7004, "intervals": {"sufficiency": [0.18, 0.18]}}
    run["first_stage"]["image"]["exclusion"] = {"rho": 0.42, "low": 0.42, "high": 0.42}
    for one in runs:  # the gain over dropout is the same for every seed
        if one["method"] == "dropout":
            one["summary"]["representation"]["mean_accuracy"] = 0.8 + 0.01 * one["seed"]
        if one["method"] == "c3r+dropout":
            one["summary"]["representation"]["mean_accuracy"] = 0.82 + 0.01 * one["seed"]
    said = [*explain(record), *read_risks(run), *read_first_stage(run), *what_it_means(aggregate(runs))]
    for words in (
        f"the probability of {record['label']} stays about 0.01, and the prediction becomes flags",
        "necessary and sufficient is about 0.700; for",
        "Sufficiency risk 0.180 (interval about 0.180)",
        "ρ 0.420 (about 0.420)",
        "+2.0 points (95 % interval about +2.0, 3 shared seeds)",
    ):
        assert any(words in text for text in said), words
    same = re.compile(r"([-+]?\d+\.\d+) (?:to|and) ([-+]?\d+\.\d+)")
    assert all(low != high for text in said for low, high in same.findall(text))


def test_nothing_is_minus_zero(runs):
    assert number(-0.0004) == "0.000" and metric_value(-0.0004, "accuracy") == "0.0"
    for one in runs:
        if one["method"] == "dropout":
            one["summary"] = next(r for r in runs if (r["method"], r["seed"]) == ("c3r+dropout", one["seed"]))[
                "summary"
            ]
    assert not re.search(r"[-+]0\.0\b", what_it_means(aggregate(runs))[0])


def test_first_stage_in_words(run):
    image, text = read_first_stage(run)
    assert "median F 24.1 is not below 10" in image and "finds nothing against" in image and "no proof" in image
    assert "median F 3.2 is below 10, a weak instrument" in text and "No over-identification test" in text
    run["first_stage"]["image"]["over_identification"]["p_value"] = 0.001
    run["first_stage"]["text"]["f_median"] = float("nan")
    image, text = read_first_stage(run)
    assert "speaks against the assumption" in image
    assert "could not be computed" in text
    assert "(held-out rows 381, instruments 16)" in image and "same examples" not in image  # results of before
    run["first_stage"]["image"] |= {"leave_one_out": True, "exclusion": {"rho": 0.42, "low": 0.3, "high": 0.53}}
    run["first_stage"]["text"]["exclusion"] = {"rho": 0.02, "low": -0.1, "high": 0.14}
    image, text = read_first_stage(run)
    assert "(rows, leave-one-out, 381, instruments 16)" in image
    assert "ρ 0.420 (0.300 to 0.530); the larger it is" in image and "This is evidence, and no proof." in image
    assert "ρ 0.020 (-0.100 to 0.140); nothing shows" in text
