import math

import pytest

from c3r_jax.metrics.intervals import describe, t_interval
from c3r_jax.report import aggregate, compare
from c3r_jax.report.aggregate import column_label, ranking


def test_mean_and_sd_by_hand():
    mean, sd, n = describe([0.70, 0.74, 0.78])
    assert n == 3
    assert mean == pytest.approx(0.74)
    assert sd == pytest.approx(0.04)  # deviations -.04, 0, .04: sqrt(.0032 / 2)


def test_one_value_has_no_sd():
    assert math.isnan(describe([0.5]).sd)


def test_no_values_is_an_error():
    with pytest.raises(ValueError, match="no values"):
        describe([])


def test_t_interval_by_hand():
    found = t_interval([0.01, 0.03, 0.05])
    half = 4.302653 * 0.02 / math.sqrt(3)  # t(.975, 2 degrees of freedom), sd .02
    assert found.mean == pytest.approx(0.03)
    assert (found.lower, found.upper) == pytest.approx((0.03 - half, 0.03 + half), abs=1e-7)
    assert not found.decided


def test_interval_of_one_seed_is_undecided():
    found = t_interval([0.2])
    assert math.isnan(found.lower) and math.isnan(found.upper) and not found.decided


def test_two_equal_seeds_are_not_a_decision():
    assert not t_interval([0.2, 0.2]).decided
    assert t_interval([0.2, 0.2, 0.2]).decided


def test_aggregate_by_hand(runs):
    agg = aggregate(runs)
    assert agg.methods == ("plain", "dropout", "c3r+dropout")
    assert [c.name for c in agg.columns] == [
        "clean", "only_image", "only_text", "gaussian_5", "gaussian_10", "salt_5", "salt_10", "mean", "worst",
    ]  # fmt: skip
    clean = agg.stat("plain", "clean")
    assert clean is not None and clean.n == 3
    assert clean.mean == pytest.approx(0.871)
    assert clean.sd == pytest.approx(0.001)
    # drops: 0, .25 * (1, .8, .25, .5, .4, .8), so the mean drop is .25 * 3.75 / 7 and the worst .25
    mean, worst = agg.stat("plain", "mean"), agg.stat("plain", "worst")
    assert mean is not None and mean.mean == pytest.approx(0.871 - 0.25 * 3.75 / 7)
    assert worst is not None and worst.mean == pytest.approx(0.871 - 0.25)
    assert agg.seeds("dropout") == (0, 1, 2)


def test_summary_is_worked_out_where_the_run_has_none(runs):
    expected = aggregate(runs).stat("dropout", "mean")
    for run in runs:
        del run["summary"]
    assert aggregate(runs).stat("dropout", "mean") == pytest.approx(expected)


def test_worst_of_a_loss_is_the_highest(runs):
    agg = aggregate(runs[:1], metric="nll")
    worst = agg.stat("plain", "worst")
    assert worst is not None and worst.mean == pytest.approx(-math.log(0.87 - 0.25))
    assert ranking(aggregate(runs, metric="nll"), "worst")[0] == "c3r+dropout"


def test_compare_pairs_seeds(runs):
    agg = aggregate([run for run in runs if (run["method"], run["seed"]) != ("dropout", 1)])
    gap = compare(agg, "c3r+dropout", "dropout", column="clean")
    assert gap is not None and gap.n == 2
    assert gap.mean == pytest.approx((0.0 + 0.002) / 2)
    half = 12.706205 * 0.0014142136 / math.sqrt(2)
    assert gap.upper - gap.mean == pytest.approx(half, rel=1e-5)


def test_compare_without_a_shared_seed(runs):
    agg = aggregate([runs[0], next(r for r in runs if r["method"] == "dropout" and r["seed"] == 2)])
    assert compare(agg, "plain", "dropout") is None


def test_missing_route_is_missing(runs):
    agg = aggregate(runs)
    assert agg.stat("plain", "clean", route="instrument") is None
    assert agg.stat("dropout", "clean", route="instrument") is not None


def test_non_finite_values_do_not_count(runs):
    runs[0]["conditions"][0]["routes"]["representation"]["accuracy"] = float("nan")
    clean = aggregate(runs).stat("plain", "clean")
    assert clean is not None and clean.n == 2


@pytest.mark.parametrize("change", [{"dataset": "other"}, {"split": "train"}, {"num_examples": 2}])
def test_mixed_runs_are_refused(runs, change):
    runs[1] |= change
    with pytest.raises(ValueError, match=f"differ in {next(iter(change))}"):
        aggregate(runs)


def test_the_same_run_twice_is_refused(runs):
    with pytest.raises(ValueError, match="has seed 0 twice"):
        aggregate([runs[0], runs[0]])


def test_no_runs_is_an_error():
    with pytest.raises(ValueError, match="no runs"):
        aggregate([])


@pytest.mark.parametrize(
    ("condition", "label"),
    [
        ({"name": "clean", "group": "clean"}, "clean"),
        ({"name": "a", "group": "modality_subset", "modalities": ["image"]}, "image only"),
        ({"name": "a", "group": "modality_subset", "modalities": ["image", "text"]}, "image + text only"),
        ({"name": "a", "group": "modality_subset", "modalities": []}, "a"),
        ({"name": "a", "group": "salt", "level": 0.5}, "salt 0.5"),
        ({"name": "qmf noise 5", "group": "qmf", "level": 5}, "qmf noise 5"),
    ],
)
def test_labels(condition, label):
    assert column_label(condition) == label
