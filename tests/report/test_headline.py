"""The headline says who is ahead only where seeds decide it, and its figure shows every method."""

import pytest

from c3r_jax.report import aggregate
from c3r_jax.report import headline_figure as module
from c3r_jax.report.headline import headline
from c3r_jax.report.headline_figure import headline_figure


def test_a_lead_that_seeds_do_not_decide_is_no_lead(runs):
    few = headline(aggregate([run for run in runs if run["seed"] < 2]))
    assert "is ahead" not in few
    assert "On the mean, c3r+dropout has the best accuracy, " in few
    assert "; these seeds do not decide between it and dropout (+2." in few


def test_the_mean_and_the_worst_may_have_different_leaders(runs):
    for run in runs:
        if run["method"] == "plain":
            run["summary"]["representation"]["mean_accuracy"] = 0.95 + 0.001 * run["seed"]
    text = headline(aggregate(runs))
    assert "On the mean, plain is ahead: accuracy 95.1 ± 0.1 %" in text
    assert "In the worst condition, c3r+dropout is ahead: " in text


def test_lower_is_better_for_a_loss(runs):
    text = headline(aggregate(runs, metric="nll"))
    assert "On the mean, c3r+dropout is ahead: NLL 0.2" in text and ", -0.0" in text and "points" not in text


@pytest.mark.parametrize("seeds", [(0, 1), (0, 0)])
def test_two_runs(seeds, runs):
    chosen = [run for run in runs if (run["method"], run["seed"]) in {("plain", seeds[0]), ("dropout", seeds[1])}]
    text = headline(aggregate(chosen))
    assert "is ahead" not in text and "nan" not in text and "n/a" not in text
    assert ("it shares no seed with the next, plain" in text) == (seeds == (0, 1))


def test_one_method_and_a_missing_route(runs):
    plain = aggregate([run for run in runs if run["method"] == "plain"])
    assert "plain on 381 test examples of emoji, 7 conditions: accuracy " in headline(plain)
    assert "It is compared with no other method." in headline(plain)
    assert headline(plain, route="instrument").startswith("No run has a finite accuracy through the instrument (z_c)")


@pytest.mark.parametrize("metric", ["accuracy", "nll"])
def test_the_figure_has_every_method_and_no_overlap(runs, metric, monkeypatch, tmp_path):
    kept = []
    monkeypatch.setattr(module, "save", lambda figure, path: kept.append(figure) or path)
    aggregated = aggregate(runs, metric=metric)
    headline_figure(aggregated, tmp_path / "a.png")
    (ax,) = kept[0].axes
    kept[0].draw_without_rendering()
    assert [label.get_text() for label in ax.get_yticklabels()] == list(aggregated.methods)
    values = [f"{100 * s.mean:.1f}" if metric == "accuracy" else f"{s.mean:.3f}"
              for m in aggregated.methods for c in ("mean", "worst") if (s := aggregated.stat(m, c))]  # fmt: skip
    assert [text.get_text() for text in ax.texts] == values
    frame = ax.get_window_extent()
    for text in ax.texts:
        box = text.get_window_extent()
        assert frame.x0 <= box.x0 and box.x1 <= frame.x1 + 1
    for one, other in zip(ax.texts[::2], ax.texts[1::2], strict=True):
        assert not one.get_window_extent().overlaps(other.get_window_extent())


def test_without_a_finite_score_there_is_no_figure(runs, tmp_path):
    plain = aggregate([run for run in runs if run["method"] == "plain"])
    assert headline_figure(plain, tmp_path / "a.png", route="instrument") is None
    assert not list(tmp_path.iterdir())


def test_a_better_mean_over_other_seeds_is_no_lead(runs):
    """Seeds that only one method has make it look better; on the shared ones it is worse, with every seed."""
    chosen = [run for run in runs if run["method"] in ("plain", "dropout")]
    for run in chosen:
        value = {"plain": 0.6, "dropout": 0.65}[run["method"]] + 0.01 * run["seed"]
        run["summary"]["representation"] = {"mean_accuracy": value, "worst_accuracy": value}
    more = {**chosen[0], "seed": 9, "summary": {"representation": {"mean_accuracy": 0.99, "worst_accuracy": 0.99}}}
    text = headline(aggregate([*chosen, {**more, "method": "plain"}]))
    assert (
        "is ahead" not in text and "on the seeds that it shares with dropout the order is the other way (-5.0" in text
    )


def test_methods_under_different_conditions_are_not_compared(runs):
    for run in runs:
        if run["method"] == "plain":
            run["conditions"] = run["conditions"][:1]
    text = headline(aggregate(runs))
    assert "is ahead" not in text and "not evaluated under the same conditions" in text
