"""What the demo's report begins with."""

import json

import pytest

from c3r_jax.commands import demo_leads
from c3r_jax.commands.demo_leads import ESTIMATORS, known_truth, natural_shift
from c3r_jax.settings.data import DataSettings


def test_the_known_truth_is_measured_once_and_shows_what_follows(tmp_path, monkeypatch):
    monkeypatch.setattr(demo_leads, "STEPS", 60)
    monkeypatch.setattr(demo_leads, "ROWS", 1000)
    monkeypatch.setattr(demo_leads, "ESTIMATORS", {"plain": ESTIMATORS["plain"]})
    lead = known_truth(tmp_path, 1)
    assert lead.table.header == (
        "method",
        "cues reversed",
        "in distribution",
        "cue alone changed",
        "cause alone changed",
    )
    figures = json.loads((tmp_path / "truth.json").read_text())["shares"]
    assert figures["plain"]["cause alone changed"][0] > 0.1 and figures["plain"]["in distribution"][0] > 0.85
    monkeypatch.setattr(demo_leads, "C3RClassifier", None)  # would fail if it were measured again
    assert known_truth(tmp_path, 1) == lead
    with pytest.raises(TypeError, match="'NoneType' object is not callable"):  # other seeds are
        known_truth(tmp_path, 2)
    (tmp_path / "truth.json").write_text("{")
    with pytest.raises(TypeError, match="'NoneType' object is not callable"):  # and so is what cannot be read
        known_truth(tmp_path, 1)


def test_every_run_is_evaluated_where_the_data_differs(tmp_path, monkeypatch):
    def results(method, value):
        return {
            "method": method,
            "metric": "accuracy",
            "conditions": [{"routes": {"representation": {"accuracy": value}}}],
        }

    found = {"a": 0.5, "b": 0.75}
    monkeypatch.setattr(demo_leads, "evaluate", lambda folder, *, split, protocols: results("", found[folder.name]))
    runs, folders = [results("plain", 0.6), results("c3r", 0.7)], [tmp_path / "a", tmp_path / "b"]
    lead = natural_shift(DataSettings(name="emoji_styles"), tmp_path, runs, folders)
    assert lead.table.rows == (("plain", "50.0", "60.0"), ("c3r", "75.0", "70.0"))
    assert lead.table.header == ("method", "twitter", "test")


def test_data_without_a_shifted_split_has_no_such_part(tmp_path):
    runs = [{"method": "plain", "metric": "accuracy"}]
    assert natural_shift(DataSettings(name="emoji"), tmp_path, runs, [tmp_path]) is None
