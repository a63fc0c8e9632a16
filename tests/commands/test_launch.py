"""The local cluster: who joins it, and how it ends when one process does."""

import os
import subprocess
import sys
import time
import types

import pytest

from c3r_jax.commands import launch
from c3r_jax.errors import ConfigError
from c3r_jax.parallel import hosts
from tests.processes import REPOSITORY

SCRIPT = """
import os, signal, sys, time
index = int(os.environ["JAX_PROCESS_ID"])
print("hello from", index, "of", os.environ["JAX_NUM_PROCESSES"], os.environ["XLA_FLAGS"].split()[-1], flush=True)
if sys.argv[1] == "all well":
    sys.exit(0)
if index == 1:
    print("no more data", file=sys.stderr, flush=True)
    sys.exit(3) if sys.argv[1] == "error" else os.kill(os.getpid(), signal.SIGKILL)
time.sleep(120)
"""


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    return str(path)


def test_all_end_well(script, capfd):
    assert launch.launch([script, "all well"], 3, 2) == 0
    lines = set(capfd.readouterr().out.splitlines())
    assert lines == {f"[{i}] hello from {i} of 3 --xla_force_host_platform_device_count=2" for i in range(3)}


@pytest.mark.parametrize(("how", "code", "words"), [("error", 3, "exit status 3"), ("signal", 137, "signal 9")])
def test_one_bad_end_ends_all_with_its_reason(script, how, code, words, capfd):
    began = time.monotonic()
    assert launch.launch([script, how], 2, 1) == code
    assert time.monotonic() - began < 60
    error = capfd.readouterr().err
    assert f"process 1 of 2 ended with {words}" in error and "no more data" in error
    assert "continues from the last checkpoint" in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--processes=0", "train.py"], "--processes is 0: expected at least 1"),
        (["--processes=2", "--devices-per-process=0", "train.py"], "--devices-per-process is 0"),
        (["--processes=2"], "no program was given"),
    ],
)
def test_unusable_command_lines(arguments, message, capsys):
    with pytest.raises(SystemExit):
        launch.main(arguments, "c3r launch")
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("environ", "cluster"),
    [
        ({}, None),
        ({"SLURM_JOB_ID": "1", "SLURM_NTASKS": "1", "SLURM_PROCID": "0"}, None),
        ({"SLURM_JOB_ID": "1", "SLURM_NTASKS": "8", "SLURM_PROCID": "3"}, "slurm"),
        ({"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "0"}, "ompi"),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, None),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "0"}, "k8s"),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, None),
        ({"TPU_WORKER_HOSTNAMES": "t-0,t-1"}, "tpu"),
        ({"MEGASCALE_COORDINATOR_ADDRESS": "t-0"}, "tpu"),
    ],
)
def test_clusters_are_recognised_by_their_variables(environ, cluster):
    assert hosts.cluster_of(environ) == cluster


@pytest.fixture
def alone(monkeypatch):
    """No variable of a job or cluster, and a record of how JAX is asked to join one."""
    for name in (hosts.ADDRESS, hosts.COUNT, hosts.INDEX, "SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    calls = []
    monkeypatch.setattr(hosts.jax.distributed, "initialize", lambda *a, **k: calls.append((a, k)))
    return calls


def test_joining(alone, monkeypatch):
    timeouts = {"heartbeat_timeout_seconds": 30, "initialization_timeout": 120}
    hosts.initialize()
    hosts.initialize("host:1", 1, 0)
    assert alone == []  # a process on its own joins nothing
    hosts.initialize("host:1", 2, 1)
    assert alone.pop() == (("host:1", 2, 1), timeouts)
    monkeypatch.setenv(hosts.ADDRESS, "host:2")
    monkeypatch.setenv(hosts.COUNT, "4")
    monkeypatch.setenv(hosts.INDEX, "3")
    hosts.initialize()
    assert alone.pop() == (("host:2", 4, 3), timeouts)
    hosts.initialize(process_id=0)  # what is given comes first
    assert alone.pop() == (("host:2", 4, 0), timeouts)


@pytest.mark.parametrize(
    ("cluster", "variables"),
    [
        ("slurm", {"SLURM_NTASKS": "2", "SLURM_PROCID": "0"}),
        ("ompi", {"OMPI_COMM_WORLD_SIZE": "2"}),
        ("k8s", {"KUBERNETES_SERVICE_HOST": "h", "JOB_COMPLETION_INDEX": "1"}),
    ],
)
def test_joining_a_cluster(alone, monkeypatch, cluster, variables):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    hosts.initialize()
    assert alone == [
        ((), {"cluster_detection_method": cluster} | {"heartbeat_timeout_seconds": 30, "initialization_timeout": 120})
    ]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("host:1", 2, None), "JAX_PROCESS_ID is not known: give --coordinator"),
        ((None, 2, 0), "JAX_COORDINATOR_ADDRESS is not known"),
        (("host:1", 2, 2), "process 2 of 2 processes: expected 0 <= process"),
    ],
)
def test_half_a_job_is_refused(alone, given, message):
    with pytest.raises(ConfigError, match=message):
        hosts.initialize(*given)
    assert not alone


def test_absent_processes_are_one_sentence(alone, monkeypatch):
    def absent(*arguments, **keywords):
        raise RuntimeError("DEADLINE_EXCEEDED: barrier timed out\nlong trace")

    monkeypatch.setattr(hosts.jax.distributed, "initialize", absent)
    with pytest.raises(ConfigError, match=r"process 1 on .* could not join its job \(DEADLINE.*timed out\): check"):
        hosts.initialize("host:1", 2, 1)


def test_help_names_the_program():
    done = subprocess.run([sys.executable, "-m", "c3r_jax.launch", "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and "--devices-per-process" in done.stdout


def test_ending_the_launcher_ends_its_processes(tmp_path):
    """A scheduler ends a job with SIGTERM: nothing goes on writing behind its back."""
    (tmp_path / "script.py").write_text(
        "import os, pathlib, sys, time\n"
        "pathlib.Path(sys.argv[1], os.environ['JAX_PROCESS_ID']).write_text(str(os.getpid()))\n"
        "time.sleep(120)\n"
    )
    command = [
        sys.executable,
        "-m",
        "c3r_jax.launch",
        "--processes=2",
        str(tmp_path / "script.py"),
        str(tmp_path),
    ]
    job = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=REPOSITORY)
    deadline = time.monotonic() + 60
    files = [tmp_path / "0", tmp_path / "1"]
    while not all(file.exists() and file.read_text() for file in files):
        assert job.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    job.terminate()
    assert job.wait(timeout=60) == 143
    for file in files:
        with pytest.raises(ProcessLookupError):
            os.kill(int(file.read_text()), 0)


@pytest.mark.parametrize(
    ("codes", "expected"), [((1, -9), 1), ((-6, 1), 1), ((-6, -9), 1), ((-6, -6), 0), ((1, 3), 0), ((0, 0), None)]
)
def test_of_several_that_ended_the_cause_is_named(codes, expected):
    ended = [types.SimpleNamespace(poll=lambda code=code: code) for code in codes]
    assert launch._wait(ended) == expected
