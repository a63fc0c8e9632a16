"""Every example of a model runs, is short, and shows that C3R withstands the shift which plain training does not."""

import runpy

import pytest

from tests.processes import REPOSITORY

ELSEWHERE = ("serve", "pytorch")  # tests/commands, tests/parity
EXAMPLES = [path for path in sorted((REPOSITORY / "examples").glob("*.py")) if path.stem not in ELSEWHERE]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_c3r_is_added_to_a_model_that_stays_as_it_is(path):
    example = runpy.run_path(str(path))
    plain = example["accuracy_under_shift"](example["plain_loss"], steps=150)
    regularised = example["accuracy_under_shift"](example["loss_with_c3r"], steps=300)
    assert regularised > 0.8 and plain < 0.5
    assert len(path.read_text(encoding="utf-8").splitlines()) < 60
