"""What a person sees where there is no terminal: plain lines with rate and unit."""

import pytest

from c3r_jax.progress import TrainingProgress


@pytest.mark.parametrize(("unit", "batch"), [("examples", 128), ("runs", 1)])
def test_plain_lines(unit, batch, capsys):
    with TrainingProgress(40, 0, batch, "c3r seed 0", unit=unit) as progress:
        progress.update(10)
        progress.note(10, "validation 0.6")
    line = capsys.readouterr().out
    assert line.startswith("c3r seed 0  step 10/40  ") and f" {unit}/s  " in line and "e+" not in line
    assert line.endswith("s left  validation 0.6\n")
