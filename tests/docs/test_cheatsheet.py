"""The cheat sheet names leaves that are there, with the defaults that they have."""

import re

from c3r_jax.core.config import INSTRUMENTS
from c3r_jax.core.counterfactual_modes import MODES
from c3r_jax.report.document import flatten
from c3r_jax.tasks.registry import TASKS
from configs.base import get_config
from tests.docs.commands import ROOT

TEXT = (ROOT / "docs/cheatsheet.md").read_text(encoding="utf-8")
LEAVES = dict(flatten(get_config().to_dict()))
ROWS = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in TEXT.splitlines() if line.startswith("| `")]
PARTS = {name.partition(".")[0] for name in LEAVES if "." in name}


def test_every_row_has_a_leaf_and_its_default():
    assert len(ROWS) > 40
    seen = []
    for row in ROWS:
        assert len(row) == 4, row
        names, defaults = (re.findall(r"`([^`]*)`", cell) for cell in row[:2])
        assert names and len(names) == len(defaults), row
        for name, default in zip(names, defaults, strict=True):
            assert name in LEAVES, f"{name} is no leaf of configs/base.py"
            assert repr(LEAVES[name]) == default, f"{name} is {LEAVES[name]!r} by default"
        seen += names
    assert len(seen) == len(set(seen))


def test_every_other_leaf_that_is_named_is_there():
    named = {name for name in re.findall(r"`([a-z_0-9]+\.[a-z_.0-9]+)`", TEXT) if name.partition(".")[0] in PARTS}
    assert len(named) > 40 and named <= LEAVES.keys()


def test_every_part_of_the_method_and_of_training_has_its_rows():
    found = {name.partition(".")[0] for row in ROWS for name in re.findall(r"`([^`]*)`", row[0])}
    assert {"c3r", "data", "model", "train", "optimizer", "eval", "parallel", "modality_dropout", "rival"} <= found


def test_choices_that_are_named_are_choices():
    """Words of code in "what it does" and "touch it when" that set a leaf are values that the leaf takes."""
    said = {row[0].strip("`"): re.findall(r"`(\w+)`", row[2]) for row in ROWS}
    for leaf, known in (("c3r.counterfactual", MODES), ("c3r.instrument", INSTRUMENTS), ("task", TASKS)):
        assert set(said[leaf]) <= set(known), leaf
