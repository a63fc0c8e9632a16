"""Which ids and names are perhaps one, written in several ways."""

import pytest

from c3r_jax.report.tidy import names_in_several_ways
from c3r_jax.tasks.spellings import plain_ids, spelled_in_several_ways


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (["11", "11.0", "1e5"], [("11", "11.0")]),  # one that looks like an exponent is a name, and only that
        (["11", "011", "1E5", "1e05", "100000", "100000.0"], [("011", "11"), ("100000", "100000.0")]),
        (["1000", "1e3", "10e2"], []),
        (["11", "11.0", "1.5"], []),
        (["11", "11.0", "1.5e3"], []),
        (["-1", "1", "-1.0"], [("-1", "-1.0")]),
        (["-1.5", "1.5"], []),
    ],
)
def test_whole_numbers_are_matched_unless_one_has_a_fraction(ids, expected):
    assert spelled_in_several_ways(ids, plain_ids(ids).__getitem__) == expected


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("shift -1", "shift 1", False),
        ("shift_-0.5", "shift_0.5", False),
        ("shift=-1", "shift=1", False),
        ("shift -.5", "shift .5", False),
        ("shift -1", "shift \u22121", True),  # the sign of typesetters
        ("shift-1", "shift 1", True),
        ("noise - 1", "noise 1", True),
        ("2020-01-05", "2020_01_05", True),
    ],
)
def test_a_signed_level_is_another_one(one, other, same):
    found = names_in_several_ways([("emoji", "c3r", name, "accuracy") for name in (one, other)])
    assert bool(found) == same
