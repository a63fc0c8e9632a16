"""Two processes with a part of the batch each, under DistributedDataParallel: the whole batch's loss and gradients."""

import subprocess
import sys

import pytest
import torch
import torch.distributed as dist

from c3r_jax.torch import processes
from tests.parity.torch_job import CONFIGS, Model, measure, rows
from tests.processes import REPOSITORY

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Of each of the two processes, and of one with all rows."""
    folder = tmp_path_factory.mktemp("job")
    command = [sys.executable, "-m", "tests.parity.torch_job"]
    started = [subprocess.Popen([*command, str(rank), str(folder)], cwd=REPOSITORY) for rank in range(2)]
    whole = measure()
    try:
        assert [process.wait(120) for process in started] == [0, 0]
    finally:
        for process in started:
            process.kill()
    return *(torch.load(folder / f"{rank}.pt") for rank in range(2)), whole


@pytest.mark.parametrize("case", CONFIGS)
def test_loss_terms_and_gradients_are_those_of_the_whole_batch(found, case):
    first, second, whole = (one[case] for one in found)
    assert first.keys() == whole.keys() and len(whole) > 10
    for name, expected in whole.items():
        if name == "z_bar":
            torch.testing.assert_close(torch.cat([first[name], second[name]]), expected)
            continue
        assert expected.isfinite().all() and expected.abs().max() > 1e-6
        for one in (first, second):
            torch.testing.assert_close(one[name], expected)


def test_a_forgotten_group_is_warned_about_once(monkeypatch):
    processes._warn_of_no_group.cache_clear()
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda group=None: 2)
    processes.check_group("a group")
    with torch.no_grad():
        processes.check_group(None)
    model, arguments = Model(CONFIGS["default"]).double(), rows(slice(None))
    with pytest.warns(UserWarning, match=r"no group= in a job of 2 processes: .*; pass group=torch.distributed.group"):
        model(*arguments, None)
    model(*arguments, None)
