"""Asked to stop (SIGTERM), a run saves and returns; called again, it ends with the numbers of one never asked."""

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
from c3r_jax.training.preemption import StopRequest
from tests.comparing import last_state


def ask():
    os.kill(os.getpid(), signal.SIGTERM)


def when(number, function):
    """Asks in the given call of a function."""
    calls = []

    def asking(*arguments):
        calls.append(1)
        if len(calls) == number:
            ask()
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

    def asked(place, name, number):
        with monkeypatch.context() as patch:
            patch.setattr(place, name, when(number, getattr(place, name)))
            result = fit(small_config, parts)
        assert result.interrupted and not result.stopped_early
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
    assert asked(watching, "first_non_finite", 3) == 8  # at step 8, before its validation, which waits
    assert saved_steps(parts)[0][-1] == 8
    assert asked(loop, "validate", 2) == 12

    def not_alone(path):
        with (
            exclusive_lock(path, OSError()),
            pytest.raises(WorkdirError, match="is trained in by another process: wait"),
        ):
            fit(small_config, parts)

    not_alone(parts)
    result = fit(small_config, parts)
    assert not result.interrupted and (result.best, result.best_step) == (whole.best, whole.best_step)
    assert read_history(parts) == read_history(tmp_path / "whole")
    chex.assert_trees_all_equal(last_state(small_config, parts), last_state(small_config, tmp_path / "whole"))
    assert saved_steps(parts)[1] == saved_steps(tmp_path / "whole")[1]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


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
