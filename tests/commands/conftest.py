"""One small trained run, and what was exported of it, for all tests of commands."""

import contextlib
import fcntl
import os

import pytest

from c3r_jax.export.run import export_run
from c3r_jax.training.loop import fit
from tests.conftest import shrunk


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
    """A function that names a folder of all test processes, and holds it while the first of them fills it."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    @contextlib.contextmanager
    def hold(name):
        with open(base / f"{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield base / name

    return hold


@pytest.fixture(scope="session")
def trained_run(small_emoji, shared):
    """A run of four steps."""
    config = shrunk(small_emoji)
    config.train.steps = config.train.eval_every = 4
    config.eval.protocols = ()
    with shared("trained") as folder:
        if not folder.exists():
            fit(config, folder)
    return folder


@pytest.fixture(scope="session")
def exported(trained_run, shared):
    """The run's export, and the largest difference that the export itself found."""
    with shared("exported") as folder:
        note = folder.with_suffix(".difference")
        if not folder.exists():
            note.write_text(str(export_run(trained_run, folder)))
    return folder, float(note.read_text())
