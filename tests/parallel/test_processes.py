"""Two processes of four devices, joined through jax.distributed: the same run, its death, and going on elsewhere."""

import signal
import subprocess
import threading
import time

import chex
import pytest

from c3r_jax.commands import launch
from c3r_jax.experiments import compiled as module
from c3r_jax.experiments.metrics_log import read_history
from c3r_jax.parallel.replicated import Replicated
from c3r_jax.training import health as watching
from c3r_jax.training.loop import fit
from tests.comparing import assert_same_values, last_state
from tests.processes import REPOSITORY, command_environment, train_command

STEPS, EVERY = 20, 5


@pytest.fixture
def config(small_config):
    small_config.optimizer.name, small_config.optimizer.learning_rate = "sgd", 0.05
    small_config.train.steps, small_config.train.eval_every = STEPS, EVERY
    small_config.c3r.counterfactual = "permute"
    return small_config


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Where the run of one process is, for every test of this file."""
    return tmp_path_factory.mktemp("one") / "process"


@pytest.fixture
def whole(config, place):
    """The run of one process on eight devices, from beginning to end."""
    fit(config, place)  # made once: a finished run has nothing left to do
    return place


def assert_same_run(config, one, other):
    """The same values at every step and validation, to the end, and the same parameters there."""
    a, b = read_history(one), read_history(other)
    assert [(line["step"], line["split"]) for line in a] == [(line["step"], line["split"]) for line in b]
    assert a[-1]["step"] == STEPS
    for left, right in zip(a, b, strict=True):
        assert_same_values(left["values"], right["values"])
    (step, left), (other_step, right) = last_state(config, one), last_state(config, other)
    assert step == other_step == STEPS
    for part in ("params", "instrument"):
        chex.assert_trees_all_close(getattr(left, part), getattr(right, part), rtol=1e-5, atol=2e-6)


@pytest.mark.slow
def test_a_dead_process_ends_the_job_and_one_device_goes_on(config, whole, tmp_path, monkeypatch, capfd):
    """A mesh of 4 x 2 devices over two processes; process 1 is killed; one device alone finishes the run."""
    config.parallel.strategy, config.parallel.fsdp, config.parallel.min_size = "mesh", 2, 0
    workdir, started, result = tmp_path / "run", [], []
    original = subprocess.Popen

    def remembered(*arguments, **keywords):
        started.append(original(*arguments, **keywords))
        return started[-1]

    monkeypatch.setattr(launch.subprocess, "Popen", remembered)
    monkeypatch.chdir(REPOSITORY)
    command = train_command(config, workdir)[1:]
    job = threading.Thread(target=lambda: result.append(launch.launch(command, 2, 4)))
    job.start()
    deadline = time.monotonic() + 300
    while not (workdir / "checkpoints" / str(EVERY)).exists():
        assert job.is_alive() and time.monotonic() < deadline, capfd.readouterr()
        time.sleep(0.02)
    killed = time.monotonic()
    started[1].send_signal(signal.SIGKILL)
    job.join(timeout=60)
    assert not job.is_alive() and time.monotonic() - killed < 60
    assert result == [137] and "process 1 of 2 ended with signal 9" in capfd.readouterr().err
    assert all(process.poll() is not None for process in started)

    # Another min_size: programs are kept by configuration, and this one is for a single device.
    config.parallel.strategy, config.parallel.fsdp, config.parallel.min_size = "pmap", 1, 1
    monkeypatch.setattr(module, "build_strategy", lambda *_: Replicated(module.jax.devices()[:1]))
    done = fit(config, workdir)
    assert done.steps == STEPS
    assert_same_run(config, whole, workdir)


PROGRAM = """
import os, runpy, sys
from c3r_jax.experiments.checkpoints import Checkpoints

read = Checkpoints._read

def at_times(self, step, like):
    if step == 10 and os.environ["JAX_PROCESS_ID"] == "1":
        raise OSError("stale file handle")
    return read(self, step, like)

Checkpoints._read = at_times
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.slow
def test_two_processes_go_on_with_a_run_of_one(config, whole, tmp_path, monkeypatch):
    """One process stops at step 12; two under pmap go on, from step 5: one of them cannot read the newer checkpoint."""

    class Stopped(Exception):
        pass

    looked, workdir = [], tmp_path / "run"

    def stop_at_twelve(values):
        looked.append(values)
        if len(looked) == 12:
            raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(watching, "first_non_finite", stop_at_twelve)
        with pytest.raises(Stopped):
            fit(config, workdir)
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [*train_command(config, workdir)]
    command[1:1] = [
        "-m",
        "c3r_jax.launch",
        "--processes=2",
        "--devices-per-process=4",
        str(tmp_path / "program.py"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, env=command_environment(), cwd=REPOSITORY)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"[0] finished after {STEPS} steps" in done.stdout and "[1] finished" not in done.stdout
    output = done.stdout + done.stderr
    assert "another process cannot read it" in output and "stale file handle" in output
    assert (workdir / "damaged" / "10-1" / "state").exists()  # nothing is deleted
    assert_same_run(config, whole, workdir)


SCRIPT = """
import sys
from c3r_jax.parallel import hosts

hosts.initialize()
import jax
if jax.process_index() == 1:
    hosts.exit_process("no more data here")
hosts.barrier("never reached by all")
"""


@pytest.mark.slow
def test_an_error_in_one_process_ends_the_job(tmp_path, monkeypatch, capfd):
    """The process says why and ends at once, instead of waiting for others that wait for it."""
    (tmp_path / "script.py").write_text(SCRIPT)
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    began = time.monotonic()
    assert launch.launch([str(tmp_path / "script.py")], 2, 1) == 1
    assert time.monotonic() - began < 60
    error = capfd.readouterr().err
    assert "process 1 of 2 ended with exit status 1" in error and "no more data here" in error
