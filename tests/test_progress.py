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


def test_the_first_step_which_compiles_is_not_in_the_rate(monkeypatch, capsys):
    clock = iter([0.0, 100.0, 100.5, 101.0, 102.0])  # opened; first step done; three lines
    monkeypatch.setattr("c3r_jax.progress.time.monotonic", lambda: next(clock))
    with TrainingProgress(40, 0, 128, "c3r seed 0", compiled=True) as progress:
        progress.update(1)
        progress.note(1, "loss 2.1")
        progress.update(2)
        progress.note(2, "loss 2.0")
        progress.note(3, "loss 1.9")
    first, *lines = capsys.readouterr().out.splitlines()
    assert first == "c3r seed 0  step 1/40  loss 2.1"
    assert lines[0] == "c3r seed 0  step 2/40  128 examples/s  38 s left  loss 2.0"
    assert lines[1] == "c3r seed 0  step 3/40  128 examples/s  37 s left  loss 1.9"
