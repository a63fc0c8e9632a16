"""A small part of what ``make chaos`` tries; kills, SIGTERM and broken numbers have tests in tests/training."""

import logging

import pytest

from tests.chaos import damage, inputs, security
from tests.chaos.lines import Line, table
from tests.chaos.runs import Place

EVERYTHING = 19  # lines below: a theme that yields none would show nothing


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path / "place")


@pytest.fixture(autouse=True)
def quiet(caplog):
    caplog.set_level(logging.CRITICAL, "absl")


def test_attacks_and_odd_files_are_refused(place):
    lines = [security.pickles(place), security.paths(place), security.code(), *inputs.files(place, 12, seed=1)]
    lines += inputs.estimator(10, seed=1)[:2]
    assert len(lines) == EVERYTHING and all(line.cases >= 10 for line in lines)
    assert not [failure for line in lines for failure in line.failures], table({"small": lines})


def test_any_damaged_file_is_named(place):
    config = place.config(train__steps=6, train__eval_every=3)
    line = damage.every_file(place, config, ways=(damage.flip,), steps=6, every=3)
    assert line.cases > 10 and not line.failures, line.failures


def test_a_line_that_fails_says_so(place):
    line = inputs.fuzz("odd", inputs.json_values, lambda value: [][0], 10, 0)
    assert line.cases == 10 and line.failures and "IndexError at inputs.py" not in line.failures[0]
    assert "IndexError at test_chaos.py" in line.failures[0]
    held = Line("one", 3)
    assert held.check(True, "never") and not held.check(False, "an odd one")
    assert (held.cases, held.failures) == (5, ["an odd one"])
