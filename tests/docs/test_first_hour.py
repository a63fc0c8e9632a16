"""The page of the first hour has every command of its tool, in order; quick ones still print what it says."""

import re

import pytest

from tests.docs.commands import ROOT, UnknownCommand, check
from tools.first_hour import OPENING, PAGE, STEPS, output_of, page_of, shown_outputs

TEXT = PAGE.read_text(encoding="utf-8")
OUTPUTS = shown_outputs(TEXT)


def test_the_page_is_that_of_the_tool():
    """Otherwise: python tools/first_hour.py --words."""
    assert len(OUTPUTS) == len(STEPS) and page_of(OUTPUTS) == TEXT and TEXT.startswith(OPENING)
    assert all(output.strip() for output in OUTPUTS)


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.title)
def test_commands_still_parse(step):
    if step.fails:
        with pytest.raises(UnknownCommand):
            check(step.command)
    else:
        assert check(step.command) == ("c3r" if step.command == "c3r --version" else "python")


def test_no_output_has_a_folder_of_a_machine_or_an_error():
    assert not re.search(r"(?:^|[\s'\"])/(?:\w+/)+|Traceback|Warning|\x1b", TEXT)
    assert str(ROOT) not in TEXT


@pytest.mark.parametrize("number", [i for i, step in enumerate(STEPS) if step.quick], ids=lambda i: STEPS[i].title)
def test_quick_ones_print_what_the_page_says(number, tmp_path):
    output = output_of(STEPS[number], tmp_path)
    assert output == OUTPUTS[number]
