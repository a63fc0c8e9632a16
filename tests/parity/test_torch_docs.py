"""The blocks of docs/pytorch.md and the PyTorch example run, and show what they say."""

import runpy

import pytest
import torch
import torch.distributed as dist

from tests.docs.commands import ROOT, blocks

pytestmark = pytest.mark.torch


@pytest.mark.filterwarnings("ignore:the first stage has")
def test_the_page_runs(capsys, tmp_path):
    text = (ROOT / "docs/pytorch.md").read_text(encoding="utf-8")
    names = {"__name__": "documentation"}
    for number, block in enumerate(blocks(text, "python")):
        exec(compile(block, f"pytorch.md, block {number}", "exec"), names)
    *steps, last = capsys.readouterr().out.splitlines()
    assert [line.startswith("task ") for line in steps] == [True] * 3
    assert last == "torch.bfloat16 torch.float32 torch.float32"
    added = blocks(text, "python")[1].splitlines()
    assert len(added) <= 11  # "ten lines", and an empty one
    (distributed,) = blocks(text, "py")
    dist.init_process_group("gloo", f"file://{tmp_path / 'store'}", world_size=1, rank=0)
    try:
        exec(compile(distributed, "pytorch.md, several processes", "exec"), names)
    finally:
        dist.destroy_process_group()
    model = names["model"].module
    assert all(parameter.grad.any() for parameter in model.parameters())
    assert model.terms.cap is not None and torch.isfinite(model.terms.task)


def test_c3r_is_added_to_a_model_that_stays_as_it_is():
    path = ROOT / "examples/pytorch.py"
    example = runpy.run_path(str(path))
    plain = example["accuracy_under_shift"](example["plain_loss"], steps=150)
    regularised = example["accuracy_under_shift"](example["loss_with_c3r"], steps=200)
    assert regularised > 0.8 and plain < 0.5
    assert len(path.read_text(encoding="utf-8").splitlines()) < 60
