"""Asked to stop (SIGTERM, Ctrl-C), a run saves and returns; started once more, it ends as one never asked."""

import os
import signal

import chex
import jax
import pytest
from jax.experimental import multihost_utils

from c3r_jax.errors import CheckpointError, WorkdirError
from c3r_jax.experiments.checkpoints import Checkpoints
from c3r_jax.experiments.metrics_log import read_history
from c3r_jax.files.lock import exclusive_lock
from c3r_jax.training import health as watching
from c3r_jax.training import loop
from c3r_jax.training.loop import fit
from c3r_jax.training.preemption import StopRequest, exit_when_stopped
from tests.comparing import last_state


@pytest.fixture(autouse=True)
def ctrl_c_is_heard():
    """As in a terminal: a shell has programs in the background ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def when(number, function, sent=signal.SIGTERM):
    """Asks in the given call of a function."""
    calls = []

    def asking(*arguments):
        calls.append(1)
        if len(calls) == number:
            os.kill(os.getpid(), sent)
        return function(*arguments)

    return asking


def saved_steps(workdir):
    checkpoints = Checkpoints(workdir)
    found = checkpoints.steps(), checkpoints.best_first()
    checkpoints.close()
    return found


def test_a_run_stopped_anywhere_ends_like_an_uninterrupted_one(small_config, tmp_path, monkeypatch):
    whole = fit(small_config, tmp_path / "whole")
    assert not whole.interrupted
    parts = tmp_path / "parts"

    def asked(place, name, number, sent=signal.SIGTERM):
        with monkeypatch.context() as patch:
            patch.setattr(place, name, when(number, getattr(place, name), sent))
            result = fit(small_config, parts)
        assert result.interrupted and not result.stopped_early
        assert result.stopped_by == ("SIGTERM" if sent == signal.SIGTERM else "Ctrl-C")
        return result.steps

    assert asked(loop, "_batch_preparation", 1) == 0  # before the first step: there is nothing to save
    assert saved_steps(parts) == ([], [])
    assert asked(watching, "first_non_finite", 1) == 2  # the second step runs while the first is checked
    assert saved_steps(parts) == ([2], [])
    checkpoints = Checkpoints(parts)
    with pytest.raises(CheckpointError, match="was validated yet: continue the run's training first"):
        checkpoints.restore(checkpoints.best_first, None)
    checkpoints.close()
    assert asked(loop, "validate", 1) == 4  # left without waiting, and made up for
    assert read_history(parts)[-1]["split"] == "train"
    assert asked(watching, "first_non_finite", 3, signal.SIGINT) == 8  # at step 8, before its validation, which waits
    assert saved_steps(parts)[0][-1] == 8
    assert asked(loop, "validate", 2, signal.SIGINT) == 12

    def not_alone(path):
        with (
            exclusive_lock(path, OSError()),
            pytest.raises(WorkdirError, match="is trained in by another process: wait"),
        ):
            fit(small_config, parts)

    not_alone(parts)
    result = fit(small_config, parts)
    assert (
        not result.interrupted
        and not result.stopped_by
        and (result.best, result.best_step) == (whole.best, whole.best_step)
    )
    assert read_history(parts) == read_history(tmp_path / "whole")
    chex.assert_trees_all_equal(last_state(small_config, parts), last_state(small_config, tmp_path / "whole"))
    assert saved_steps(parts)[1] == saved_steps(tmp_path / "whole")[1]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_first_ctrl_c_says_what_happens_and_the_second_ends_at_once(capfd):
    with StopRequest() as stop, pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.requested() and stop.stopped_by == "Ctrl-C"
        os.kill(os.getpid(), signal.SIGINT)
    assert "stops after this step and saves; once more ends at once" in capfd.readouterr().err


def test_a_program_in_the_background_does_not_hear_ctrl_c():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert not stop.requested()


def test_a_stopped_program_says_how_to_go_on_and_starts_nothing_more(capsys):
    for by, status in (("SIGTERM", 0), ("Ctrl-C", 130)):
        with pytest.raises(SystemExit) as ended:
            exit_when_stopped(by, 12)
        assert ended.value.code == status
        expected = f"stopped by {by} after 12 steps and saved: the same command continues from there\n"
        assert capsys.readouterr().out == expected


def test_several_processes_leave_a_validation_at_one_place(monkeypatch):
    """All ask equally often, steps and batches together; the service names the time at which they stop."""
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    asked = []
    monkeypatch.setattr(multihost_utils, "reached_preemption_sync_point", lambda at: asked.append(at) or at == 5)
    done = []

    def work(look):
        for batch in range(3):
            look()
            done.append(batch)
        return "scores"

    with StopRequest() as stop:
        assert not stop.requested() and stop.run_unless_stopped(work) == "scores"
        assert stop.run_unless_stopped(work) is None and done == [0, 1, 2] and stop.requested()
        assert stop.run_unless_stopped(work) is None
    assert asked == [1, 2, 3, 4, 5]
