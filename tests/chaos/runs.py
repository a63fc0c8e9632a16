"""Small runs in processes of their own: started, ended at chosen moments, compared to the last bit."""

import hashlib
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import jax
import numpy as np
import orbax.checkpoint as ocp

from c3r_jax.data.sets.emoji import read_index, write_subset
from configs.emoji import get_config
from tests.processes import REPOSITORY, train_command

TIMEOUT = 600.0  # seconds after which a process counts as hanging
LEAVES = {
    "data.image_size": 16,
    "data.text_length": 16,
    "model.dim": 4,
    "model.image.patch": 8,
    "model.image.width": 8,
    "model.image.depth": 1,
    "model.text.width": 8,
    "model.text.orders": (2,),
    "model.text.buckets": 64,
    "optimizer.warmup_steps": 2,
    "train.batch_size": 64,
    "train.log_every": 1,
    "eval.batch_size": 64,
}


class Place:
    """A directory for runs, their data and what was compiled for them."""

    def __init__(self, root: pathlib.Path):
        self.root = root
        self.emoji = root / "emoji.zip"
        root.mkdir(parents=True, exist_ok=True)
        if not self.emoji.exists():
            write_subset(self.emoji, read_index()[0]["items"][::6])

    def config(self, **leaves):
        """The emoji configuration, small: a step takes milliseconds. Leaves as train__steps=8."""
        config = get_config()
        given = {name.replace("__", "."): value for name, value in leaves.items()}
        config.update_from_flattened_dict(LEAVES | {"data.path": str(self.emoji)} | given)
        return config

    def environment(self, **more):
        """One device; programs are compiled once for all processes, so that most of their time is the run's."""
        return {
            **os.environ,
            "PYTHONPATH": str(REPOSITORY),
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": "--xla_backend_optimization_level=0",
            "JAX_COMPILATION_CACHE_DIR": str(self.root / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            **more,
        }

    def start(self, command, **more):
        """Starts a command; what it says goes to a file beside the runs."""
        log = open(self.root / "log", "w+")
        process = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, env=self.environment(**more), cwd=REPOSITORY
        )
        process.log = log
        return process

    def finish(self, command, **more):
        """Runs a command to its end: exit status and what it said."""
        process = self.start(command, **more)
        return end(process)

    def train(self, config, workdir, *extra):
        """The command that trains a configuration."""
        return train_command(config, workdir, *extra)

    def evaluate(self, workdir):
        """The command that evaluates a run."""
        return [sys.executable, str(REPOSITORY / "eval.py"), f"--workdir={workdir}"]

    def whole(self, config, workdir):
        """A run that nothing happens to, evaluated."""
        for command in (self.train(config, workdir), self.evaluate(workdir)):
            status, said = self.finish(command)
            if status:
                raise RuntimeError(f"the run without any harm failed: {said[-500:]}")
        return fingerprint(workdir)


def end(process):
    """Waits for a process: exit status and what it said."""
    try:
        process.wait(TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.log.seek(0)
    said = process.log.read()
    process.log.close()
    return process.returncode, said


def signalled(process, number: int, ready: Callable[[], bool], delay: float) -> bool:
    """Sends a signal some seconds after something is there; whether the process was still at work then."""
    deadline = time.monotonic() + TIMEOUT
    while not ready() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    time.sleep(delay)
    if process.poll() is not None:
        return False
    process.send_signal(number)
    return True


def last_step(workdir) -> int:
    """Step of the last line of metrics.jsonl."""
    path = pathlib.Path(workdir) / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    try:
        return int(json.loads(lines[-1])["step"]) if lines else 0
    except ValueError:  # it is being written
        return 0


def newest(workdir) -> int:
    """Step of the newest finished checkpoint."""
    steps = [int(p.name) for p in (pathlib.Path(workdir) / "checkpoints").glob("*") if p.name.isdigit()]
    return max(steps, default=0)


def state_digest(workdir, step=None) -> str:
    """SHA-256 over every number of a checkpoint's state."""
    directory = pathlib.Path(workdir).absolute() / "checkpoints" / str(newest(workdir) if step is None else step)
    state = ocp.StandardCheckpointHandler().restore(directory / "state")
    digest = hashlib.sha256()
    for path, leaf in sorted(jax.tree_util.tree_leaves_with_path(state), key=lambda one: str(one[0])):
        array = np.asarray(leaf)
        digest.update(f"{path}{array.dtype}{array.shape}".encode() + array.tobytes())
    return digest.hexdigest()


def fingerprint(workdir) -> dict[str, str]:
    """Parameters, metrics and results of a finished run; equal if and only if every bit is."""
    workdir = pathlib.Path(workdir)
    found = {"state": state_digest(workdir), "metrics": (workdir / "metrics.jsonl").read_text()}
    if (workdir / "results.json").exists():
        results = json.loads((workdir / "results.json").read_text())
        del results["command"]  # names the directory
        found["results"] = json.dumps(results)
    return found


def tree_digest(folder) -> str:
    """SHA-256 over every file below a folder."""
    digest = hashlib.sha256()
    for path in sorted(p for p in pathlib.Path(folder).rglob("*") if p.is_file()):
        digest.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return digest.hexdigest()


def differing(one: dict, other: dict) -> str:
    """Names of what differs between two fingerprints."""
    return ", ".join(name for name in one if one[name] != other.get(name))


def moments(count: int, rng: random.Random) -> list[float]:
    """Random delays in seconds, most of them short."""
    return [rng.expovariate(1 / 0.1) for _ in range(count)]


KILL, TERM = signal.SIGKILL, signal.SIGTERM
